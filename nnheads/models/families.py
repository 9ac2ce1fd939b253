"""Where every model family keeps its layers, attention, output projection, norm and unembedding.

A model family is one row, keyed by `config.model_type`. nnheads never guesses: a family that is not
in the table is derived from the model and proven on it (`proven`), or refused by name. To write one
down, add a row; the contract tests build a tiny random model of every row and compare reads, writes
and their effect on the logits with plain PyTorch hooks.

The paths become nnsight aliases, so everywhere else in nnheads the same names hold:

    model.layers[l]                        a block of the residual stream
    model.layers[l].attention              its attention
    model.layers[l].attention.projection   W_O; its *input* is z, the head outputs side by side
    model.layers[l].mlp                    its MLP
    model.embedding, model.final_norm, model.unembedding
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nnheads.errors import ModelError

if TYPE_CHECKING:
    from nnsight import TransformersModel
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Family:
    """Paths of one model family; those below `layers` are relative to a block.

    attention_adds, mlp_adds: the modules whose output is what attention and the MLP add, where
        these return more than that, or a norm stands behind them.
    neurons: the module whose *input* are the MLP's neurons; None where experts share the MLP.
    mlp_reads: the module whose input the MLP reads, where `mlp` is not the whole of it.
    post_norm: the norm that what attention adds goes through before it joins the residual stream.
    tuple_block: the block returns (hidden states, attention weights) and not a bare tensor.
    position_ids: the model takes them. Families with ALiBi only do not.
    kernel: where attention is computed. "interface" is transformers' attention interface, whose
        queries, keys and values can be read under any implementation; the others name their own
        function and run eagerly.
    """

    layers: str = "model.layers"
    attention: str = "self_attn"
    projection: str = "self_attn.o_proj"
    mlp: str = "mlp"
    mlp_reads: str | None = None
    embedding: str = "model.embed_tokens"
    final_norm: str = "model.norm"
    unembedding: str = "lm_head"
    attention_adds: str | None = None
    mlp_adds: str | None = None
    neurons: str | None = "mlp.down_proj"
    post_norm: str | None = None
    tuple_block: bool = False
    position_ids: bool = True
    kernel: str = "interface"

    @property
    def interface(self) -> bool:
        """Whether attention goes through transformers' interface: any implementation will do."""
        return self.kernel == "interface"

    def rename(self) -> dict[str, str]:
        """Return nnsight's `rename` entries: the family's path -> the name used in nnheads."""
        attention = self.projection.rpartition(".")[0]
        pairs = {
            self.layers: "layers",
            self.attention: "attention",
            # The alias sits on the module that holds the projection, so that GPT-2's two `c_proj`
            # stay apart.
            self.projection: f"{attention}.projection",
            self.mlp: "mlp",
            self.embedding: "embedding",
            self.final_norm: "final_norm",
            self.unembedding: "unembedding",
        }
        return {path: alias for path, alias in pairs.items() if path != alias}


_LLAMA = Family()
_GPT2 = Family(
    neurons="mlp.c_proj",
    layers="transformer.h",
    attention="attn",
    projection="attn.c_proj",
    embedding="transformer.wte",
    final_norm="transformer.ln_f",
)
_TUPLES = replace(_GPT2, tuple_block=True)
_FALCON = replace(
    _TUPLES,
    neurons="mlp.dense_4h_to_h",
    attention="self_attention",
    projection="self_attention.dense",
    embedding="transformer.word_embeddings",
    kernel="falcon",
)
_NORMED_AFTER = Family(
    attention_adds="post_attention_layernorm",
    mlp_adds="post_feedforward_layernorm",
    post_norm="post_attention_layernorm",
)

FAMILIES: dict[str, Family] = {
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neo": replace(
        _TUPLES,
        attention="attn.attention",
        projection="attn.attention.out_proj",
        kernel="attn",
    ),
    "gptj": replace(_TUPLES, neurons="mlp.fc_out", projection="attn.out_proj", kernel="attn"),
    "gpt_neox": Family(
        neurons="mlp.dense_4h_to_h",
        layers="gpt_neox.layers",
        attention="attention",
        projection="attention.dense",
        embedding="gpt_neox.embed_in",
        final_norm="gpt_neox.final_layer_norm",
    ),
    "opt": Family(
        neurons="fc2",
        mlp_reads="fc1",
        layers="model.decoder.layers",
        projection="self_attn.out_proj",
        mlp="fc2",
        embedding="model.decoder.embed_tokens",
        final_norm="model.decoder.final_layer_norm",
    ),
    "bloom": replace(
        _FALCON,
        attention_adds="self_attention.dense",
        mlp_adds="mlp.dense_4h_to_h",
        position_ids=False,
        kernel="bloom",
    ),
    "falcon": _FALCON,
    "phi": Family(
        projection="self_attn.dense", final_norm="model.final_layernorm", neurons="mlp.fc2"
    ),
    "starcoder2": Family(neurons="mlp.c_proj"),
    **dict.fromkeys(("mixtral", "gpt_oss", "qwen2_moe", "qwen3_moe"), Family(neurons=None)),
    **dict.fromkeys(("gemma2", "gemma3_text", "olmo2"), _NORMED_AFTER),
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma", "phi3", "stablelm", "cohere"),
        _LLAMA,
    ),
}


_PROVEN: dict[str, Family] = {}  # rows that were derived in this process, by their configuration
# of a configuration: what says nothing of how its model computes
_NAMES = ("_name_or_path", "architectures", "dtype", "transformers_version", "use_cache")


def family(model: TransformersModel) -> Family:
    """Return the row of a loaded model. Raises ModelError as `family_of`."""
    return family_of(model.config)


def family_of(config: PretrainedConfig) -> Family:
    """Return the row of a config's family.

    Raises:
        ModelError: one that is neither in the table nor was derived in this process.
    """
    row = FAMILIES.get(config.model_type) or _PROVEN.get(digest(config))
    if row is None:
        raise ModelError(
            f"model family {config.model_type!r} is not known to nnheads; known:"
            f" {', '.join(sorted(FAMILIES))}. A new family is one row in nnheads/models/families.py"
        )
    return row


def learn(config: PretrainedConfig, row: Family) -> None:
    """Let a row be that of a configuration from now on, in this process."""
    _PROVEN[digest(config)] = row


def digest(config: PretrainedConfig) -> str:
    """Return a hash of what a configuration says of how its model computes."""
    said = {name: value for name, value in config.to_dict().items() if name not in _NAMES}
    text = json.dumps(said, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
