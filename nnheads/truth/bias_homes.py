"""Which bias of a family can hold what an edit adds to head outputs.

    home = home_of(model)
    home.config, home.module    # the configuration that has the bias, and the module of a block

Most families have an option for a bias at the attention output projection. Others are saved as
Llama, or hold the edit elsewhere in the block; the rest is BadInput.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from nnheads.errors import BadInput
from nnheads.models.families import family
from nnheads.models.geometry import geometry

# families whose projection gets its bias by an option of their configuration, which may give others
# one too
SWITCHES = {
    "llama": "attention_bias",
    "qwen3": "attention_bias",
    "qwen3_moe": "attention_bias",
    "smollm3": "attention_bias",
    "gemma": "attention_bias",
    "gemma2": "attention_bias",
    "gemma3_text": "attention_bias",
    "olmo2": "attention_bias",
    "cohere": "attention_bias",
    "gpt_oss": "attention_bias",
    "gpt_neox": "attention_bias",
    "opt": "enable_bias",
    "falcon": "bias",
    "starcoder2": "use_bias",
}
# families whose projection has a bias anyway
ALWAYS = ("gpt2", "gpt_bigcode", "gpt_neo", "bloom", "phi")
# families whose MLP stands beside attention, so that its bias joins the residual stream at the same
# site
BESIDE = {"gptj": "mlp.fc_out"}
# families whose values can have a bias: attention weights of a query sum to 1, so it comes through
# to z as it is
VALUES = {
    "stablelm": ("use_qkv_bias", "self_attn.v_proj"),
    "qwen2_moe": ("qkv_bias", "self_attn.v_proj"),
}
# families that compute what Llama computes, but have no option for the bias: they are saved as
# Llama
AS_LLAMA = ("mistral", "qwen2")
LLAMA_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "use_cache",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
    "rope_parameters",
    "attention_dropout",
)


@dataclass(frozen=True)
class Home:
    """Where the biases are.

    config: of the baked checkpoint. module: of a block, whose bias holds the edit. of_values: the
    bias holds what is added to head outputs themselves, not what that adds behind the projection.
    """

    config: Any
    module: str
    of_values: bool = False


def home_of(model) -> Home:
    """Return where the baked checkpoint of a model holds an edit.

    Raises:
        BadInput: a family without such a bias.
    """
    config, projection = copy.deepcopy(model._module.config), family(model).projection
    model_type = config.model_type
    if model_type in ALWAYS:
        return Home(config, projection)
    if model_type in SWITCHES:
        return Home(_switched_on(config, SWITCHES[model_type]), projection)
    if model_type in BESIDE:
        return Home(config, BESIDE[model_type])
    if model_type in VALUES and _own_values(model):
        option, module = VALUES[model_type]
        return Home(_switched_on(config, option), module, of_values=True)
    if model_type in AS_LLAMA and not _windows(config):
        return Home(_as_llama(config), projection)
    raise _refused(model_type)


def _switched_on(config: Any, option: str) -> Any:
    setattr(config, option, True)
    return config


def _own_values(model) -> bool:
    """Return whether no two heads share their values."""
    sizes = geometry(model)
    return sizes.kv_heads == sizes.heads


def _windows(config: Any) -> bool:
    """Return whether some layer looks back only so far, which Llama cannot."""
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return True
    return config.model_type == "mistral" and config.sliding_window is not None


def _as_llama(config: Any) -> Any:
    from transformers import LlamaConfig

    kept = {name: getattr(config, name) for name in LLAMA_FIELDS if hasattr(config, name)}
    return LlamaConfig(**kept, attention_bias=True, architectures=["LlamaForCausalLM"])


def _refused(model_type: str) -> BadInput:
    why = "in any configuration"
    if model_type in AS_LLAMA:
        why = "and its sliding window keeps it from being saved as Llama"
    if model_type in VALUES:
        why = "and its heads share values, so that these cannot hold it either"
    return BadInput(
        f"family {model_type!r} has no bias at its attention output projection {why}; share the"
        " edit itself instead"
    )
