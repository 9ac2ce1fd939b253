"""Which heads read what which heads write? Composition scores of all pairs of heads, from the
weights alone.

||W_OV W_QK'|| / (||W_OV|| ||W_QK'||) (Frobenius) is large where the directions that the first head
writes are those that the second one's queries read; for keys W_QK' is transposed, for values it is
W_OV'. Norms' gains and centring are folded in, biases are left out, and rotary embeddings are those
of distance 0.
Source: Elhage et al. 2021, "A mathematical framework for transformer circuits".
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry
from nnheads.models.labels import check_finite, label
from nnheads.stats import ranked
from nnheads.trace.composition import compose, core, overlap
from nnheads.writing.logit_attribution import writing_form

SOURCE = "Elhage et al. 2021, A mathematical framework for transformer circuits"
KINDS = {"q": "queries", "k": "keys", "v": "values"}
DRAWS = 16  # random heads on either side, each with each: enough for the 95th percentile


def composition_scores(model, kind: str = "q", *, seed: int = 0) -> xr.Dataset:
    """Composition of every head with every head of every later layer.

    Args:
        kind: what of the later head reads: "q" (queries), "k" (keys) or "v" (values).

    Returns:
        `composition` (layer, head, to_layer, to_head), 0 unless layer < to_layer; `null`, the mean
        for random heads of these shapes, and `null_high`, their 95th percentile.

    Raises:
        BadInput: an unknown kind; "q" or "k" for a model that norms queries and keys, where scores
            are no product of weights; a model that norms its residual stream after every block.
    """
    if kind not in KINDS:
        raise BadInput(f"composition {kind!r} is not known; use one of {', '.join(KINDS)}")
    shape, sizes = writing_form(model), geometry(model)
    inside = [
        name for name, _ in model.layers[0].attention._module.named_modules() if "norm" in name
    ]
    if kind in "qk" and inside:
        raise BadInput(
            f"this {model.config.model_type} model norms its queries and keys ({inside[0]}), so no"
            " product of weights says how heads compose through them; use kind v"
        )
    found = compose(model, 0, sizes.d_model, kind, shape)
    check_finite(found, "composition scores")
    null = random_composition(sizes.d_model, sizes.head_dim, seed)
    dims = ("layer", "head", "to_layer", "to_head")
    about = {"units": "1", "source": SOURCE}
    data = {
        "composition": label(
            found,
            dims,
            long_name=f"composition with {KINDS[kind]}",
            valid_min=0.0,
            valid_max=1.0,
            **about,
        ),
        "null": label(null.mean(), (), long_name="mean of random heads", **about),
        "null_high": label(
            null.quantile(0.95), (), long_name="95th percentile of random heads", **about
        ),
    }
    index = {
        "layer": sizes.layers,
        "head": sizes.heads,
        "to_layer": sizes.layers,
        "to_head": sizes.heads,
    }
    coordinates = {name: list(range(count)) for name, count in index.items()}
    return xr.Dataset(data).assign_coords(coordinates).assign_attrs(composition=kind)


def random_composition(d_model: int, head_dim: int, seed: int) -> torch.Tensor:
    """Scores [pair] of random heads with such sizes."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(DRAWS, d_model, head_dim, generator=generator) for _ in range(2))
    reads, other = (torch.randn(DRAWS, d_model, head_dim, generator=generator) for _ in range(2))
    source = core(first) @ second.transpose(1, 2)
    return overlap(source, reads @ core(other).transpose(1, 2)).flatten()


def share_above(scores: xr.Dataset) -> tuple[float, int]:
    """The share of all pairs that score above `null_high`, and how many pairs there are. Trained
    heads share a few directions, so that far more than 5% do; of random heads 5% would."""
    pairs = scores["composition"].where(scores["layer"] < scores["to_layer"]).values
    pairs = pairs[~np.isnan(pairs)]
    return float((pairs > float(scores["null_high"])).mean()), pairs.size


def strongest(scores: xr.Dataset, top: int) -> list[dict]:
    """The pairs with the highest scores: layer, head, to_layer, to_head, value."""
    flat = scores["composition"].stack(pair=("layer", "head", "to_layer", "to_head"))
    chosen = flat.isel(pair=ranked(flat.values, unknown=True)[:top])
    names = ("layer", "head", "to_layer", "to_head")
    return [
        {**dict(zip(names, map(int, pair))), "value": float(value)}
        for pair, value in zip(chosen["pair"].values, chosen.values)
    ]
