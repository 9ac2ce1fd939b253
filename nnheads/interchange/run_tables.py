"""Results folders, and lists that were kept as netCDF, as lists of heads.

One statistic of a run's heads.nc is the score; the single prompts in scores.nc beside it are the
trials, where the statistic is their mean.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float

from nnheads.errors import BadInput
from nnheads.interchange.table import KV, WHOLE, check_index, labelled, unit_of, with_trials
from nnheads.runs import store

KEPT = ("rank", "in_circuit", "trials", "trial_score")  # of a list that was kept as netCDF
ABOUT = ("long_name", "units", "source")
BOUNDS = ("_low", "_high")


def from_netcdf(path: Path, statistic: str | None) -> tuple[str, xr.Dataset]:
    """Return one statistic of a netCDF file by layer and head (default: its headline).

    Raises:
        BadInput: a file without that statistic.
    """
    table = store.load(path)
    name = statistic or str(table.attrs.get("headline", "effect"))
    unit = unit_of(table)
    _check_statistic(table, name, unit, path)
    heads = labelled(_whole_grid(table[name], unit), unit=unit)
    about = {key: table[name].attrs[key] for key in ABOUT if key in table[name].attrs}
    heads["score"].attrs.update(about)
    for other in KEPT:
        if other in table and statistic is None and table[other].dims[:2] == ("layer", unit):
            heads[other] = table[other]
    for kind in ("node", "edge"):
        if kind in table.dims and f"{kind}_score" in table:
            heads = heads.merge(table[[f"{kind}_score", f"{kind}_in_circuit"]])
    covers = table.attrs.get("covers", WHOLE)
    about_table = {"headline": "score", "statistic": name, "covers": covers}
    return "netcdf", _with_prompts(heads.assign_attrs({**table.attrs, **about_table}), path)


def _by_unit(values: xr.DataArray, unit: str) -> bool:
    return set(values.dims) == {"layer", unit}


def _check_statistic(table: xr.Dataset, name: str, unit: str, path: Path) -> None:
    if name in table and _by_unit(table[name], unit):
        return
    usable = [str(one) for one, values in table.data_vars.items() if _by_unit(values, unit)]
    shown = [one for one in usable if not one.endswith(BOUNDS)]
    known = ", ".join(shown) or "nothing by layer and head"
    raise BadInput(f"{path} has no {name!r} by layer and head; it has {known} (see --statistic)")


def _whole_grid(values: xr.DataArray, unit: str) -> Float[np.ndarray, "layer unit"]:
    """Return values from layer 0 and head 0 on, NaN where the table leaves some out."""
    indices = [np.array(values[dim]) for dim in ("layer", unit)]
    table = values.transpose("layer", unit).values
    if all(np.array_equal(index, np.arange(index.size)) for index in indices):
        return table
    whole = np.full([check_index(int(index.max())) + 1 for index in indices], np.nan)
    whole[np.ix_(*indices)] = table
    return whole


def _with_prompts(heads: xr.Dataset, path: Path) -> xr.Dataset:
    """Add a run's single prompts as trials, where its scores are means over them."""
    cases = _cases(heads, path)
    if cases is None or cases.shape[1:] != heads["score"].shape:
        return heads
    if not np.allclose(cases.mean("batch"), heads["score"], atol=1e-5):
        return heads  # a ratio or a contrast is no mean of single prompts
    trials = {}
    for head in np.ndindex(*heads["score"].shape):
        own = cases.values[:, *head]
        trials[head] = own[~np.isnan(own)]
    return with_trials(heads, trials)


def _cases(heads: xr.Dataset, path: Path) -> xr.DataArray | None:
    """Return a statistic of a run's prompts that count (batch, layer, head), if it is there."""
    beside, name = path.with_name("scores.nc"), heads.attrs["statistic"]
    if path.name != "heads.nc" or KV in heads.dims or "trials" in heads or not beside.is_file():
        return None
    scores = store.load(beside)
    if name not in scores or set(scores[name].dims) != {"batch", "layer", "head"}:
        return None
    counts = scores.attrs.get("counts")
    if counts in scores.coords:
        scores = scores.isel(batch=scores[counts].values == 1)
    return scores[name].transpose("batch", "layer", "head")
