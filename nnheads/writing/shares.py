"""Shares of tokens, with intervals and a test against what other tokens get.

    summary(scores)  # (layer, head): share, _low, _high, _null, _q_value

No test is against a chance of zero: the null is at least the share of the vocabulary that a top
holds.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from nnheads.stats import adjusted, more_hits_than, wilson

DIMS = ("layer", "head")


def cases_of(values: np.ndarray, long_name: str, source: str, units: str = "1") -> tuple:
    """Return a variable (batch, layer, head) with its attributes."""
    about = {"long_name": long_name, "units": units, "source": source}
    return ("batch", "layer", "head"), values.astype(np.float32), about


def summary(cases: xr.Dataset) -> xr.Dataset:
    """Return the shares of tokens for each score that `cases.attrs["scores"]` names.

    Args:
        cases: `<score>` (1 or 0) and `<score>_null` (batch, layer, head).

    Returns:
        (layer, head): `<score>`, its Wilson interval (`_low`, `_high`), the mean of its null
        (`_null`), and the q value (Benjamini and Hochberg) of a one-sided binomial test against
        that null (`_q_value`).
    """
    data: dict[str, tuple] = {}
    for name in str(cases.attrs["scores"]).split():
        data |= _share(cases, name)
    reduced = xr.Dataset(data).assign_coords({name: cases[name] for name in DIMS})
    return reduced.assign_attrs({**cases.attrs, "tokens": cases.sizes["batch"]})


def _share(cases: xr.Dataset, name: str) -> dict[str, tuple]:
    """Reduce one score over tokens."""
    hits = cases[name].transpose("batch", *DIMS)
    count, known = hits.sum("batch").values, hits.notnull().sum("batch").values
    known = np.where(known == 0, np.nan, known)  # of heads that nobody asked for nothing is said
    null = cases[f"{name}_null"].mean("batch").transpose(*DIMS).values
    low, high = wilson(count, known)
    values = {
        name: count / known,
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_null": null,
        f"{name}_q_value": adjusted(more_hits_than(count, known, null, floor_of(cases))),
    }
    about = {key: hits.attrs[key] for key in ("units", "source")}
    texts = _meanings(cases, name)
    return {
        key: (DIMS, np.asarray(each, np.float32), {"long_name": texts[key], **about})
        for key, each in values.items()
    }


def floor_of(cases: xr.Dataset) -> float:
    """Return the share of the vocabulary that a top holds."""
    return cases.attrs.get("top", 1) / cases.attrs["vocabulary"]


def _meanings(cases: xr.Dataset, name: str) -> dict[str, str]:
    """Return what each variable of a score is."""
    return {
        name: f"share of tokens: {cases[name].attrs['long_name']}",
        f"{name}_low": f"lower end of the 95% Wilson interval of {name}",
        f"{name}_high": f"upper end of the 95% Wilson interval of {name}",
        f"{name}_null": cases[f"{name}_null"].attrs["long_name"],
        f"{name}_q_value": f"p of {name} by chance, adjusted for all heads",
    }
