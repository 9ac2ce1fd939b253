"""Where is a variable? Train an alignment at every layer and place, and test it on pairs that none
was trained on.

Beside each stand its controls: trained on shuffled answers, random directions, the whole site, and
    no intervention.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads import stats
from nnheads.errors import BadInput
from nnheads.interventions import files
from nnheads.interventions.alignment import (
    SOURCE,
    aligned,
    evaluate,
    random_directions,
    read_sources,
)
from nnheads.interventions.counterfactuals import Pairs
from nnheads.interventions.operations import At, plain
from nnheads.interventions.prepare import width_of
from nnheads.interventions.schema import BY_HEAD, BY_KV_HEAD, Edit, Interchange, Intervention
from nnheads.interventions.training import train
from nnheads.models.geometry import geometry, model_spec
from nnheads.runs import store
from nnheads.runs.batches import progress

CONDITIONS = {
    "trained": "interchange along trained directions",
    "shuffled": "the same, trained on shuffled answers",
    "random": "interchange along random directions",
    "whole": "interchange of the whole site",
    "none": "no intervention",
}


def site_features(model, site: str, layer: int) -> int:
    """Features of a site of a language model, all its heads side by side.

    Raises:
        BadInput: a site whose width only a run can tell.
    """
    sizes = geometry(model)
    width = None
    if site not in ("pattern", "input", "output"):
        width = width_of(model, Edit(site, Interchange(), layer=layer), sizes, model_spec(model))
    if width is None:
        raise BadInput(
            f"site {site!r} has no features to rotate; use resid_post, resid_pre, z, mlp_out, ..."
        )
    return width * (sizes.heads if site in BY_HEAD else sizes.kv_heads if site in BY_KV_HEAD else 1)


def localise(
    model,
    fit: Pairs,
    test: Pairs,
    places: Mapping[str, At],
    *,
    site: str = "resid_post",
    layers: Sequence[int] | None = None,
    kind: str = "das",
    directions: int | None = 1,
    parts: Path | None = None,
    seed: int = 0,
    quiet: bool = True,
    **training,
) -> tuple[xr.Dataset, Intervention]:
    """Interchange accuracy of an alignment trained at every layer and place, on pairs held apart.

    Args:
        fit: pairs to train on. test: pairs to score on. places: name -> positions.
        kind, directions: see `alignment.aligned`. training: further options of `training.train`.
        parts: folder for finished places; a run that was killed goes on where it stopped.

    Returns:
        CONDITIONS as variables (batch, layer, place), 1 where the network gives the counterfactual
        answer, and `held_out_accuracy`, `held_out_loss` (layer, place) of the pairs of `fit` that
        training left out; and the intervention with the best of these, which no test pair helped to
        choose.

    Raises:
        BadInput: no layers or places, and what the model does not have.
    """
    layers = list(plain(tuple(range(geometry(model).layers) if layers is None else layers)))
    if not layers or not places:
        raise BadInput(
            f"{len(layers)} layers and {len(places)} places leave nowhere to look; name at least"
            " one each"
        )
    settings = {
        name: plain(value)
        for name, value in {
            "kind": kind,
            "directions": directions,
            "seed": seed,
            **training,
        }.items()
    }
    none = evaluate(model, Intervention(), Pairs(test.base, (), test.answer))["score"]
    cells: list[xr.Dataset] = []
    found: list[Intervention] = []
    with progress("alignment", len(layers) * len(places), quiet) as advance:
        for layer in layers:
            for name, at in places.items():
                folder = None if parts is None else parts / f"{site}-{layer}-{len(found)}"
                one, trained = cell(model, fit, test, (site, layer, at), folder, **settings)
                cells.append(one.assign(none=none).expand_dims(layer=[layer], place=[name]))
                found.append(trained)
                advance(1)
    scores = xr.combine_by_coords(
        cells, combine_attrs="override", coords="minimal", compat="override", join="outer"
    )
    assert isinstance(scores, xr.Dataset), "cells are datasets"
    scores = scores.sel(place=list(places)).transpose("batch", "layer", "place")
    for name, text in CONDITIONS.items():
        scores[name].attrs = {
            "long_name": f"counterfactual answer: {text}",
            "units": "1",
            "source": SOURCE,
        }
    held = [(one["held_out_accuracy"].item(), -one["held_out_loss"].item()) for one in cells]
    best = held.index(max(held))
    about = {
        "site": site,
        "settings": json.dumps(settings),
        "source": SOURCE,
        "pairs_fitted": len(fit),
    }
    about |= {
        "best_layer": layers[best // len(places)],
        "best_place": list(places)[best % len(places)],
    }
    return scores.assign_attrs(about), found[best]


def cell(
    model,
    fit: Pairs,
    test: Pairs,
    where: tuple[str, int, At],
    folder: Path | None,
    *,
    kind: str,
    directions: int | None,
    seed: int,
    **training,
) -> tuple[xr.Dataset, Intervention]:
    """One layer and place: scores of every condition, and what was trained.

    A finished one is read and not computed.
    """
    done = None if folder is None else folder / "cell.nc"
    if folder is not None and done is not None and done.is_file():
        return store.load(done), files.load(folder)
    site, layer, at = where
    start = aligned(
        site,
        layer,
        at,
        features=site_features(model, site, layer),
        kind=kind,
        directions=directions,
        seed=seed,
    )
    kept = {name: None if folder is None else folder / name for name in ("trained", "shuffled")}
    trained, log = train(model, start, fit, seed=seed, checkpoint=kept["trained"], **training)
    shuffled, _ = train(
        model, start, fit.shuffled(seed), seed=seed, checkpoint=kept["shuffled"], **training
    )
    compared = {
        "trained": trained,
        "shuffled": shuffled,
        "random": random_directions(trained, seed + 1),
        "whole": Intervention(Edit(site, Interchange(), layer=layer, at=at)),
    }
    known = read_sources(model, trained, test)  # all of these take the same features
    scores = xr.Dataset(
        {name: evaluate(model, one, test, known=known)["score"] for name, one in compared.items()}
    )
    best = int(np.argmin(log["held_out_loss"].values))
    for name, units in (("held_out_accuracy", "1"), ("held_out_loss", "nat")):
        about = {
            **log[name].attrs,
            "long_name": f"{log[name].attrs['long_name']}, from training",
            "units": units,
        }
        scores[name] = ((), log[name].values[best], about)
    if folder is not None and done is not None:
        files.save(trained, folder)
        store.save(done, scores)
    return scores, trained


def reduced(scores: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """Interchange accuracy (layer, place) of every condition with its interval over pairs; and
    `<condition>_changed`, the same over the pairs whose answer changes, `pairs_changed` of them: to
    the others the network gives the counterfactual answer without any edit, so that they count as
    right whatever an edit does not break."""
    changed = scores["none"].isel(layer=0, place=0, drop=True) == 0
    means = []
    for name, text in CONDITIONS.items():
        values = scores[name].assign_attrs(long_name=f"interchange accuracy: {text}")
        means.append(stats.mean(values, seed=seed))
        if name != "none":
            own = values.where(changed).rename(f"{name}_changed")
            own.attrs["long_name"] = f"interchange accuracy over pairs whose answer changes: {text}"
            means.append(stats.mean(own, seed=seed))
    held = scores[["held_out_accuracy", "held_out_loss"]]
    found = xr.merge([*means, held], combine_attrs="drop_conflicts")
    return found.assign_attrs({**scores.attrs, "pairs_changed": int(changed.sum())})
