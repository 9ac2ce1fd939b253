"""Directions that tell two sorts of texts apart: the difference of their mean activations.

Half of the texts give the direction, the others say how far it separates texts that it has not
seen, layer by layer (and head by head), so that one can choose where to steer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float

from nnheads.errors import BadInput
from nnheads.interventions.apply import run
from nnheads.interventions.massive import without_massive
from nnheads.interventions.model_checks import units_of
from nnheads.interventions.operations import Collect
from nnheads.interventions.positions import At, index, positions_of, several
from nnheads.interventions.schema import BY_HEAD, BY_KV_HEAD, BY_PATH, SITES, Edit, Intervention
from nnheads.interventions.texts import read_texts
from nnheads.models.geometry import geometry
from nnheads.models.labels import check_finite
from nnheads.models.names import check_site
from nnheads.stats import adjusted, separation

TIE = 0.01  # areas under the curve that differ by no more count as equal
FEWEST = 4  # texts of each sort: half of them are held out
SOURCE = (
    "difference of means: Marks and Tegmark 2023, arXiv 2310.06824; Rimsky et al. 2023, arXiv"
    " 2312.06681"
)
END = index(-1)
# variable -> what it says, units
TABLE = {
    "direction": ("mean activation toward minus away", "activation"),
    "away": ("mean activation of the texts away", "activation"),
    "norm": ("norm of the direction", "activation"),
    "typical": ("mean norm of the activations", "activation"),
    "auc": ("separability of texts held out (area under the curve)", "1"),
    "p_value": ("p of no separation (Mann and Whitney)", "1"),
    "q_value": ("p adjusted for all layers and heads", "1"),
}
BY_FEATURE = ("direction", "away")
Activations = Float[np.ndarray, "_text layer unit feature"]  # sorts differ in their texts


def direction(
    model: Any,
    toward: Sequence[str],
    away: Sequence[str],
    *,
    site: str = "resid_post",
    layers: Sequence[int] | None = None,
    at: At = END,
    batch_size: int = 16,
    seed: int = 0,
) -> xr.Dataset:
    """Return the mean activation of some texts minus that of others.

    Args:
        toward, away: texts, at least four of each; a seeded half of them is held out.
        site: any site of a block but patterns.
        layers: default all of them.
        at: positions; where they are several, a text counts with their mean, and those with massive
            activations are left out (attrs `massive_left_out` counts them).

    Returns:
        (layer, feature), and by `head` (z, q) or `kv_head` (k, v): `direction`, from `away` to
        `toward`, and `away`, where it starts. Without feature: `norm` of the direction; `typical`,
        the mean norm of the activations; on the texts held out `auc`, the chance that one of
        `toward` lies further along the direction than one of `away` (0.5: no better than chance),
        its `p_value` (Mann and Whitney, two sided) and `q_value`, adjusted for all layers and heads
        (Benjamini and Hochberg).

    Raises:
        BadInput: too few texts, a site or layer that there is not.
    """
    _check_site(site)
    check_texts("toward", toward)
    check_texts("away", away)
    layers = range(geometry(model).layers) if layers is None else layers
    options: dict[str, Any] = {"site": site, "layers": layers, "at": at, "batch_size": batch_size}
    both = [
        without_massive(model, read_texts(model.tokenizer, texts), batch_size=batch_size)
        for texts in (toward, away)
    ]
    for name, texts, prompts in zip(("toward", "away"), (toward, away), both):
        _check_left(name, texts, at, prompts)
    activations = [activations_of(model, prompts, **options) for prompts in both]
    for values in activations:
        check_finite(torch.from_numpy(values), "activations")
    fitted, held = _split(activations, seed)
    about = {"source": SOURCE, "site": site, "at": " ".join(map(str, (at.kind, *at.values)))}
    counts = {"texts_fitted": list(map(len, fitted)), "texts_held_out": list(map(len, held))}
    table = _labelled(_tables(fitted, held), site, layers)
    left_out = sum(int(prompts["massive"].sum()) for prompts in both) if several(at) else 0
    return table.assign_attrs({**about, **counts, "massive_left_out": left_out})


def _split(
    activations: list[Activations], seed: int
) -> tuple[list[Activations], list[Activations]]:
    """Return the activations of each sort that give the direction, and those held out."""
    splits = [halves(len(values), seed) for values in activations]
    fitted = [values[split] for values, split in zip(activations, splits)]
    return fitted, [values[~split] for values, split in zip(activations, splits)]


def _check_site(site: str) -> None:
    known = [name for name in SITES if name not in ("pattern", *BY_PATH)]
    check_site(site, known, "has no direction")


def check_texts(name: str, texts: Sequence[str]) -> None:
    """Refuse fewer texts of a sort than a direction takes."""
    if len(texts) < FEWEST:
        raise BadInput(
            f"texts {name}: {len(texts)}, too few; give at least {FEWEST}, since half are held out"
        )


def _check_left(name: str, texts: Sequence[str], at: At, prompts: xr.Dataset) -> None:
    """Refuse a text in which nothing is left to average."""
    empty = (positions_of(at, prompts) < 0).all(1).numpy()
    if several(at) and empty.any():
        number = int(empty.argmax())
        raise BadInput(
            f"text {number + 1} {name} is nothing but a position with a massive activation:"
            f" {texts[number]!r}; put a beginning-of-sequence token or more words before it"
        )


def _tables(fitted: list[Activations], held: list[Activations]) -> dict[str, np.ndarray]:
    """Return TABLE: [layer, unit, feature], or [layer, unit].

    Args:
        fitted, held: activations of the texts toward, and of those away.
    """
    toward, away = (values.mean(0) for values in fitted)
    difference = toward - away
    along = [np.einsum("tluf,luf->tlu", values, difference) for values in held]
    auc, p_value = separation(*along)
    return {
        "direction": difference,
        "away": away,
        "norm": np.linalg.norm(difference, axis=-1),
        "typical": np.linalg.norm(np.concatenate(fitted), axis=-1).mean(0),
        "auc": auc,
        "p_value": p_value,
        "q_value": adjusted(p_value),
    }


def _labelled(tables: dict[str, np.ndarray], site: str, layers: Sequence[int]) -> xr.Dataset:
    """Return the tables with names, by head where the site has heads."""
    unit = "head" if site in BY_HEAD else "kv_head" if site in BY_KV_HEAD else None
    dims = ("layer", unit or "unit")
    data = {}
    for name, (text, units) in TABLE.items():
        own = (*dims, "feature") if name in BY_FEATURE else dims
        about = {"long_name": text, "units": units, "source": SOURCE}
        data[name] = (own, tables[name].astype("float32"), about)
    coordinates: dict[str, Any] = {"layer": list(layers)}
    if unit is None:
        return xr.Dataset(data, coordinates).isel(unit=0)
    coordinates[unit] = range(tables["norm"].shape[1])
    return xr.Dataset(data, coordinates)


def activations_of(
    model: Any,
    prompts: xr.Dataset,
    *,
    site: str,
    layers: Sequence[int],
    at: At = END,
    batch_size: int = 16,
) -> Activations:
    """Return a site's activations, one unit where it has no heads.

    They are means over the positions, NaN where a text has none.

    Args:
        prompts: token and mask (batch, position).
    """
    reads = Intervention(
        *[Edit(site, Collect(str(layer), mean=True), layer=layer, at=at) for layer in layers]
    )
    count = units_of(site, geometry(model))
    parts = []
    for first in range(0, prompts.sizes["batch"], batch_size):
        part = prompts.isel(batch=slice(first, first + batch_size))
        means = _collected(model, reads, part, layers)
        parts.append(means.unflatten(2, (count, -1)))
    return torch.cat(parts).numpy()


def _collected(
    model: Any, reads: Intervention, prompts: xr.Dataset, layers: Sequence[int]
) -> Float[torch.Tensor, "text layer feature"]:
    with torch.no_grad():
        result = run(model, reads, prompts, original=False, logits=False, keep=1)
    return torch.stack([result.collected[str(layer)].cpu()[:, 0] for layer in layers], 1)


def halves(count: int, seed: int) -> Bool[np.ndarray, " text"]:
    """Return which of so many texts give the direction; the others are held out."""
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng(seed).permutation(count)[: (count + 1) // 2]] = True
    return chosen


def projections(
    directions: xr.Dataset, layer: int, activations: Float[np.ndarray, "text unit feature"]
) -> Float[np.ndarray, " text"]:
    """Return how far activations lie along a layer's direction.

    It is 0 at the mean of `away`, 1 at that of `toward`.
    """
    chosen = directions.sel(layer=layer)
    vector, start = chosen["direction"].values.ravel(), chosen["away"].values.ravel()
    return (activations.reshape(len(activations), -1) - start) @ vector / (vector @ vector)


def best_layer(directions: xr.Dataset) -> int:
    """Return the layer where the texts held out are told apart best.

    Of layers that do so equally well, it is the one nearest the middle.
    """
    layers = directions["layer"].values
    middle = (layers[0] + layers[-1]) / 2
    return min(reversed(equally_good(directions)), key=lambda layer: abs(layer - middle))


def equally_good(directions: xr.Dataset) -> list[int]:
    """Return the layers where the texts held out are told apart best."""
    auc = directions["auc"].max([name for name in directions["auc"].dims if name != "layer"])
    best = auc.values >= float(auc.max()) - TIE
    return [int(layer) for layer in directions["layer"].values[best]]
