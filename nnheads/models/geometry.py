"""The sizes of a model: layers, heads, and what each head reads and writes.

    sizes = geometry(model)
    sizes.layers, sizes.heads  # 12, 12

They are read from the config and, because configs differ in what they call the width of a head,
from the first output projection. Traces get what they need of it as plain data (`model_spec`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnheads.models.families import family
from nnheads.trace.plain import ModelSpec

if TYPE_CHECKING:
    from nnsight import TransformersModel
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Geometry:
    """Sizes of a model.

    kv_heads: fewer than `heads` means grouped-query attention: head h reads key/value head
        h * kv_heads // heads.
    head_dim: width of what a head hands to the output projection, measured there.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    d_model: int
    vocabulary: int


def geometry(model: TransformersModel) -> Geometry:
    """Return the sizes of a loaded or lazy model.

    Returns:
        Geometry: layers, heads, kv_heads, head_dim, d_model and vocabulary, all counts.

    Raises:
        ModelError: a model that was not loaded by `nnheads.load`, of a family that is not known.

    Source: the model's config; head_dim from its first output projection.

    Example:
        >>> nnheads.geometry(nnheads.load())
        Geometry(layers=4, heads=8, kv_heads=4, head_dim=32, d_model=128, vocabulary=833)
    """
    config = model.config.get_text_config()
    projection = model.layers[0].attention.projection._module
    width = getattr(projection, "in_features", None) or projection.nx  # Conv1D calls it nx
    heads = config.num_attention_heads
    return Geometry(
        layers=len(model.layers),
        heads=heads,
        kv_heads=_kv_heads(config, heads),
        head_dim=width // heads,
        d_model=config.hidden_size,
        vocabulary=config.vocab_size,
    )


def model_spec(model: TransformersModel) -> ModelSpec:
    """Return what traces have to know of a model's shape, as plain data that travels."""
    config, row, sizes = model.config.get_text_config(), family(model), geometry(model)
    kinds = getattr(config, "attention_layers", None) or [None] * sizes.layers  # GPT-Neo
    alibi = row.kernel == "falcon" and getattr(config, "alibi", False)
    return ModelSpec(
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        tuple_block=row.tuple_block,
        kernel="falcon_alibi" if alibi else row.kernel,
        attention_adds=row.attention_adds or row.attention,
        mlp_adds=row.mlp_adds or row.mlp,
        mlp_reads=row.mlp_reads or row.mlp,
        neurons=row.neurons,
        windows=[config.window_size if kind == "local" else None for kind in kinds],
    )


def _kv_heads(config: PretrainedConfig, heads: int) -> int:
    """Return how many key/value heads a layer has; families name them in three ways."""
    if getattr(config, "new_decoder_architecture", False):  # Falcon 40B and later
        return int(config.num_kv_heads)
    if getattr(config, "multi_query", False):  # Falcon 7B, StarCoder
        return 1
    return int(getattr(config, "num_key_value_heads", None) or heads)
