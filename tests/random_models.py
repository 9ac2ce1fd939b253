"""Tiny random models of every family and the tokenizers that go with them.

They are imported by tests and fixtures, never by conftest.py at its top: the process that only
hands tests out need not load torch.
"""

from __future__ import annotations

import functools

import nnsight
import torch

from nnheads.models.families import FAMILIES
from nnheads.remote.place import put
from nnheads.trace.session import PLACE

torch.set_num_threads(1)  # tests run in several processes
nnsight.register("nnheads")  # what is shipped travels as source, as `load` arranges it

VOCABULARY = 500
SIZES = {
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
WIDE = {**SIZES, "head_dim": 16}  # head_dim is not hidden / heads, wherever the family allows it
OLD = {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 128}
NO_GROUPS = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
CONFIGS = {
    "gpt2": OLD,
    "gpt_bigcode": {**OLD, "multi_query": True},
    "gpt_neo": {
        "hidden_size": 48,
        "num_layers": 3,
        "num_heads": 4,
        "max_position_embeddings": 128,
        "attention_types": [[["global", "local", "global"], 1]],
        "window_size": 4,
    },
    "gptj": {**OLD, "rotary_dim": 8},
    "gpt_neox": NO_GROUPS,
    "opt": {**NO_GROUPS, "ffn_dim": 40, "word_embed_proj_dim": 48},
    "bloom": {"hidden_size": 48, "n_layer": 3, "n_head": 4},
    "falcon": {
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_kv_heads": 2,
        "new_decoder_architecture": True,
        "alibi": False,
        "max_position_embeddings": 128,
    },
    "phi": SIZES,
    "llama": WIDE,
    "mistral": {**WIDE, "sliding_window": 4},
    "mixtral": {**WIDE, "num_local_experts": 4},
    "qwen2": WIDE,
    "qwen3": WIDE,
    "qwen2_moe": {
        **SIZES,
        "num_experts": 4,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 24,
    },
    "qwen3_moe": {**WIDE, "num_experts": 4, "moe_intermediate_size": 24, "num_experts_per_tok": 2},
    "smollm3": SIZES,
    "gemma": WIDE,
    "gemma2": {**WIDE, "sliding_window": 4, "query_pre_attn_scalar": 16},
    "gemma3_text": {**WIDE, "sliding_window": 4, "query_pre_attn_scalar": 16},
    "phi3": SIZES,
    "olmo2": SIZES,
    "starcoder2": {**SIZES, "sliding_window": 4},
    "stablelm": {**SIZES, "hidden_size": 64},
    "cohere": {**SIZES, "logit_scale": 1.0},
    "gpt_oss": {**WIDE, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
}

# Families that differ in how they attend, and in where attention stands in a block: learned
# positions, rotations with parallel blocks, biases by distance, groups, windows and soft caps,
# sinks and experts, norms behind. What a family's row says is tested on every family; what is
# built on rows, on these.
APART = ("bloom", "falcon", "gemma2", "gpt2", "gpt_neox", "gpt_oss", "gptj", "llama", "olmo2")


def config(model_type: str, **changes):
    from transformers import AutoConfig

    special = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return AutoConfig.for_model(model_type, **{**special, **CONFIGS[model_type], **changes})


def build(
    model_type: str, seed: int = 0, attention: str | None = None, **changes
) -> torch.nn.Module:
    """A random model whose weights are large enough for every head to matter."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.manual_seed(seed)
    if attention is None and not FAMILIES[model_type].interface:
        attention = "eager"
    chosen = {} if attention is None else {"attn_implementation": attention}
    model = AutoModelForCausalLM.from_config(config(model_type, **changes), **chosen).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
            parameter.requires_grad_(False)
    return model


def whole_words(words, **special: str):
    """A tokenizer of these words, each whole; `special` names those that are special."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    numbers = {word: i for i, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **special)


@functools.cache
def words_tokenizer():
    """Whole words of the indirect-object task, with offsets, padding and no special treatment."""
    from tokenizers import pre_tokenizers

    from nnheads.prompts.ioi_words import NAMES, OBJECTS, PLACES, TEMPLATES
    from nnheads.prompts.world_words import CODE_WORDS

    tasks = ["input : parity : copy what is the code of ? .", *map(str, range(32)), *CODE_WORDS]
    text = " ".join([*TEMPLATES, *NAMES, *PLACES, *OBJECTS, *tasks])
    for slot in ("{first}", "{second}", "{subject}", "{place}", "{object}"):
        text = text.replace(slot, " ")
    pieces = pre_tokenizers.Whitespace().pre_tokenize_str(text)
    words = ["<pad>", "<bos>", "<eos>", "<unk>", *dict.fromkeys(piece for piece, _ in pieces)]
    assert len(words) <= VOCABULARY
    return whole_words(words, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


@functools.cache
def byte_tokenizer(
    whole: tuple[str, ...] = ("Mary", "John", "Anna", "Leo", "Max", "Rita", "and", "to"),
):
    """Bytes, and a few words that are whole after a space: a byte-level BPE that splits every other
    name.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = []
    for word in whole:  # every merge starts at a space, so none can join the middle of another word
        for end in range(1, len(word) + 1):
            pair = ("Ġ" + word[: end - 1], word[end - 1])
            if pair not in merges:
                merges.append(pair)
                tokens.append("".join(pair))
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@functools.cache
def tiny(model_type: str, attention: str | None = None):
    """(nnsight model, the same plain Hugging Face module), built once per process."""
    from nnsight import TransformersModel

    module = build(model_type, attention=attention)
    rename = FAMILIES[model_type].rename()
    return TransformersModel(module, tokenizer=words_tokenizer(), rename=rename), module


def placed(remote: bool | str, function):
    """The function as it runs somewhere: the sessions of the model among its arguments, or of the
    tiny model of a family that is named there, go there meanwhile."""

    def there(*args, **options):
        families = [tiny(one)[0] for one in args if isinstance(one, str) and one in FAMILIES]
        model, *_ = [*families, *(one for one in args if hasattr(one, "__dict__"))]
        before = vars(model).copy()
        put(model, remote)
        try:
            return function(*args, **options)
        finally:
            vars(model).pop(PLACE)
            vars(model).update({name: one for name, one in before.items() if name == PLACE})

    return there
