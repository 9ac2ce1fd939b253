"""Two datasets that should hold the same, and prompts that were moved by padding."""

from __future__ import annotations

import numpy as np
import xarray as xr

KEYS = ("key_start", "key_stop")


def difference(one: xr.Dataset, expected: xr.Dataset, within: float) -> str:
    """Return how two datasets differ, in words; empty where they do not, to `within`."""
    names = {str(name) for name in one.data_vars}, {str(name) for name in expected.data_vars}
    if names[0] != names[1]:
        return f"Only one side has {', '.join(sorted(names[0] ^ names[1]))}"
    for name in (*expected.data_vars, *expected.coords):
        found = _differs(one[name], expected[name], within) if name in one.variables else "is gone"
        if found:
            return f"{str(name)!r} {found}"
    return ""


def _differs(one: xr.DataArray, expected: xr.DataArray, within: float) -> str:
    if one.dims != expected.dims or one.shape != expected.shape:
        return f"has {dict(one.sizes)}, not {dict(expected.sizes)}"
    if expected.dtype.kind not in "fiu":
        return "" if np.array_equal(one.values, expected.values) else "holds other values"
    if np.allclose(one, expected, rtol=within, atol=within, equal_nan=True):
        return ""
    apart = float(np.nanmax(np.abs(one.values - expected.values)))
    return f"differs by {apart:.3g}, at most {within:.3g} is expected"


def padded(prompts: xr.Dataset, count: int, fill: int) -> xr.Dataset:
    """Return the same prompts with `count` more positions of padding on the left.

    Everything that counts positions moves with the tokens; -1 stays -1.
    """
    wider = prompts.pad(position=(count, 0), constant_values={"token": fill, "mask": 0})
    kept = {name: prompts[name].dtype for name in ("token", "mask")}
    wider = wider.assign({name: wider[name].astype(dtype) for name, dtype in kept.items()})
    for name in _positions(prompts):
        wider[name] = prompts[name].where(prompts[name] < 0, prompts[name] + count)
    for name in KEYS:
        if name in prompts:  # a span that is not there keeps its keys
            wider[name] = prompts[name].where(prompts["query"] < 0, prompts[name] + count)
    return wider


def without_positions(scores: xr.Dataset) -> xr.Dataset:
    """Return scores without the coordinates that count positions."""
    return scores.drop_vars(_positions(scores))


def _positions(dataset: xr.Dataset) -> list[str]:
    names = map(str, dataset.variables)
    return [name for name in names if name in ("query", "ask") or name.startswith("role_")]
