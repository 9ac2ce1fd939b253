"""Datasets in, datasets out: means over the batch with intervals, normalised effects, top heads."""

from __future__ import annotations

import re
import warnings

import numpy as np
import xarray as xr
from scipy import stats as scipy_stats

from nnheads.errors import BadInput

CONFIDENCE = 0.95
RESAMPLES = 1000
BLOCK = 20_000_000  # numbers in a block of resamples, so that memory does not grow with layers x heads x cases
MARGIN = 0.05  # of attention mass: less is no head type, however significant


def mean(scores: xr.DataArray, dim: str = "batch", *, seed: int = 0) -> xr.Dataset:
    """Mean over `dim` with a percentile bootstrap interval; NaN cases are left out.

    Returns:
        a dataset of the array's name and `<name>_low`, `<name>_high` without `dim`.
    """
    low, high = _interval(lambda a, axis: _nanmean(a, axis), [scores], dim, seed)
    value = scores.mean(dim, skipna=True)
    return _with_interval(scores, value, low, high, f"{dim}: mean")


def ratio_of_means(
    numerator: xr.DataArray, denominator: xr.DataArray, dim: str = "batch", *, seed: int = 0
) -> xr.Dataset:
    """sum(numerator) / sum(denominator) over `dim`: far less noisy than the mean of ratios when some gaps
    are small. The interval resamples cases, numerator and denominator together. Both have the same unit."""
    denominator = denominator.broadcast_like(numerator).transpose(*numerator.dims)
    known = numerator.notnull() & denominator.notnull()  # a case counts in both sums or in neither
    numerator, denominator = (array.where(known) for array in (numerator, denominator))

    def statistic(a, b, axis):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nansum(a, axis) / np.nansum(b, axis)

    low, high = _interval(statistic, [numerator, denominator], dim, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = numerator.sum(dim) / denominator.sum(dim)
    numerator = numerator.assign_attrs(units="1")
    return _with_interval(numerator, value, low, high, f"{dim}: sum of numerators over sum of denominators")


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)  # all cases masked: NaN says it
        return np.nanmean(values, axis)


def _interval(statistic, arrays: list[xr.DataArray], dim: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap over `dim`, paired between arrays. One case has no interval: NaN."""
    rest = [name for name in arrays[0].dims if name != dim]
    data = [array.transpose(*rest, dim).values.astype(float) for array in arrays]
    shape, known = data[0].shape[:-1], ~np.isnan(data[0])
    used = known.any(tuple(range(len(rest))))
    if used.sum() < 2:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    data = [values[..., used] for values in data]
    block = max(1, BLOCK // max(1, data[0].size))
    with warnings.catch_warnings():
        # a cell without any case, or resamples without one: NaN says it
        warnings.filterwarnings("ignore", category=scipy_stats.DegenerateDataWarning)
        warnings.filterwarnings("ignore", "All-NaN slice encountered", RuntimeWarning)
        drawn = scipy_stats.bootstrap(
            data, statistic, n_resamples=RESAMPLES, batch=block, vectorized=True, axis=-1, paired=len(data) > 1,
            method="percentile", rng=np.random.default_rng(seed),
        ).bootstrap_distribution  # fmt: skip
        quantile = np.nanquantile if np.isnan(drawn).any() else np.quantile
        ends = quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=-1)
    low, high = np.where(known.sum(-1) >= 2, ends, np.nan)
    return low, high


def _with_interval(array: xr.DataArray, value: xr.DataArray, low, high, cell_methods: str) -> xr.Dataset:
    """The reduced variable and its bounds, with the attributes that the reduction makes false rewritten."""
    name = str(array.name)
    attributes = {**array.attrs, "cell_methods": cell_methods, "ancillary_variables": f"{name}_low {name}_high"}
    long_name = array.attrs.get("long_name", name)
    value = value.astype("float32").assign_attrs(attributes)
    bound = {key: attributes[key] for key in ("units", "source") if key in attributes}
    percent = f"{CONFIDENCE:.0%} bootstrap interval of {long_name}"
    return xr.Dataset(
        {
            name: value,
            f"{name}_low": value.copy(data=np.float32(low)).assign_attrs(
                {"long_name": f"lower end of the {percent}", **bound}
            ),
            f"{name}_high": value.copy(data=np.float32(high)).assign_attrs(
                {"long_name": f"upper end of the {percent}", **bound}
            ),
        }
    ).pipe(_only_bounds_plain)


def _only_bounds_plain(dataset: xr.Dataset) -> xr.Dataset:
    for name in dataset.data_vars:
        if str(name).endswith(("_low", "_high")):
            dataset[name].attrs.pop("cell_methods", None)
            dataset[name].attrs.pop("ancillary_variables", None)
    return dataset


def calibrate(scores: xr.Dataset, *, margin: float = MARGIN, rate: float = 0.05, seed: int = 0) -> xr.Dataset:
    """Is a head's score more than chance? Scores (batch, layer, head) with `mass` and `null` in, heads out.

    A head is flagged when its mass exceeds that on random targets of the same queries by more than `margin`,
    at a false discovery rate of `rate` over all heads: a one-sided t test over the batch, corrected by
    Benjamini and Hochberg. Without the margin, any preference, however small, would be significant with
    enough prompts, in a random model too. Scores with `by_step` (batch, layer, head, step; NaN where a case has no such
    step) must also pass a t test over the steps: these stand at the same places in all prompts, so that a head which
    looks at the target of one step by accident does so in every prompt. Where cases have different numbers of steps,
    they must pass one over these numbers too: a head that looks a fixed distance back is right with one of them alone.

    Returns:
        (layer, head): every statistic's mean with its interval; `excess` (mass minus null) with its interval,
        `p_value`, `q_value` and `flag` (1 or 0).
    """
    steps = scores.get("by_step")
    scores = scores.drop_vars("by_step", errors="ignore")
    excess = (scores["mass"] - scores["null"]).rename("excess")
    excess.attrs = {**scores["mass"].attrs, "long_name": "mass beyond random targets", "valid_min": -1.0}
    heads = xr.merge([mean(scores[name], seed=seed) for name in scores.data_vars], combine_attrs="drop_conflicts")
    heads = heads.merge(mean(excess, seed=seed), combine_attrs="drop_conflicts")
    dims = ("layer", "head")
    p_value = _greater_than(excess.transpose("batch", *dims).values, margin)
    if steps is not None:
        each = (steps - scores["null"]).mean("batch").transpose("step", *dims)
        p_value = np.maximum(p_value, _greater_than(each.values, margin))
        numbers = steps.notnull().any(dims).sum("step").values
        alike = [excess.isel(batch=numbers == number).mean("batch") for number in np.unique(numbers)]
        if len(alike) > 1:
            p_value = np.maximum(p_value, _greater_than(np.stack([one.transpose(*dims) for one in alike]), margin))
    q_value = adjusted(p_value)
    heads["p_value"] = (dims, p_value.astype("float32"), {"long_name": f"p of excess <= {margin}", "units": "1"})
    heads["q_value"] = (dims, q_value.astype("float32"), {"long_name": "p adjusted for all heads", "units": "1"})
    flag = {"long_name": "more than chance", "units": "1", "false_discovery_rate": rate, "margin": margin}
    heads["flag"] = (dims, (q_value < rate).astype("int8"), flag)
    if steps is not None:
        heads["invariance"] = invariance(steps)
    return heads.assign_attrs(scores.attrs)


def invariance(by_step: xr.DataArray) -> xr.DataArray:
    """1 minus the mean over steps of the standard deviation over cases (Cabannes et al. 2024).

    A secondary column: a head that attends alike in every case scores 1 whatever it attends to. Steps that fewer than
    two cases have say nothing about it and are left out.
    """
    spread = by_step.where(by_step.notnull().sum("batch") > 1).std("batch").mean("step")
    about = {"long_name": "invariance over cases", "units": "1", "source": "Cabannes et al. 2024, arXiv 2406.02128"}
    return (1 - spread).astype("float32").assign_attrs(about)


def adjusted(p_value: np.ndarray) -> np.ndarray:
    """p values adjusted for all that are known (Benjamini and Hochberg); NaN stays NaN."""
    known, q_value = np.isfinite(p_value), np.full_like(p_value, np.nan)
    if known.any():
        q_value[known] = scipy_stats.false_discovery_control(p_value[known])
    return q_value


def contrast(scores: xr.DataArray, groups: xr.DataArray, *, rate: float = 0.05) -> xr.Dataset:
    """Do two sorts of cases differ? Scores (batch, layer, head); `groups` (batch) is 1 or 0.

    Returns:
        (layer, head): `difference` (mean of group 1 minus group 0) with a 95% t interval, `p_value` (Welch, two
        sided), `q_value`, `flag`. NaN, and no flag, where a group has fewer than two cases.
    """
    values = scores.transpose("batch", "layer", "head").values.astype(float)
    own = groups.values.astype(bool)
    shape = values.shape[1:]
    low = high = p_value = np.full(shape, np.nan)
    value = np.full(shape, np.nan)
    if min(own.sum(), (~own).sum()) >= 2:
        with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # heads that never vary: NaN says it
            test = scipy_stats.ttest_ind(values[own], values[~own], equal_var=False)
            low, high = test.confidence_interval(CONFIDENCE)
        value, p_value = values[own].mean(0) - values[~own].mean(0), test.pvalue
    q_value = adjusted(p_value)
    about = {"units": str(scores.attrs.get("units", "1")), "source": str(scores.attrs.get("source", ""))}
    meaning = {
        "difference": (value, f"{scores.attrs.get('long_name', scores.name)}: {groups.name} minus not"),
        "difference_low": (low, "lower end of its 95% interval"),
        "difference_high": (high, "upper end of its 95% interval"),
        "p_value": (p_value, "p of no difference"),
        "q_value": (q_value, "p adjusted for all heads"),
    }
    dims = ("layer", "head")
    heads = {
        name: (dims, np.asarray(a, np.float32), {"long_name": text, **about}) for name, (a, text) in meaning.items()
    }
    flag = {"long_name": "the groups differ", "units": "1", "false_discovery_rate": rate}
    result = xr.Dataset({**heads, "flag": (dims, (q_value < rate).astype("int8"), flag)})
    return result.assign_coords({name: scores[name] for name in dims if name in scores.coords})


def _greater_than(values: np.ndarray, margin: float) -> np.ndarray:
    """One-sided p of mean(values) <= margin over the first axis; NaN with fewer than two cases."""
    count = np.isfinite(values).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # too few cases, or all alike: handled below
        centre, spread = np.nanmean(values, 0) - margin, np.nanstd(values, 0, ddof=1)
        t = centre / (spread / np.sqrt(count))
        p = scipy_stats.t.sf(t, count - 1)
    alike = (count >= 2) & (spread == 0)
    return np.where(alike, np.where(centre > 0, 0.0, 1.0), np.where(count >= 2, p, np.nan))


def normalised_effect(swapped: xr.DataArray, base: xr.DataArray, donor: xr.DataArray, threshold: float) -> xr.DataArray:
    """(swapped - base) / (donor - base) per case: 0 changed nothing, 1 carried the whole difference over.

    It is not bounded: a head that works against the answer is below 0, overshooting is above 1. Cases whose
    gap is below `threshold` say nothing and become NaN; attrs count them as `cases_masked`.
    """
    gap = donor - base
    usable = (np.abs(gap) >= threshold) & (gap != 0)
    effect = ((swapped - base) / gap.where(usable)).astype("float32")
    effect.attrs = {"long_name": "normalised effect", "units": "1"}
    effect.attrs.update(cases_masked=int((~usable).sum()), gap_threshold=threshold)
    return effect.rename("effect")


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rank correlation over the last axis; NaN where there are fewer than three values, where one is missing, or where
    all are alike."""
    if first.shape[-1] < 3:
        return np.full(first.shape[:-1], np.nan)
    a, b = (scipy_stats.rankdata(one, axis=-1) for one in (first, second))
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


def top_heads(heads: xr.Dataset, name: str, k: int = 10, *, lowest: bool = False) -> list[dict]:
    """The k heads with the highest (or lowest) value: layer, head, value, low, high. NaN never ranks."""
    table = heads[[name, f"{name}_low", f"{name}_high"]].to_dataframe().dropna(subset=[name])
    table = table.sort_values(name, ascending=lowest, kind="stable").head(k).reset_index()
    return [
        {
            "layer": int(row["layer"]),
            "head": int(row["head"]),
            "value": row[name],
            "low": row[f"{name}_low"],
            "high": row[f"{name}_high"],
        }
        for _, row in table.iterrows()
    ]


def head_name(layer: int, head: int) -> str:
    """Zero-based, as printed everywhere: L9H6."""
    return f"L{layer}H{head}"


def parse_head(text: str) -> tuple[int, int]:
    """`9.6` or `L9H6` -> (9, 6)."""
    match = re.fullmatch(r"\s*(?:L(\d{1,6})H(\d{1,6})|(\d{1,6})\.(\d{1,6}))\s*", text, re.IGNORECASE)
    if match is None:
        raise BadInput(f"{text!r} is no head; write layer and head from zero, as 9.6 or L9H6")
    layer, head = (group for group in match.groups() if group is not None)
    return int(layer), int(head)


def parse_numbers(text: str, what: str, limit: int) -> list[int]:
    """`0,2,5-8` -> [0, 2, 5, 6, 7, 8], each below `limit`."""
    numbers: set[int] = set()
    for piece in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", piece)
        if match is None:
            raise BadInput(f"{text!r} is no list of {what}s; write 0,2,5-8")
        first = int(match.group(1))
        last = int(match.group(2) or first)
        if first > last:
            raise BadInput(f"{piece.strip()!r} runs backwards; write {last}-{first}")
        if last >= limit:
            raise BadInput(f"{what} {last} does not exist; this model has {what}s 0 to {limit - 1}")
        numbers.update(range(first, last + 1))
    return sorted(numbers)
