"""Would other prompts name the same heads? How far a list of heads can be trusted.

    table = stability(scores, top=8)
    table["jaccard"], table["needed_n"]

Prompts are split at random into two lots of n that share none, heads are ranked by each, and the
lists are compared. That is what two independent samples of n prompts would show, as far as the
prompts stand for those that could be drawn: with ten times as many prompts as a list needs, the
Jaccard of new samples was within 0.06 of what was predicted, with six times as many within 0.1
(heads whose scores lie as close as a uniform draw puts them). Scores without a headline for single
prompts are refused.
Source: Spearman 1910 and Brown 1910 for the step from half of the prompts to all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float
from sklearn.isotonic import IsotonicRegression

from nnheads.compare.entries import Entry
from nnheads.compare.resampled import headline, units_of
from nnheads.errors import BadInput
from nnheads.stats import CONFIDENCE, ends, is_selective, spearman

TARGETS = (0.8, 0.9)
SIZES = 12  # of samples that are tried
# attrs that stay true
KEPT = (
    *("kind", "model", "revision", "prompts_sha256"),
    *("accuracy", "accuracy_by_step", "accuracy_of_guessing", "accuracy_p"),
)


@dataclass(frozen=True)
class Samples:
    """How alike two samples of n prompts rank heads, [n, draw], of lists of `top` heads."""

    sizes: np.ndarray
    jaccard: Float[np.ndarray, "n draw"]
    spearman: Float[np.ndarray, "n draw"]
    top: int
    heads: int
    prompts: int


def stability(scores: xr.Dataset, *, top: int = 8, draws: int = 50, seed: int = 0) -> xr.Dataset:
    """Return how alike the rankings of heads by two samples of n prompts are.

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
    heads = scores.sizes["layer"] * scores.sizes["head"]
    _check(scores, top, heads)
    units = units_of(scores)
    count = int(units.max()) + 1
    if count < 4:
        raise BadInput(f"{count} prompts cannot be split into halves. Score at least 4.")
    sizes = np.unique(np.geomspace(2, count // 2, SIZES).round().astype(int))
    generator = np.random.default_rng(seed)
    orders = np.stack([generator.permutation(count) for _ in range(draws)])
    pairs = [_compared(scores, units, orders[:, : 2 * n], top, generator) for n in sizes]
    alike = [np.array(each).reshape(len(sizes), draws) for each in zip(*pairs)]
    return _labelled(Samples(sizes, alike[0], alike[1], top, heads, count), scores)


def _check(scores: xr.Dataset, top: int, heads: int) -> None:
    """Refuse scores that do not rank heads by single prompts, and lists that are too long."""
    name = str(scores.attrs.get("headline"))
    if name not in scores or "batch" not in scores[name].dims:
        raise BadInput(
            f"The headline {name!r} is not known for single prompts. Stability needs scores of"
            " single prompts, as nnheads detect saves them."
        )
    if not 1 <= top < heads:
        raise BadInput(f"Not a list of heads: {top} of the {heads} of this model. Ask for fewer.")


def _compared(
    scores: xr.Dataset, units: np.ndarray, drawn: np.ndarray, top: int, rng: np.random.Generator
) -> tuple[list[float], list[float]]:
    """Return Jaccard and Spearman of the two halves of each draw [draw, 2 n]."""
    n = drawn.shape[1] // 2
    halves = [_sampled(scores, units, part) for part in (drawn[:, :n], drawn[:, n:])]
    lists, ranks = [], []
    for a, b in zip(*halves):
        known = np.isfinite(a) & np.isfinite(b)
        ranks.append(float(spearman(a[known], b[known])))
        lists.append(jaccard(best(a, top, rng), best(b, top, rng)))
    return lists, ranks


def stable(
    entries: Iterable[Entry], *, top: int = 8, draws: int = 50, seed: int = 0
) -> tuple[dict[tuple[str, str, str], xr.Dataset], dict[str, str]]:
    """Return the stability of the list of flagged heads, or of the `top` where none or most are.

    Returns:
        (model, revision, type) -> `stability`, where single prompts are known; and why there is
        none, by the name of the entry.
    """
    tables: dict[tuple[str, str, str], xr.Dataset] = {}
    refused: dict[str, str] = {}
    for one in entries if draws else ():
        if one.scores is None:
            continue
        if not one.heads["score"].notnull().any():
            refused[one.name] = "no head has a score"
            continue
        flag = one.heads.get("flag")
        flagged = 0 if flag is None or not is_selective(flag) else int((flag == 1).sum())
        try:
            table = stability(one.scores, top=flagged or top, draws=draws, seed=seed)
        except BadInput as reason:
            refused[one.name] = str(reason)
        else:
            tables[one.model, one.revision, one.type] = table
    return tables, refused


def _sampled(scores: xr.Dataset, units: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return the headline of every head from the units that each draw holds, [draw, head]."""
    counts = np.zeros((len(drawn), int(units.max()) + 1))
    np.put_along_axis(counts, drawn, 1.0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a sample without a case that counts: NaN
        return headline(scores, counts[:, units])


def best(values: np.ndarray, top: int, generator: np.random.Generator) -> set[int]:
    """Return the numbers of the highest values.

    Equals come in any order, or heads that all score zero would look like a stable list.
    """
    known = np.isfinite(values)
    order = np.lexsort((generator.random(values.size), -np.where(known, values, -np.inf)))
    return {int(number) for number in order[:top] if known[number]}


def jaccard(first: set, second: set) -> float:
    """Return what is shared over all; NaN where both are empty."""
    return len(first & second) / len(first | second) if first or second else float("nan")


def chance_jaccard(top: int, heads: int) -> float:
    """Return the Jaccard of two random lists, about."""
    shared = top * top / heads
    return shared / (2 * top - shared)


def _labelled(samples: Samples, scores: xr.Dataset) -> xr.Dataset:
    """Reduce over draws, and say what that means for all prompts."""
    result = xr.Dataset(coords={"n": ("n", samples.sizes, {"long_name": "prompts in a sample"})})
    jaccard_text = f"Jaccard of the top {samples.top} of two samples"
    result = result.assign(_reduced("jaccard", jaccard_text, samples.jaccard))
    spearman_text = "Spearman of all heads, two samples"
    result = result.assign(_reduced("spearman", spearman_text, samples.spearman))
    for name, (value, text) in _scalars(samples, float(result["spearman"][-1])).items():
        result[name] = ((), np.float32(value), {"long_name": text, "units": "1"})
    needed = [needed_n(samples.sizes, result["jaccard"].values, target) for target in TARGETS]
    about = {"long_name": "fewest prompts whose list has that Jaccard with another's", "units": "1"}
    result = result.assign_coords(target=list(TARGETS))
    result["needed_n"] = ("target", np.array(needed, np.float32), about)
    kept = {name: scores.attrs[name] for name in KEPT if name in scores.attrs}
    draws = samples.jaccard.shape[1]
    return result.assign_attrs(**kept, prompts=samples.prompts, top=samples.top, draws=draws)


def _reduced(name: str, text: str, values: Float[np.ndarray, "n draw"]) -> dict[str, tuple]:
    """Return the mean over draws, and the ends between which most of them lie (n)."""
    rows = np.stack([_summary(row[np.isfinite(row)]) for row in values])
    texts = _texts(name, text)
    return {
        key: ("n", column.astype(np.float32), {"long_name": meaning, "units": "1"})
        for (key, meaning), column in zip(texts.items(), rows.T)
    }


def _texts(name: str, text: str) -> dict[str, str]:
    """Return what a mean over draws and its ends are."""
    of_draws = f"{text}, {CONFIDENCE:.0%} of draws"
    return {name: text, f"{name}_low": f"{of_draws} low", f"{name}_high": f"{of_draws} high"}


def _scalars(samples: Samples, half: float) -> dict[str, tuple[float, str]]:
    """Return what halves say of all prompts: name -> (value, what it is)."""
    whole = min(1.0, half * 2 / (1 + half)) if half > -1 else np.nan  # to twice as many prompts
    chance = chance_jaccard(samples.top, samples.heads)
    return {
        "reliability": (half, "Spearman of the two halves"),
        "reliability_all": (whole, "what it comes to for all prompts, by Spearman and Brown"),
        "jaccard_chance": (chance, f"Jaccard of two random lists of {samples.top}"),
    }


def _summary(values: Float[np.ndarray, " draw"]) -> Float[np.ndarray, "3"]:
    """Return the mean over draws and the ends of where most lie; NaN of none."""
    return np.array([values.mean(), *ends(values)]) if values.size else np.full(3, np.nan)


def needed_n(sizes: np.ndarray, values: Float[np.ndarray, " n"], target: float) -> float:
    """Return the fewest prompts that reach a Jaccard; NaN if it is not reached.

    It is read off a curve over the logarithm of n that never falls.
    """
    known = np.isfinite(values)
    if not known.any():
        return float("nan")
    sizes = sizes[known]
    curve = IsotonicRegression().fit_transform(np.log(sizes), values[known])
    if not curve[-1] >= target:
        return float("nan")
    at = int(np.argmax(curve >= target))
    if at == 0:
        return float(sizes[0])
    share = (target - curve[at - 1]) / (curve[at] - curve[at - 1])
    low, high = np.log(sizes[at - 1]), np.log(sizes[at])
    return float(np.ceil(np.exp(low + share * (high - low))))
