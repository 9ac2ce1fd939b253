"""A small copy of a configuration: blocks of the same make, few and narrow.

    config = small(model.config)         # 8 layers of 4 heads at most, whatever the model's size

What decides how a block computes (norms, multipliers, windows, soft caps, rotary positions, kinds
of layers) stays; what decides how large it is goes down. Every kind of layer that a list of the
configuration names is there at least once.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

LAYERS, MOST_LAYERS = 8, 16  # so many, and at most as many until each kind is there
HEADS, HEAD_WIDTH, WINDOW, WORDS = 4, 16, 4, 200
COUNTS = ("num_hidden_layers", "n_layer", "num_layers")
KEY_VALUE = ("num_key_value_heads", "num_kv_heads")
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
UNSAID = {"head_dim": HEAD_WIDTH, "num_key_value_heads": HEADS}  # what None means for these
# names of sizes in configurations -> what they are at most
SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), 64),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 24),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads"), HEADS),
    **dict.fromkeys(("sliding_window", "window_size", "attention_window"), WINDOW),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_shared_experts"), 1),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), WORDS),
    **dict.fromkeys(("linear_num_value_heads", "mamba_n_heads"), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "mamba_d_state"), 8),
    "head_dim": HEAD_WIDTH,
    "v_head_dim": HEAD_WIDTH,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "qk_head_dim": 16,
    "rotary_dim": 8,
    "linear_num_key_heads": 2,
    "mamba_d_head": 32,
    "mamba_dt_rank": 4,
    "mamba_n_groups": 1,
    "conv_dim": 64,
    "block_dim": 64,
    "index_head_dim": 16,
    "index_n_heads": 2,
    "index_topk": 8,
    "max_position_embeddings": 128,
    "n_positions": 128,
}


def small(config: PretrainedConfig) -> PretrainedConfig:
    """Return a copy of a configuration that builds a model of a few hundred thousand weights.

    It may not build, where its sizes depend on each other in ways of their own.
    """
    made = copy.deepcopy(config)
    text = made.get_text_config()
    for part in {id(one): one for one in (made, text, *_others(made))}.values():
        _shrink(part)
    return made


def _others(config: PretrainedConfig) -> list[PretrainedConfig]:
    """Return the configurations within one, such as that of a vision tower."""
    from transformers import PretrainedConfig

    return [one for one in vars(config).values() if isinstance(one, PretrainedConfig)]


def _shrink(config: PretrainedConfig) -> None:
    heads, shared = _number(config, "num_attention_heads"), _number(config, *KEY_VALUE)
    _fewer_layers(config)
    for name, most in SIZES.items():
        value = _number(config, name)
        if value is not None and value > most:
            setattr(config, name, most)
    if _number(config, "qk_rope_head_dim") and _number(config, "head_dim"):
        config.head_dim = config.qk_rope_head_dim  # what latent attention calls so
    if heads and shared:
        fewer = HEADS if shared == heads else min(shared, 1 if shared == 1 else 2)
        for name in KEY_VALUE:
            if _number(config, name) is not None:
                setattr(config, name, fewer)
    for name, value in UNSAID.items():
        if vars(config).get(name, value) is None:
            setattr(config, name, value)
    for name, value in TOKENS.items():
        if getattr(config, name, None) is not None:
            setattr(config, name, value)
    _fit_rotations(config)


def _number(config: PretrainedConfig, *names: str) -> int | None:
    """Return the first of some attributes that is a number."""
    for name in names:
        try:
            value = getattr(config, name, None)
        except Exception:  # a property that some layers answer otherwise than others
            continue
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _fewer_layers(config: PretrainedConfig) -> None:
    """Keep the first layers, so many that every kind of layer is among them."""
    count = _number(config, *COUNTS)
    if count is None or count <= LAYERS:
        return
    lists = {
        name: value
        for name, value in vars(config).items()
        if isinstance(value, (list, tuple)) and len(value) == count
    }
    kept = _enough(list(zip(*(map(repr, value) for value in lists.values()))))
    for name, value in lists.items():
        setattr(config, name, value[:kept])
    for name in COUNTS:
        if _number(config, name) is not None:
            setattr(config, name, kept)


def _enough(kinds: Sequence[Any]) -> int:
    """Return how many first layers hold every kind; kinds: one for each layer."""
    seen = [kinds.index(kind) for kind in set(kinds)]
    return min(max([LAYERS, *(place + 1 for place in seen)]), MOST_LAYERS)


def _fit_rotations(config: PretrainedConfig) -> None:
    """Cut lists of rotary positions, one number for each pair of features, to the narrow heads."""
    rope = getattr(config, "rope_parameters", None)
    if not isinstance(rope, dict):
        return
    width = _number(config, "head_dim") or HEAD_WIDTH
    for settings in (rope, *(one for one in rope.values() if isinstance(one, dict))):
        pairs = int(width * (settings.get("partial_rotary_factor") or 1)) // 2
        for name in ("short_factor", "long_factor"):
            if isinstance(settings.get(name), list):
                settings[name] = settings[name][:pairs]
        section = settings.get("mrope_section")
        if isinstance(section, list) and sum(section) != pairs:
            first = [one * pairs // sum(section) for one in section]
            settings["mrope_section"] = [*first[:-1], pairs - sum(first[:-1])]
