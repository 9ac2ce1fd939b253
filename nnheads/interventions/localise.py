"""Where is a variable? Train an alignment at every layer and position, and test it elsewhere.

It is tested on pairs that none was trained on. Beside each stand its controls: trained on shuffled
answers, random directions, the whole site, and no intervention.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nnheads import stats
from nnheads.errors import BadInput
from nnheads.interventions import files
from nnheads.interventions.alignment import SOURCE, aligned, evaluate, random_directions
from nnheads.interventions.counterfactuals import Pairs
from nnheads.interventions.model_checks import units_of, width_of
from nnheads.interventions.operations import Interchange
from nnheads.interventions.plain_values import plain_value
from nnheads.interventions.positions import At
from nnheads.interventions.predictions import read_sources
from nnheads.interventions.schema import Edit, Intervention
from nnheads.interventions.training import train
from nnheads.models.geometry import geometry, model_spec
from nnheads.runs import store
from nnheads.runs.progress import progress

Cells = dict[tuple[int, str], tuple[xr.Dataset, Intervention]]  # by layer and name of positions
CONDITIONS = {
    "trained": "interchange along trained directions",
    "shuffled": "the same, trained on shuffled answers",
    "random": "interchange along random directions",
    "whole": "interchange of the whole site",
    "none": "no intervention",
}


def site_features(model: Any, site: str, layer: int) -> int:
    """Return the features of a site of a language model, all its heads side by side.

    Raises:
        BadInput: a site whose width only a run can tell.
    """
    width = width_of(model, site, layer, model_spec(model))
    if width is None:
        raise BadInput(
            f"site {site!r} has no features to rotate; use resid_post, resid_pre, z, mlp_out, ..."
        )
    return width * units_of(site, geometry(model))


def localise(
    model: Any,
    fit: Pairs,
    test: Pairs,
    positions: Mapping[str, At],
    *,
    site: str = "resid_post",
    layers: Sequence[int] | None = None,
    kind: str = "das",
    directions: int | None = 1,
    parts: Path | None = None,
    seed: int = 0,
    quiet: bool = True,
    **training: Any,
) -> tuple[xr.Dataset, Intervention]:
    """Measure the interchange accuracy of an alignment trained at every layer and position.

    Args:
        fit: pairs to train on.
        test: pairs to score on.
        positions: name -> positions.
        kind, directions: see `alignment.aligned`. training: further options of `training.train`.
        parts: folder for finished cells; a run that was killed goes on where it stopped.

    Returns:
        CONDITIONS as variables (batch, layer, place), 1 where the network gives the counterfactual
        answer, and `held_out_accuracy`, `held_out_loss` (layer, place) of the pairs of `fit` that
        training left out; `place` are the names of the positions. And the intervention with the
        best of these, which no test pair helped to choose.

    Raises:
        BadInput: no layers or positions, and what the model does not have.
    """
    layers = _layers(model, layers)
    _check_somewhere(len(layers), len(positions))
    options = {"kind": kind, "directions": directions, "seed": seed, **training}
    options = {name: plain_value(value) for name, value in options.items()}
    search = _Search(model, fit, test, site, options)
    cells: Cells = {}
    none = evaluate(model, Intervention(), Pairs(test.base, (), test.answer))["score"]
    with progress("alignment", len(layers) * len(positions), quiet) as advance:
        for layer in layers:
            for name, at in positions.items():
                folder = None if parts is None else parts / f"{site}-{layer}-{len(cells)}"
                cells[layer, name] = search.cell(layer, at, folder)
                advance(1)
    (layer, name), trained = _best(cells)
    about: dict[str, Any] = {"site": site, "settings": json.dumps(options), "source": SOURCE}
    about |= {"pairs_fitted": len(fit), "best_layer": layer, "best_place": name}
    return _combined(cells, none, list(positions)).assign_attrs(about), trained


def _layers(model: Any, layers: Sequence[int] | None) -> list[int]:
    chosen = range(geometry(model).layers) if layers is None else layers
    return list(plain_value(tuple(chosen)))


def _check_somewhere(layers: int, positions: int) -> None:
    if not layers or not positions:
        raise BadInput(
            f"{layers} layers and {positions} positions leave nowhere to look; name at least one"
            " each"
        )


def _best(cells: Cells) -> tuple[tuple[int, str], Intervention]:
    """Return where training was best on the pairs that it left out, and what was trained there."""
    held = {
        key: (scores["held_out_accuracy"].item(), -scores["held_out_loss"].item())
        for key, (scores, _) in cells.items()
    }
    best = max(held, key=held.__getitem__)
    return best, cells[best][1]


def _combined(cells: Cells, none: xr.DataArray, names: list[str]) -> xr.Dataset:
    """Return all cells as one dataset (batch, layer, place)."""
    parts = [
        scores.assign(none=none).expand_dims(layer=[layer], place=[name])
        for (layer, name), (scores, _) in cells.items()
    ]
    scores = xr.combine_by_coords(
        parts, combine_attrs="override", coords="minimal", compat="override", join="outer"
    )
    assert isinstance(scores, xr.Dataset), "cells are datasets"
    scores = scores.sel(place=names).transpose("batch", "layer", "place")
    for name, text in CONDITIONS.items():
        about = {"long_name": f"counterfactual answer: {text}", "units": "1", "source": SOURCE}
        scores[name].attrs = about
    return scores


@dataclass(frozen=True)
class _Search:
    """What is looked for at every layer and position."""

    model: Any
    fit: Pairs
    test: Pairs
    site: str
    options: dict[str, Any]  # kind, directions, seed, and those of training

    def cell(self, layer: int, at: At, folder: Path | None) -> tuple[xr.Dataset, Intervention]:
        """Return the scores of every condition, and what was trained.

        What is finished in the folder is read and not computed.
        """
        known = None if folder is None else store.kept(folder / "cell.nc", folder.name)
        if folder is not None and known is not None:
            return known, files.load(folder)
        trained, shuffled, log = self._train(layer, at, folder)
        seed = self.options["seed"]
        conditions = {
            "trained": trained,
            "shuffled": shuffled,
            "random": random_directions(trained, seed + 1),
            "whole": Intervention(Edit(self.site, Interchange(), layer=layer, at=at)),
        }
        scores = self._scores(conditions).assign(_held_out(log))
        if folder is not None:
            files.save(trained, folder)
            store.keep(folder / "cell.nc", scores, folder.name)
        return scores, trained

    def _train(
        self, layer: int, at: At, folder: Path | None
    ) -> tuple[Intervention, Intervention, xr.Dataset]:
        """Return what was trained, the same on shuffled answers, and the log of the first."""
        options = dict(self.options)
        kind, directions = options.pop("kind"), options.pop("directions")
        start = aligned(
            self.site,
            layer,
            at,
            features=site_features(self.model, self.site, layer),
            kind=kind,
            directions=directions,
            seed=options["seed"],
        )
        kept = {name: None if folder is None else folder / name for name in ("trained", "shuffled")}
        trained, log = train(self.model, start, self.fit, checkpoint=kept["trained"], **options)
        other = self.fit.shuffled(options["seed"])
        shuffled, _ = train(self.model, start, other, checkpoint=kept["shuffled"], **options)
        return trained, shuffled, log

    def _scores(self, conditions: dict[str, Intervention]) -> xr.Dataset:
        # all of these take the same features from the sources
        known = read_sources(self.model, conditions["trained"], self.test)
        scores = {
            name: evaluate(self.model, one, self.test, known=known)["score"]
            for name, one in conditions.items()
        }
        return xr.Dataset(scores)


def _held_out(log: xr.Dataset) -> dict[str, tuple]:
    """Return accuracy and loss on the pairs that training left out, where the loss was least."""
    best = int(np.argmin(log["held_out_loss"].values))
    values = {}
    for name, units in (("held_out_accuracy", "1"), ("held_out_loss", "nat")):
        long_name = f"{log[name].attrs['long_name']}, from training"
        about = {**log[name].attrs, "long_name": long_name, "units": units}
        values[name] = ((), log[name].values[best], about)
    return values


def reduced(scores: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """Return the interchange accuracy (layer, place) of every condition, with its interval.

    `<condition>_changed` is the same over the pairs whose answer changes, `pairs_changed` of them:
    to the others the network gives the counterfactual answer without any edit, so that they count
    as right whatever an edit does not break.

    Args:
        scores: of `localise` (batch, layer, place).
        seed: of the intervals.
    """
    changed = scores["none"].isel(layer=0, place=0, drop=True) == 0
    means = []
    for name, text in CONDITIONS.items():
        values = scores[name].assign_attrs(long_name=f"interchange accuracy: {text}")
        means.append(stats.mean(values, seed=seed))
        if name != "none":
            about = f"interchange accuracy over pairs whose answer changes: {text}"
            some = values.where(changed).rename(f"{name}_changed").assign_attrs(long_name=about)
            means.append(stats.mean(some, seed=seed))
    held = scores[["held_out_accuracy", "held_out_loss"]]
    table = xr.merge([*means, held], combine_attrs="drop_conflicts")
    return table.assign_attrs({**scores.attrs, "pairs_changed": int(changed.sum())})
