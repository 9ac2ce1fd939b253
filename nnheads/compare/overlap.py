"""How alike are the heads of types, models and revisions, two by two?

    table = overlap(entries, top=8)
    table["jaccard_top"], table["profile"]  # (entry, other)

Heads of two models with the same number of layers and heads are compared one by one, which means
something for models of one family (revisions, base and tuned). Models of other shapes share one
axis, relative depth: 0 is the first layer and 1 the last. There only the profile over depth is
compared, and what asks for single heads is NaN.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float

from nnheads.compare.entries import Entry, strength_of
from nnheads.compare.stability import chance_jaccard, jaccard
from nnheads.errors import BadInput
from nnheads.runs.columns import CELL
from nnheads.stats import ranked, spearman

DEPTHS = np.linspace(0, 1, 21)
FARTHEST = 0.3  # of relative depth by which profiles are moved to match
MEANING = {
    "jaccard_flagged": "Jaccard of flagged heads",
    "jaccard_top": "Jaccard of the {top} strongest heads",
    "jaccard_chance": "Jaccard of random lists of {top}",
    "spearman": "Spearman over all heads",
    "profile": "correlation of profiles over depth",
    "profile_shifted": "the same once moved",
    "shift": "relative depth by which the other is moved",
}
FACTS = ("model", "revision", "kind")  # of an entry, beside its name

Profile = Float[np.ndarray, " depth"]


def overlap(entries: list[Entry], top: int = 8) -> xr.Dataset:
    """Return how alike entries are, two by two.

    Returns:
        (entry, other): `jaccard_flagged`, `jaccard_top` of the `top` strongest (or of as many as
        the shorter list has) and `spearman` over all heads that both score, where both have the
        same layers and heads, else NaN; `jaccard_chance` of random lists of that length. For any
        two, `profile`, the correlation of the strongest head by relative depth; `shift`, by how
        much of the depth `other` must be moved up to match best, and `profile_shifted` once it is.

    Raises:
        BadInput: a `top` below 1.
    """
    if top < 1:
        raise BadInput(f"Not a number of heads: a list of {top}. Compare at least 1.")
    size = len(entries)
    values = {name: np.full((size, size), np.nan, np.float32) for name in MEANING}
    profiles = [profile(one.heads) for one in entries]
    for i, first in enumerate(entries):
        for j, second in enumerate(entries[: i + 1]):
            alike = _heads_alike(first, second, top) | _profiles_alike(profiles[i], profiles[j])
            for name, value in alike.items():
                values[name][i, j], values[name][j, i] = value, -value if name == "shift" else value
    data = {
        name: (("entry", "other"), each, {"long_name": MEANING[name].format(top=top), "units": "1"})
        for name, each in values.items()
    }
    labels = [one.name for one in entries]
    facts = {fact: ("entry", [getattr(one, fact) for one in entries]) for fact in FACTS}
    return xr.Dataset(data, {"entry": labels, "other": labels, **facts}, {"top": top})


def _heads_alike(first: Entry, second: Entry, top: int) -> dict[str, float]:
    """Compare head by head; nothing where the two have other heads."""
    pair = (first.heads, second.heads)
    if any(not np.array_equal(pair[0][name], pair[1][name]) for name in CELL):
        return {}
    a, b = (strength_of(heads).values.ravel() for heads in pair)
    both = np.isfinite(a) & np.isfinite(b)
    alike = {"spearman": float(spearman(a[both], b[both]))} | _tops_alike(a, b, top)
    if all("flag" in heads for heads in pair):
        flagged = [_flagged(heads) for heads in pair]
        alike["jaccard_flagged"] = jaccard(*flagged)
    return alike


def _tops_alike(
    first: Float[np.ndarray, " head"], second: Float[np.ndarray, " head"], top: int
) -> dict[str, float]:
    """Compare the strongest heads of two lists; a published list may be shorter than the top."""
    scored = [_known(scores) for scores in (first, second)]
    sizes = [int(np.isfinite(scores).sum()) for scores in scored]
    top = min(top, *sizes)
    if not 0 < top < max(sizes):
        return {}
    strongest = [set(ranked(scores)[:top].tolist()) for scores in scored]
    return {
        "jaccard_top": jaccard(*strongest),
        "jaccard_chance": chance_jaccard(top, max(sizes)),
    }


def _known(scores: Float[np.ndarray, " head"]) -> Float[np.ndarray, " head"]:
    """Return scores, NaN where they are not finite."""
    return np.where(np.isfinite(scores), scores, np.nan)


def _flagged(heads: xr.Dataset) -> set[int]:
    return set(np.flatnonzero(heads["flag"].values.ravel() == 1).tolist())


def profile(heads: xr.Dataset) -> Profile:
    """Return the strongest head of each layer, by relative depth, at DEPTHS.

    NaN of one layer or without values.
    """
    strongest = strength_of(heads).max("head").values.astype(float)
    known = np.isfinite(strongest)
    if known.sum() < 2:
        return np.full(DEPTHS.size, np.nan)
    return np.interp(DEPTHS, heads["depth"].values[known], strongest[known])


def _profiles_alike(first: Profile, second: Profile) -> dict[str, float]:
    """Correlate two profiles as they are, and where the second is moved to match best."""
    steps = round(FARTHEST * (DEPTHS.size - 1))
    moves = sorted(range(-steps, steps + 1), key=abs)
    each = {move: _correlated(first, second, move) for move in moves}
    known = {move: value for move, value in each.items() if value == value}
    if not known:
        return {}
    move = max(known, key=lambda one: known[one])
    return {"profile": each[0], "profile_shifted": known[move], "shift": move / (DEPTHS.size - 1)}


def _correlated(first: Profile, second: Profile, move: int) -> float:
    """Return Pearson's correlation of two profiles, the second moved to a greater depth.

    Only depths count at which they still lie beside each other.
    """
    size = first.size - abs(move)
    a, b = (first[move:], second[:size]) if move >= 0 else (first[:size], second[-move:])
    return float(np.corrcoef(a, b)[0, 1]) if _varies(a) and _varies(b) else float("nan")


def _varies(part: Profile) -> bool:
    """Return whether a profile is known everywhere, and not the same everywhere."""
    return bool(np.isfinite(part).all()) and np.ptp(part) != 0


def depth_map(heads: dict[tuple, xr.Dataset]) -> xr.DataArray:
    """Return the strongest head by relative depth, as a share of each entry's strongest.

    Returns:
        (entry, depth), whatever the size of the models.
    """
    each = np.stack([profile(one) for one in heads.values()])
    most = np.nanmax(np.where(np.isfinite(each), each, -np.inf), axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(most > 0, each.clip(min=0) / most, np.nan)
    about = {"long_name": "strongest head, as a share of the strongest of all", "units": "1"}
    index = {"entry": [" ".join(names) for names in heads], "depth": DEPTHS.round(2)}
    return xr.DataArray(share, index, ("entry", "depth"), attrs=about)
