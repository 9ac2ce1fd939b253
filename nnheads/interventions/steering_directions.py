"""Directions that tell two sorts of texts apart: the difference of their mean activations, and how
well it does so.

Half of the texts give the direction, the others say how far it separates texts that it has not
seen, layer by layer (and head by head), so that one can choose where to steer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from scipy import stats as scipy_stats

from nnheads.errors import BadInput
from nnheads.interventions.apply import run
from nnheads.interventions.generate import read_texts
from nnheads.interventions.schema import (
    ALL,
    BY_HEAD,
    BY_KV_HEAD,
    SITES,
    Add,
    At,
    Collect,
    Edit,
    Intervention,
    Subtract,
    index,
)
from nnheads.models.geometry import geometry
from nnheads.models.labels import check_finite
from nnheads.stats import adjusted

TIE = 0.01  # areas under the curve that differ by no more count as equal
FEWEST = 4  # texts of each sort: half of them are held out
SOURCE = (
    "difference of means: Marks and Tegmark 2023, arXiv 2310.06824; Rimsky et al. 2023, arXiv"
    " 2312.06681"
)
END = index(-1)


def direction(
    model,
    toward: Sequence[str],
    away: Sequence[str],
    *,
    site: str = "resid_post",
    layers: Sequence[int] | None = None,
    at: At = END,
    batch_size: int = 16,
    seed: int = 0,
) -> xr.Dataset:
    """The mean activation of some texts minus that of others.

    Args:
        toward, away: texts, at least four of each; a seeded half of them is held out.
        site: any site of a block but patterns. layers: default all of them.
        at: positions; where they are several, a text counts with their mean.

    Returns:
        (layer, feature), and by `head` (z, q) or `kv_head` (k, v): `direction`, from `away` to
        `toward`, and `away`,
        where it starts. Without feature: `norm` of the direction; `typical`, the mean norm of the
            activations; on the
        texts held out `auc`, the chance that one of `toward` lies further along the direction than
        one of `away` (0.5: no better than chance), its `p_value` (Mann and Whitney, two sided) and
            `q_value`, adjusted for all layers and
        heads (Benjamini and Hochberg).

    Raises:
        BadInput: too few texts, a site or layer that there is not.
    """
    if site == "pattern" or site not in SITES or site in ("input", "output"):
        known = ", ".join(name for name in SITES if name not in ("pattern", "input", "output"))
        raise BadInput(f"site {site!r} has no direction; use one of {known}")
    for name, texts in (("toward", toward), ("away", away)):
        if len(texts) < FEWEST:
            raise BadInput(
                f"{len(texts)} texts {name} are too few; give at least {FEWEST}, since half are"
                " held out"
            )
    layers = range(geometry(model).layers) if layers is None else layers
    activations = [
        activations_of(
            model,
            read_texts(model.tokenizer, texts),
            site=site,
            layers=layers,
            at=at,
            batch_size=batch_size,
        )
        for texts in (toward, away)
    ]
    for values in activations:
        check_finite(torch.from_numpy(values), "activations")
    fitted, held = zip(
        *[(one[split], one[~split]) for one in activations for split in [halves(len(one), seed)]]
    )
    found = fitted[0].mean(0) - fitted[1].mean(0)
    auc, p_value = separability(*[np.einsum("tluf,luf->tlu", one, found) for one in held])
    unit = "head" if site in BY_HEAD else "kv_head" if site in BY_KV_HEAD else None
    dims = ("layer", unit or "unit")
    tables = {
        "direction": ((*dims, "feature"), found, "mean activation toward minus away", "activation"),
        "away": (
            (*dims, "feature"),
            fitted[1].mean(0),
            "mean activation of the texts away",
            "activation",
        ),
        "norm": (dims, np.linalg.norm(found, axis=-1), "norm of the direction", "activation"),
        "typical": (
            dims,
            np.linalg.norm(np.concatenate(fitted), axis=-1).mean(0),
            "mean norm of the activations",
            "activation",
        ),
        "auc": (dims, auc, "separability of texts held out (area under the curve)", "1"),
        "p_value": (dims, p_value, "p of no separation (Mann and Whitney)", "1"),
        "q_value": (dims, adjusted(p_value), "p adjusted for all layers and heads", "1"),
    }
    data = {
        name: (own, values.astype("float32"), {"long_name": text, "units": units, "source": SOURCE})
        for name, (own, values, text, units) in tables.items()
    }
    coordinates = {"layer": list(layers), **({unit: range(found.shape[1])} if unit else {})}
    about = {
        "source": SOURCE,
        "site": site,
        "at": " ".join(map(str, (at.kind, *at.values))),
        "texts_fitted": [len(one) for one in fitted],
        "texts_held_out": [len(one) for one in held],
    }
    dataset = xr.Dataset(data, coordinates, about)
    return dataset if unit else dataset.isel(unit=0)


def activations_of(
    model,
    prompts: xr.Dataset,
    *,
    site: str,
    layers: Sequence[int],
    at: At = END,
    batch_size: int = 16,
) -> np.ndarray:
    """A site's activations [text, layer, unit, feature], one unit where it has no heads; means over
    the positions, NaN where a text has none."""
    units = {**dict.fromkeys(BY_HEAD, "heads"), **dict.fromkeys(BY_KV_HEAD, "kv_heads")}.get(site)
    count = getattr(geometry(model), units) if units else 1
    reads = Intervention(
        *[Edit(site, Collect(str(layer), mean=True), layer=layer, at=at) for layer in layers]
    )
    parts = []
    for first in range(0, prompts.sizes["batch"], batch_size):
        part = prompts.isel(batch=slice(first, first + batch_size))
        with torch.no_grad():
            found = run(model, reads, part, original=False, logits=False, keep=1).collected
        means = [found[str(layer)].cpu()[:, 0] for layer in layers]
        parts.append(torch.stack(means, 1).unflatten(2, (count, -1)))
    return torch.cat(parts).numpy()


def halves(count: int, seed: int) -> np.ndarray:
    """Which of so many texts give the direction; the others are held out."""
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng(seed).permutation(count)[: (count + 1) // 2]] = True
    return chosen


def separability(toward: np.ndarray, away: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area under the curve and two-sided p of projections [text, layer, unit]."""
    found = scipy_stats.mannwhitneyu(toward, away, axis=0)
    return found.statistic / (len(toward) * len(away)), np.asarray(found.pvalue, float)


def steering(
    found: xr.Dataset,
    layer: int,
    strength: float = 1.0,
    *,
    at: At = ALL,
    head: int | None = None,
    unit: bool = False,
) -> Intervention:
    """The intervention that adds a direction which `direction` found.

    Args:
        strength: in lengths of the direction itself, so that 1 carries the mean of `away` to that
            of `toward`; with `unit`, in units of activation.
        head: of z, q, k or v: steer this head alone.
    """
    by = next((name for name in ("head", "kv_head") if name in found.dims), None)
    for name, value in (("layer", layer), (by or "head", head)):
        if value is not None and (name not in found.dims or value not in found[name]):
            raise BadInput(
                f"there is no direction of {name} {value} for site {found.attrs['site']}"
            )
    vector = found["direction"].sel(layer=layer)
    vector = vector if head is None else vector.sel({by: head})
    values = torch.from_numpy(np.ascontiguousarray(vector.values)).flatten()
    values = values / values.norm() if unit else values
    units = None if head is None else (head,)
    return Intervention(
        Edit(
            found.attrs["site"],
            Add("direction", scale=float(strength)),
            layer=layer,
            units=units,
            at=at,
        ),
        tensors={"direction": values},
    )


def projections(found: xr.Dataset, layer: int, activations: np.ndarray) -> np.ndarray:
    """How far activations [text, unit, feature] lie along a layer's direction: 0 at the mean of
    `away`, 1 at that of `toward`."""
    chosen = found.sel(layer=layer)
    vector, start = chosen["direction"].values.ravel(), chosen["away"].values.ravel()
    return (activations.reshape(len(activations), -1) - start) @ vector / (vector @ vector)


def best_layer(found: xr.Dataset) -> int:
    """Where the texts held out are told apart best; of layers that do so equally well, the one
    nearest the middle.
    """
    auc = found["auc"].max([name for name in found["auc"].dims if name != "layer"])
    equal = found["layer"].values[auc.values >= float(auc.max()) - TIE]
    middle = (found["layer"].values[0] + found["layer"].values[-1]) / 2
    return int(min(reversed(equal), key=lambda layer: abs(layer - middle)))


def randomised(intervention: Intervention, seed: int = 0) -> Intervention:
    """The same intervention with random tensors of the same length in place of those that it adds
    or subtracts: what any push as strong as this one would do."""
    added = [edit.do.tensors for edit in intervention.edits if isinstance(edit.do, (Add, Subtract))]
    tensors = dict(intervention.tensors)
    generator = torch.Generator().manual_seed(seed)
    for name in sorted({name for names in added for name in names}):
        drawn = torch.randn(tensors[name].shape, generator=generator)
        tensors[name] = drawn * (tensors[name].float().norm() / drawn.norm())
    return Intervention(*intervention.edits, tensors=tensors, mode=intervention.mode)


def scaled(intervention: Intervention, strength: float) -> Intervention:
    """The same intervention with all that it adds or subtracts `strength` times as strong."""
    edits = [
        (
            dataclasses.replace(
                edit, do=dataclasses.replace(edit.do, scale=edit.do.scale * strength)
            )
            if isinstance(edit.do, (Add, Subtract))
            else edit
        )
        for edit in intervention.edits
    ]
    return Intervention(*edits, tensors=intervention.tensors, mode=intervention.mode)
