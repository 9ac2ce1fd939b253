"""Would other prompts name the same heads? What single prompts say about how far a list of heads
can be trusted.

Prompts are split at random into two lots of n that share none, heads are ranked by each, and the
lists are compared. That is what two independent samples of n prompts would show, as far as the
prompts stand for those that could be drawn: with ten times as many prompts as a list needs, the
    Jaccard of new samples was within 0.06 of what was predicted, with
six times as many within 0.1 (heads whose scores lie as close as a uniform draw puts them).
Source: Spearman 1910 and Brown 1910 for the step from half of the prompts to all.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr
from sklearn.isotonic import IsotonicRegression

from nnheads.compare.drift import headline
from nnheads.compare.entries import Entry
from nnheads.errors import BadInput
from nnheads.stats import CONFIDENCE, ends, spearman

TARGETS = (0.8, 0.9)
SIZES = 12  # of samples that are tried


def stability(scores: xr.Dataset, *, top: int = 8, draws: int = 50, seed: int = 0) -> xr.Dataset:
    """How alike are the rankings of heads by two samples of n prompts?

    Args:
        scores: (batch, layer, head) as detectors save them; attrs `headline`. Answers to one
            question stay together.
        top: how many heads at the top make the list.
        draws: how many pairs of samples for each n.

    Returns:
        (n): `jaccard` of the two lists and `spearman` over all heads, means over draws, with `_low`
        and `_high`, between which 95% of draws lie. Scalars: `reliability`, Spearman of the two
        halves, and `reliability_all`, what it comes to for as many prompts as there are;
        `jaccard_chance`, of random lists. (target): `needed_n`, the fewest prompts with which the
            lists of two samples have that Jaccard; NaN where half of them is not enough.

    Raises:
        BadInput: scores without a headline for single prompts, fewer than four prompts, or a list
            of more heads than there are.
    """
    name = str(scores.attrs.get("headline"))
    if name not in scores or "batch" not in scores[name].dims:
        raise BadInput(
            f"the headline {name!r} is not known for single prompts; stability needs them"
        )
    heads = scores.sizes["layer"] * scores.sizes["head"]
    if not 1 <= top < heads:
        raise BadInput(f"a list of {top} heads is not possible; this model has {heads}")
    units = units_of(scores)
    count = int(units.max()) + 1
    if count < 4:
        raise BadInput(f"{count} prompts cannot be split into halves; at least 4 are needed")
    sizes = np.unique(np.geomspace(2, count // 2, SIZES).round().astype(int))
    generator = np.random.default_rng(seed)
    orders = np.stack([generator.permutation(count) for _ in range(draws)])
    found = {"jaccard": np.empty((len(sizes), draws)), "spearman": np.empty((len(sizes), draws))}
    for row, n in enumerate(sizes):
        first, second = (
            _sampled(scores, units, orders[:, part]) for part in (slice(n), slice(n, 2 * n))
        )
        for draw, (a, b) in enumerate(zip(first, second)):
            known = np.isfinite(a) & np.isfinite(b)
            found["spearman"][row, draw] = spearman(a[known], b[known])
            found["jaccard"][row, draw] = jaccard(best(a, top, generator), best(b, top, generator))
    return _dataset(found, sizes, top, heads, count, scores)


def stable(
    entries: Iterable[Entry], *, top: int = 8, draws: int = 50, seed: int = 0
) -> tuple[dict[tuple[str, str, str], xr.Dataset], dict[str, str]]:
    """Stability of the list of flagged heads, or of the `top` where none is; where single prompts
    are known.

    Returns:
        (model, revision, type) -> `stability`; and why there is none, by the name of the entry.
    """
    found, refused = {}, {}
    for one in entries if draws else ():
        if one.scores is not None:
            flagged = int((one.heads["flag"] == 1).sum()) if "flag" in one.heads else 0
            try:
                own = stability(one.scores, top=flagged or top, draws=draws, seed=seed)
            except BadInput as reason:
                refused[one.name] = str(reason)
            else:
                found[one.model, one.revision, one.type] = own
    return found, refused


def units_of(scores: xr.Dataset) -> np.ndarray:
    """What is drawn, by number: a prompt, or a question with all its answers."""
    coordinate = "question" if "question" in scores.coords else "batch"
    values = (
        scores[coordinate].values
        if coordinate in scores.coords
        else np.arange(scores.sizes["batch"])
    )
    return np.unique(values, return_inverse=True)[1]


def _sampled(scores: xr.Dataset, units: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The headline of every head, [draw, head], from the units that each draw holds."""
    counts = np.zeros((len(drawn), int(units.max()) + 1))
    np.put_along_axis(counts, drawn, 1.0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a sample without a case that counts: NaN
        return headline(scores, counts[:, units])


def best(values: np.ndarray, top: int, generator: np.random.Generator) -> set[int]:
    """The highest places.

    Equals come in any order, or heads that all score zero would look like a stable list.
    """
    order = np.lexsort(
        (generator.random(values.size), -np.where(np.isfinite(values), values, -np.inf))
    )
    return {int(place) for place in order[:top] if np.isfinite(values[place])}


def jaccard(first: set, second: set) -> float:
    """Shared over all; NaN where both are empty."""
    return len(first & second) / len(first | second) if first or second else float("nan")


def chance_jaccard(top: int, heads: int) -> float:
    """What two random lists share, about."""
    shared = top * top / heads
    return shared / (2 * top - shared)


def _dataset(
    found: dict, sizes: np.ndarray, top: int, heads: int, count: int, scores: xr.Dataset
) -> xr.Dataset:
    texts = {
        "jaccard": f"Jaccard of the top {top} of two samples",
        "spearman": "Spearman of all heads, two samples",
    }
    result = xr.Dataset(coords={"n": ("n", sizes, {"long_name": "prompts in a sample"})})
    for name, values in found.items():
        rows = np.stack([_summary(row[np.isfinite(row)]) for row in values])
        for end, of in zip(("", "_low", "_high"), rows.T):
            text = f"{texts[name]}{f', {CONFIDENCE:.0%} of draws{end}' if end else ''}".replace(
                "_", " "
            )
            result[name + end] = ("n", of.astype(np.float32), {"long_name": text, "units": "1"})
    half = float(result["spearman"][-1])
    whole = min(1.0, half * 2 / (1 + half)) if half > -1 else np.nan  # to twice as many prompts
    scalars = {
        "reliability": (half, "Spearman of the two halves"),
        "reliability_all": (whole, "what it comes to for all prompts, by Spearman and Brown"),
        "jaccard_chance": (chance_jaccard(top, heads), f"Jaccard of two random lists of {top}"),
    }
    for name, (value, text) in scalars.items():
        result[name] = ((), np.float32(value), {"long_name": text, "units": "1"})
    needed = [needed_n(sizes, result["jaccard"].values, target) for target in TARGETS]
    about = {"long_name": "fewest prompts whose list has that Jaccard with another's", "units": "1"}
    result = result.assign_coords(target=list(TARGETS))
    result["needed_n"] = ("target", np.array(needed, np.float32), about)
    kept = {
        name: scores.attrs[name]
        for name in ("kind", "model", "revision", "prompts_sha256")
        if name in scores.attrs
    }
    return result.assign_attrs(**kept, prompts=count, top=top, draws=len(found["jaccard"][0]))


def _summary(values: np.ndarray) -> np.ndarray:
    """Mean over draws and the ends of where most lie; NaN of none."""
    if values.size == 0:
        return np.full(3, np.nan)
    return np.array([values.mean(), *ends(values)])


def needed_n(sizes: np.ndarray, values: np.ndarray, target: float) -> float:
    """The fewest prompts that reach a Jaccard, read off a curve that never falls; NaN if it is not
    reached.
    """
    sizes, values = sizes[np.isfinite(values)], values[np.isfinite(values)]
    curve = (
        IsotonicRegression().fit_transform(np.log(sizes), values)
        if sizes.size
        else np.array([np.nan])
    )
    if not curve[-1] >= target:
        return float("nan")
    at = int(np.argmax(curve >= target))
    if at == 0:
        return float(sizes[0])
    share = (target - curve[at - 1]) / (curve[at] - curve[at - 1])
    return float(
        np.ceil(np.exp(np.log(sizes[at - 1]) + share * (np.log(sizes[at]) - np.log(sizes[at - 1]))))
    )
