"""The contract that every head type keeps, whoever wrote it, as one public check.

    from my_heads import HEAD_TYPE
    nnheads.check_detector(HEAD_TYPE)               # on the shipped model
    nnheads.check_detector(HEAD_TYPE, model, n=5)   # on any other

It measures the type as `detect` does, in several ways that must agree. Silence means that all
promises are kept; the first that is broken is raised as BadInput, in one line that names it.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.detectors._catalog import head_type as value_of
from nnheads.detectors._compared import difference, padded, without_positions
from nnheads.detectors._contract_prompts import check_prompts, check_words
from nnheads.detectors._detect import calibrated
from nnheads.detectors._head_type import HeadType
from nnheads.detectors._stimulus import check_options
from nnheads.detectors._trial import WITHIN, Trial, rehearsed
from nnheads.errors import BadInput
from nnheads.models.geometry import geometry
from nnheads.models.load import load
from nnheads.runs import store
from nnheads.spans.nulls import NULL
from nnheads.trace.session import remote_of

DIMS = ("batch", "layer", "head")
NO_HEADLINES = ("null", "uniform")
SHARES = ("mass", "hit", "above", "uniform", "null")
DESCRIBED = ("long_name", "units", "source")


def check_detector(
    head_type: str | HeadType, model=None, *, n: int | None = None, seed: int = 1, **options
) -> None:
    """Check that a head type keeps the contract of detectors; raise at the first broken promise.

    A type says what its scores are (Returns), how a reader could be fooled (Misleads), where it is
    from (Source) and what it is compared with (Null). Its prompts are the same for the same seed,
    others for another, as many as are asked for, hold its spans and their null, and refuse a count
    of 0. Its scores are float32 (batch, layer, head[, ...]) with long_name, units and source, and
    can be calibrated; shares lie between 0 and 1; NaN stands where an example has no such span.
    One example alone equals it in a batch, slices concatenate to the whole, padding moves nothing,
    a rehearsal of the remote service gives the same, and so does a netCDF file. Of a type that
    learns from all prompts at once, examples, slices and padding are not compared: its fit may
    differ by more than rounding.

    Args:
        head_type: a `HeadType`, or the name of one that ships.
        model: from `nnheads.load`; the shipped reference model unless given.
        n: how many prompts, at least 2; 3 unless given, and 40 of a type that learns.
        seed: of the prompts.
        options: further arguments of its prompts, such as lengths=[60], for small models.

    Raises:
        BadInput: the head type, the promise that it breaks, and by how much.

    Source: the laws that the shipped head types are tested for.

    Example:
        >>> nnheads.check_detector("induction", length=6)
    """
    one = value_of(head_type)
    if n is not None and n < 2:
        raise BadInput(f"{n} prompts are too few to check; give at least 2")
    check_words(one)
    check_options([one], options)
    trial = Trial(one, load("reference") if model is None else model, n, seed, options)
    for check in CHECKS:
        check(trial)


def _check_variables(trial: Trial) -> None:
    headline, scores = trial.head_type.headline, trial.whole
    if headline not in scores:
        present = ", ".join(map(str, scores.data_vars))
        raise trial.broken(f"its headline {headline!r} is a score", f"There are {present}")
    if headline in NO_HEADLINES:
        raise trial.broken("its headline ranks heads", f"{headline!r} is what it is compared with")
    sizes = geometry(trial.model)
    expected = (trial.prompts.sizes["batch"], sizes.layers, sizes.heads)
    for name, variable in scores.data_vars.items():
        _check_variable(trial, str(name), variable, expected)


def _check_variable(
    trial: Trial, name: str, variable: xr.DataArray, expected: tuple[int, ...]
) -> None:
    if variable.dims[:3] != DIMS or variable.shape[:3] != expected:
        detail = f"{name!r} has {dict(variable.sizes)}, not {dict(zip(DIMS, expected))}"
        raise trial.broken("scores are (batch, layer, head[, ...])", detail)
    if variable.dtype != np.float32:
        raise trial.broken("scores are float32", f"{name!r} is {variable.dtype}")
    missing = [about for about in DESCRIBED if not variable.attrs.get(about)]
    if missing:
        detail = f"{name!r} lacks {', '.join(missing)}"
        raise trial.broken("scores say long_name, units and source", detail)
    if name in SHARES:
        _check_share(trial, name, variable)
    if not np.isfinite(variable.where(_measurable(trial, name), 0.0)).all():
        detail = f"{name!r} is not finite where it could be measured"
        raise trial.broken("NaN stands only where an example has no such span", detail)


def _check_share(trial: Trial, name: str, variable: xr.DataArray) -> None:
    low, high = float(variable.min()), float(variable.max())
    if low < 0 or high > 1 + WITHIN:
        detail = f"{name!r} runs from {low:.3g} to {high:.3g}"
        raise trial.broken("shares lie between 0 and 1", detail)


def _measurable(trial: Trial, name: str) -> xr.DataArray:
    """Return for which examples (batch), or steps of them, a score must be a number."""
    span, prompts = trial.head_type.span, trial.prompts
    if span is None:
        return xr.ones_like(prompts["batch"], dtype=bool)
    has = (prompts["query"] >= 0).groupby("kind").any()
    if name == "by_step":
        steps = [kind for kind in prompts["kind"].values if str(kind).startswith(f"{span}@")]
        return has.sel(kind=list(dict.fromkeys(steps))).rename(kind="step").drop_vars("step")
    kinds = {"null": f"{span}{NULL}", **{beside: beside for beside in trial.head_type.beside}}
    return has.sel(kind=kinds.get(name, span), drop=True)


def _check_examples(trial: Trial) -> None:
    if trial.head_type.learn is None:
        second = {"batch": [1]}
        alone = trial.scores(trial.prompts.isel(second))
        promise = "one example alone equals it in a batch"
        trial.equal(alone, trial.whole.isel(second), promise)


def _check_slices(trial: Trial) -> None:
    if trial.head_type.learn is None:
        slices = (slice(0, 1), slice(1, None))
        parts = [trial.scores(trial.prompts.isel(batch=one)) for one in slices]
        joined = xr.concat(parts, "batch", coords="minimal", compat="override")
        trial.equal(joined, trial.whole, "slices concatenate to the whole")


def _check_padding(trial: Trial) -> None:
    if trial.head_type.learn is None:
        moved = padded(trial.prompts, 2, trial.model.tokenizer.pad_token_id or 0)
        scores, expected = map(without_positions, (trial.scores(moved), trial.whole))
        trial.equal(scores, expected, "padding moves nothing")


def _check_rehearsal(trial: Trial) -> None:
    if not remote_of(trial.model):
        with rehearsed(trial.model):
            scores = trial.scores(trial.prompts)
        trial.equal(scores, trial.whole, "a rehearsal of the remote service gives the same")


def _check_calibration(trial: Trial) -> None:
    """Check that `detect` can reduce the scores, with the coordinates that the type names."""
    for role, coordinate in trial.head_type.roles.items():
        if coordinate not in trial.whole.coords or trial.whole[coordinate].dims != ("batch",):
            detail = f"{coordinate!r} is none"
            raise trial.broken(f"{role} is a coordinate (batch) of its scores", detail)
        if not np.isin(trial.whole[coordinate].values, (0, 1)).all():
            raise trial.broken(f"{role} is 0 or 1", f"{coordinate!r} holds other values")
    with trial.promised("its scores can be calibrated"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a few prompts there may be nothing to compare
        heads = calibrated(trial.whole)
    values = heads[heads.attrs["headline"]].values
    if trial.head_type.learn is not None and np.isfinite(values).all() and np.ptp(values) == 0:
        raise trial.broken("its headline tells heads apart", f"All have {values.ravel()[0]:.3g}")


def _check_file(trial: Trial) -> None:
    with tempfile.TemporaryDirectory() as folder:
        back = store.load(store.save(Path(folder) / "scores.nc", trial.whole))
        found = difference(back, trial.whole, 0.0)
    if found:
        raise trial.broken("a netCDF file gives the same scores", found)


CHECKS: tuple[Callable[[Trial], None], ...] = (
    check_prompts,
    _check_variables,
    _check_examples,
    _check_slices,
    _check_padding,
    _check_rehearsal,
    _check_calibration,
    _check_file,
)
