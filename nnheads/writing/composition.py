"""Which heads read what which heads write? Composition scores of all pairs, from the weights alone.

    scores = composition_scores(model, "q")
    strongest(scores, 5)

||W_OV W_QK'|| / (||W_OV|| ||W_QK'||) (Frobenius) is large where the directions that the first head
writes are those that the second one's queries read; for keys W_QK' is transposed, for values it is
W_OV'. Norms' gains and centring are folded in, biases are left out, and rotary embeddings are those
of distance 0. Models whose scores are no product of weights are refused.
Source: Elhage et al. 2021, "A mathematical framework for transformer circuits".
"""

from __future__ import annotations

import re

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry
from nnheads.models.labels import check_finite, label
from nnheads.stats import ranked
from nnheads.trace.composition import compose, core, overlap
from nnheads.trace.sites import UPTAKE
from nnheads.writing.logit_attribution import writing_spec

SOURCE = "Elhage et al. 2021, A mathematical framework for transformer circuits"
DIMS = ("layer", "head", "to_layer", "to_head")
# norms of values, or of what keys and values are made of together (latent attention)
OF_VALUES = re.compile(r"(^|[._])k?v_")
DRAWS = 16  # random heads on either side, each with each: enough for the 95th percentile


def composition_scores(model, kind: str = "q", *, seed: int = 0) -> xr.Dataset:
    """Return the composition score of every head with every head of every later layer.

    Args:
        kind: what of the later head reads: "q" (queries), "k" (keys) or "v" (values).
        seed: of the random heads.

    Returns:
        shares from 0 to 1 without a unit: `composition` (layer, head, to_layer, to_head), 0 unless
        layer < to_layer; `null`, the mean for random heads of these shapes, and `null_high`, their
        95th percentile.

    Raises:
        BadInput: an unknown kind; "q" or "k" for a model that norms queries and keys, where scores
            are no product of weights; a model that norms its residual stream after every block.
            RunError: scores that are not finite.

    Source: Elhage et al. 2021, "A mathematical framework for transformer circuits".

    Example:
        >>> scores = nnheads.composition_scores(nnheads.load(), "v")
        >>> dict(scores["composition"].sizes)
        {'layer': 4, 'head': 8, 'to_layer': 4, 'to_head': 8}
    """
    _check_kind(model, kind)
    sizes = geometry(model)
    scores = compose(model, 0, sizes.d_model, kind, writing_spec(model))
    check_finite(scores, "composition scores")
    null = random_composition(sizes.d_model, sizes.head_dim, seed)
    variables = _variables(scores, null, UPTAKE[kind])
    index = {name: list(range(size)) for name, size in variables["composition"].sizes.items()}
    return xr.Dataset(variables).assign_coords(index).assign_attrs(composition=kind)


def _variables(
    scores: Float[torch.Tensor, "layer head to_layer to_head"],
    null: Float[torch.Tensor, " pair"],
    read: str,
) -> dict[str, xr.DataArray]:
    """Label the scores with what random heads score; `read` is what of the later head reads."""
    rows = {
        "composition": (scores, DIMS, f"composition with {read}"),
        "null": (null.mean(), (), "mean of random heads"),
        "null_high": (null.quantile(0.95), (), "95th percentile of random heads"),
    }
    data = {
        name: label(values, dims, long_name=meaning, units="1", source=SOURCE)
        for name, (values, dims, meaning) in rows.items()
    }
    data["composition"].attrs.update(valid_min=0.0, valid_max=1.0)
    return data


def _check_kind(model, kind: str) -> None:
    """Refuse kinds that the model's weights say nothing about."""
    if kind not in UPTAKE:
        raise BadInput(f"Not a kind of composition: {kind!r}. Use one of {', '.join(UPTAKE)}.")
    modules = model.layers[0].attention._module.named_modules()
    norms = [name for name, _ in modules if "norm" in name]
    values = [name for name in norms if OF_VALUES.search(name)]
    if kind == "v" and values:
        raise BadInput(
            f"This {model.config.model_type} model norms what its values are made of ({values[0]}),"
            " so no product of weights says how heads compose through them."
        )
    if kind in "qk" and norms:
        other = "" if values else " Use kind v."
        raise BadInput(
            f"This {model.config.model_type} model norms its queries and keys ({norms[0]}), so no"
            f" product of weights says how heads compose through them.{other}"
        )


def random_composition(d_model: int, head_dim: int, seed: int) -> Float[torch.Tensor, " pair"]:
    """Return the scores of random heads with such sizes."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(DRAWS, d_model, head_dim, generator=generator) for _ in range(2))
    reads, other = (torch.randn(DRAWS, d_model, head_dim, generator=generator) for _ in range(2))
    source = core(first) @ second.transpose(1, 2)
    return overlap(source, reads @ core(other).transpose(1, 2)).flatten()


def share_above(scores: xr.Dataset) -> tuple[float, int]:
    """Return the share of all pairs that score above `null_high`, and how many pairs there are.

    Trained heads share a few directions, so that far more than 5% do; of random heads 5% would.
    """
    pairs = scores["composition"].where(scores["layer"] < scores["to_layer"]).values
    pairs = pairs[~np.isnan(pairs)]
    return float((pairs > float(scores["null_high"])).mean()), pairs.size


def strongest(scores: xr.Dataset, top: int) -> list[dict]:
    """Return the pairs with the highest scores: layer, head, to_layer, to_head, value."""
    flat = scores["composition"].stack(pair=DIMS)
    chosen = flat.isel(pair=ranked(flat.values, unknown=True)[:top])
    return [
        {**dict(zip(DIMS, map(int, pair))), "value": float(value)}
        for pair, value in zip(chosen["pair"].values, chosen.values)
    ]
