"""How far do head scores move when a model is run another way: in fewer bits, with another
attention, on a server?

The same prompts are scored in two settings, one model in memory at a time, and the two lists of
heads are compared: do they rank heads alike, do they name the same ones at the top, and does any
    head gain or lose its flag?
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from nnheads.detectors._detect import calibrated, ranking
from nnheads.errors import BadInput
from nnheads.models.inputs import inputs
from nnheads.models.loading import DTYPES, QUANTIZATIONS
from nnheads.stats import ends, names_of_ends, resamples, spearman
from nnheads.trace.session import remote_of

ATTENTION = ("eager", "sdpa")
REMOTE = "remote"
CELL = ("layer", "head")


def settings(
    dtype: str, quantization: str | None, against: str, remote: bool | str
) -> tuple[dict, dict]:
    """How each side is loaded, as `model.load` takes it: as asked, and the same but for what
    `against` names.

    Args:
        against: a dtype, "eager" or "sdpa" (attention), "4bit" or "8bit" (weights), or "remote"
            (`remote`'s server).
    """
    first: dict = {"dtype": dtype, "quantization": quantization, "attention": None, "remote": False}
    known = [*(name for name in DTYPES if name != "auto"), *ATTENTION, *QUANTIZATIONS, REMOTE]
    if against not in known:
        raise BadInput(f"--against {against!r} is not known; use one of {', '.join(known)}")
    if (against == REMOTE) != bool(remote):
        raise BadInput(
            "--against remote and --remote belong together: ndif or a URL says which server is"
            " compared"
        )
    if against in (dtype, quantization):
        raise BadInput(f"both sides would be {against}; name another with --against")
    if against == REMOTE:
        return first, {**first, "quantization": None, "remote": remote}
    if against in QUANTIZATIONS:  # which compute in a dtype of their own
        return first, {**first, "dtype": "auto", "quantization": against}
    return first, {**first, "attention" if against in ATTENTION else "dtype": against}


def computed_in(model, prompts: xr.Dataset) -> str:
    """The dtype of head outputs where they are computed: a server has its own, whatever was asked
    for here.
    """
    from nnsight import save

    fed = inputs(model, prompts.isel(batch=slice(0, 1)))
    with torch.no_grad(), model.trace(**fed, use_cache=False, remote=remote_of(model)) as tracer:
        name = save(str(model.layers[0].attention.projection.input.dtype))
        tracer.stop()
    return name.replace("torch.", "")


def check_top(top: int, count: int) -> None:
    """Refuse a list of more heads than there are."""
    if top > count:
        raise BadInput(f"--top {top} is not possible; this model has {count} heads")


def compare(first: xr.Dataset, second: xr.Dataset, *, top: int = 10, seed: int = 0) -> xr.Dataset:
    """Two sets of scores (batch, layer, head) of one head type on the same prompts.

    Returns:
        (layer, head): `score` and `against`, the headline on each side; `difference`, against minus
        score; `flag` and `flag_against`; `named`, see `named_heads`. Scalars: `rank_correlation`
        (Spearman, over all heads, most of which may score nothing and be ranked by noise) and
        `rank_correlation_named` (over those named), each with a 95% interval that draws prompts,
        the same on both sides; `overlap`, the share of the `top` heads that both name, and
        `overlap_chance`, what two random lists share; `largest`, the largest absolute difference;
        `gained` and `lost`, flags. NaN where a side has no score.

    Raises:
        BadInput: other prompts on one side, or fewer heads than `top`.
    """
    if first.attrs["prompts_sha256"] != second.attrs["prompts_sha256"]:
        raise BadInput("the two sides were not scored on the same prompts; their tokenizers differ")
    heads = [calibrated(one, seed=seed) for one in (first, second)]
    count = heads[0].sizes["layer"] * heads[0].sizes["head"]
    check_top(top, count)
    score, against = (one[one.attrs["headline"]].transpose(*CELL) for one in heads)
    about = {name: score.attrs[name] for name in ("units", "source") if name in score.attrs}
    meaning = score.attrs["long_name"]
    difference = (against - score).assign_attrs(long_name=f"change of {meaning}", **about)
    gained, lost = ((heads[a]["flag"] == 0) & (heads[b]["flag"] == 1) for a, b in ((0, 1), (1, 0)))
    ranked = [set(ranking(one)[:top]) for one in heads]
    known = bool(score.notnull().any() and against.notnull().any())
    named = named_heads(heads, ranked)
    scalars = {
        **correlation(
            "rank_correlation",
            first,
            second,
            score,
            against,
            np.ones_like(named.values, bool),
            seed,
        ),
        **correlation(
            "rank_correlation_named", first, second, score, against, named.values == 1, seed
        ),
        "overlap": (
            len(ranked[0] & ranked[1]) / top if known else np.nan,
            f"share of the top {top} heads in both",
        ),
        "overlap_chance": (
            top / count,
            f"share of the top {top} heads that random lists have in common",
        ),
        "largest": (np.abs(difference).max().item(), "largest absolute difference of any head"),
        "gained": (int(gained.sum()), "heads flagged on the second side alone"),
        "lost": (int(lost.sum()), "heads flagged on the first side alone"),
    }
    result = xr.Dataset(
        {
            "score": score.drop_attrs().assign_attrs(long_name=f"{meaning}, first side", **about),
            "against": (
                against.drop_attrs().assign_attrs(long_name=f"{meaning}, second side", **about)
            ),
            "difference": difference,
            "flag": heads[0]["flag"],
            "flag_against": heads[1]["flag"],
            "named": named,
        }
    )
    for name, (value, text) in scalars.items():
        result[name] = ((), np.float32(value), {"long_name": text, "units": "1"})
    return result


def named_heads(heads: list[xr.Dataset], ranked: list[set]) -> xr.DataArray:
    """1 for the heads that either side flags, or, where these are fewer than three, that either has
    at the top.
    """
    named = (heads[0]["flag"] == 1) | (heads[1]["flag"] == 1)
    if int(named.sum()) < 3:
        at = [
            (layer, head) in set.union(*ranked)
            for layer in named["layer"].values
            for head in named["head"].values
        ]
        named = named.copy(data=np.reshape(at, named.shape))
    about = {
        "long_name": "flagged on either side, or with fewer than three such: at the top of either",
        "units": "1",
    }
    return named.astype("int8").assign_attrs(about)


def correlation(
    name: str,
    first: xr.Dataset,
    second: xr.Dataset,
    score: xr.DataArray,
    against: xr.DataArray,
    of: np.ndarray,
    seed: int,
) -> dict[str, tuple]:
    """Spearman over the heads `of` [layer, head] with its interval: name -> (value, what it is)."""
    low, high = interval(first, second, seed, of.ravel())
    which = "all heads" if of.all() else "the heads named"
    meaning = names_of_ends("the rank correlation over prompts")
    return {
        name: (spearman(score.values[of], against.values[of]), f"Spearman over {which}"),
        f"{name}_low": (low, meaning["low"]),
        f"{name}_high": (high, meaning["high"]),
    }


def interval(
    first: xr.Dataset, second: xr.Dataset, seed: int, of: np.ndarray | None = None
) -> tuple[float, float]:
    """Ends of the rank correlation's interval, over the heads `of` [layer * head], or all. Answers
    to one question are drawn together; one prompt has none."""
    coordinate = "question" if "question" in first.coords else "batch"
    _, unit = np.unique(first[coordinate].values, return_inverse=True)
    units = int(unit.max()) + 1
    if units < 2:
        return float("nan"), float("nan")
    counts = resamples(units, seed)[:, unit].astype(float)
    chosen = slice(None) if of is None else of
    drawn = spearman(headline(first, counts)[:, chosen], headline(second, counts)[:, chosen])
    low, high = ends(drawn, skipna=True)
    return float(low), float(high)


def headline(scores: xr.Dataset, counts: np.ndarray) -> np.ndarray:
    """What `calibrated` ranks heads by, [draw, layer * head], if prompt b came `counts[draw, b]`
    times.
    """
    values = (
        scores[scores.attrs["headline"]]
        .transpose("batch", *CELL)
        .values.reshape(scores.sizes["batch"], -1)
    )
    if "counts" in scores.attrs:
        counts = counts * (scores[scores.attrs["counts"]].values == 1)
    if "contrast" not in scores.attrs:
        return _mean(values, counts)
    own = scores[scores.attrs["contrast"]].values.astype(bool)
    return _mean(values, counts * own) - _mean(values, counts * ~own)


def _mean(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):  # no prompt left: NaN says it
        return (counts @ np.where(known, values, 0.0)) / (counts @ known)
