"""How far do head scores move when a model is run another way: in fewer bits, on a server?

    moved = compare(scores, scores_in_bfloat16, top=10)
    moved["difference"], moved["overlap"]

The same prompts are scored in two settings, one model in memory at a time, and the two lists of
heads are compared: do they rank heads alike, do they name the same ones at the top, and does any
head gain or lose its flag? Scores of other prompts are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from nnheads.compare.resampled import CELL, interval
from nnheads.detectors._detect import calibrated, ranking
from nnheads.errors import BadInput
from nnheads.stats import names_of_ends, spearman

SCALARS = {
    "overlap": "share of the top {top} heads in both",
    "overlap_chance": "share of the top {top} heads that random lists have in common",
    "largest": "largest absolute difference of any head",
    "gained": "heads flagged on the second side alone",
    "lost": "heads flagged on the first side alone",
}


@dataclass(frozen=True)
class Side:
    """The scores of one setting (batch, layer, head), and what they come to (layer, head)."""

    scores: xr.Dataset
    heads: xr.Dataset

    @property
    def headline(self) -> xr.DataArray:
        """Return what ranks the heads (layer, head)."""
        return self.heads[self.heads.attrs["headline"]].transpose(*CELL)

    def top(self, count: int) -> set[tuple[int, int]]:
        """Return the strongest heads."""
        return set(ranking(self.heads)[:count])


def check_top(top: int, count: int) -> None:
    """Refuse a list of more heads than there are."""
    if top > count:
        raise BadInput(f"Too many heads: --top {top}, and this model has {count}. Ask for fewer.")


def compare(first: xr.Dataset, second: xr.Dataset, *, top: int = 10, seed: int = 0) -> xr.Dataset:
    """Return how far two sets of scores of one head type differ.

    Args:
        first, second: (batch, layer, head), of the same prompts.
        top: how many heads at the top make a list.
        seed: of the resampled prompts.

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
        raise BadInput(
            "The two sides were not scored on the same prompts: their tokenizers differ. Compare"
            " settings of one model."
        )
    sides = [Side(scores, calibrated(scores, seed=seed)) for scores in (first, second)]
    check_top(top, sides[0].headline.size)
    named = named_heads(sides, top)
    result = _by_head(sides).assign(named=named)
    everything = np.ones_like(named.values, bool)
    scalars = {
        **correlation("rank_correlation", sides, everything, seed),
        **correlation("rank_correlation_named", sides, named.values == 1, seed),
        **_differences(sides, result["difference"], top),
    }
    for name, (value, text) in scalars.items():
        result[name] = ((), np.float32(value), {"long_name": text, "units": "1"})
    return result


def _by_head(sides: list[Side]) -> xr.Dataset:
    """Return the two headlines, their difference and the flags (layer, head)."""
    score, against = (side.headline for side in sides)
    about = {name: score.attrs[name] for name in ("units", "source") if name in score.attrs}
    meaning = score.attrs["long_name"]
    texts = {
        "score": (score.drop_attrs(), f"{meaning}, first side"),
        "against": (against.drop_attrs(), f"{meaning}, second side"),
        "difference": ((against - score).drop_attrs(), f"change of {meaning}"),
    }
    data = {
        name: values.assign_attrs(long_name=text, **about) for name, (values, text) in texts.items()
    }
    flags = {name: side.heads["flag"] for name, side in zip(("flag", "flag_against"), sides)}
    return xr.Dataset({**data, **flags})


def _differences(sides: list[Side], difference: xr.DataArray, top: int) -> dict[str, tuple]:
    """Return the SCALARS of two sides: name -> (value, what it is)."""
    first, second = (side.heads["flag"] for side in sides)
    known = all(bool(side.headline.notnull().any()) for side in sides)
    shared = sides[0].top(top) & sides[1].top(top)
    values = {
        "overlap": len(shared) / top if known else np.nan,
        "overlap_chance": top / difference.size,
        "largest": np.abs(difference).max().item(),
        "gained": int(((first == 0) & (second == 1)).sum()),
        "lost": int(((second == 0) & (first == 1)).sum()),
    }
    return {name: (value, SCALARS[name].format(top=top)) for name, value in values.items()}


def named_heads(sides: list[Side], top: int) -> xr.DataArray:
    """Return 1 for the heads that either side flags (layer, head).

    Where these are fewer than three: for those that either has among its `top`.
    """
    first, second = (side.heads["flag"] for side in sides)
    named = (first == 1) | (second == 1)
    if int(named.sum()) < 3:
        best = sides[0].top(top) | sides[1].top(top)
        layers, heads = named["layer"].values, named["head"].values
        chosen = [(layer, head) in best for layer in layers for head in heads]
        named = named.copy(data=np.reshape(chosen, named.shape))
    text = "flagged on either side, or with fewer than three such: at the top of either"
    return named.astype("int8").assign_attrs(long_name=text, units="1")


def correlation(name: str, sides: list[Side], heads: np.ndarray, seed: int) -> dict[str, tuple]:
    """Return Spearman over some heads with its interval: name -> (value, what it is).

    heads: bool [layer, head].
    """
    low, high = interval(sides[0].scores, sides[1].scores, seed, heads.ravel())
    which = "all heads" if heads.all() else "the heads named"
    meaning = names_of_ends("the rank correlation over prompts")
    value = spearman(*(side.headline.values[heads] for side in sides))
    return {
        name: (value, f"Spearman over {which}"),
        f"{name}_low": (low, meaning["low"]),
        f"{name}_high": (high, meaning["high"]),
    }
