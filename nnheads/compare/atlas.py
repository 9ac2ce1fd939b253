"""Many runs side by side: which types share heads, which models agree, and how heads come about.

Heads of two models with the same number of layers and heads are compared one by one, which means
something for models of one family (revisions, base and tuned). Models of other shapes share one
axis, relative depth: 0 is the first layer and 1 the last. There only the profile over depth is
    compared, not single heads.
"""

from __future__ import annotations

import re

import numpy as np
import xarray as xr

from nnheads import stats
from nnheads.compare.entries import Entry
from nnheads.compare.stability import chance_jaccard, jaccard
from nnheads.errors import BadInput
from nnheads.runs.columns import CELL, text
from nnheads.stats import ranked, spearman

DEPTHS = np.linspace(0, 1, 21)
FARTHEST = 0.3  # of relative depth by which profiles are moved to match
DIGITS = re.compile(r"step[-_]?(\d{1,12})")


def overlap(entries: list[Entry], top: int = 8) -> xr.Dataset:
    """How alike are types, models and revisions, two by two?

    Returns:
        (entry, other): `jaccard_flagged`, `jaccard_top` of the `top` strongest (or of as many as
        the shorter list has) and `spearman` over all heads that both score, where both have the
        same layers and heads, else NaN; `jaccard_chance` of random lists of that length. For any
        two, `profile`, the correlation of the strongest head by relative depth; `shift`, by how
        much of the depth `other` must be moved up to match best, and `profile_shifted` once it is.
    """
    if top < 1:
        raise BadInput(f"a list of {top} heads is not possible; it must be at least 1")
    names = {
        "jaccard_flagged": "Jaccard of flagged heads",
        "jaccard_top": f"Jaccard of the {top} strongest heads",
        "jaccard_chance": f"Jaccard of random lists of {top}",
        "spearman": "Spearman over all heads",
        "profile": "correlation of profiles over depth",
        "profile_shifted": "the same once moved",
        "shift": "relative depth by which the other is moved",
    }
    values = {name: np.full((len(entries), len(entries)), np.nan, np.float32) for name in names}
    profiles = [profile(one.heads) for one in entries]
    for i, first in enumerate(entries):
        for j, second in enumerate(entries[: i + 1]):
            found = {
                **_heads_alike(first, second, top),
                **_profiles_alike(profiles[i], profiles[j]),
            }
            for name, value in found.items():
                values[name][i, j], values[name][j, i] = value, -value if name == "shift" else value
    labels = [one.name for one in entries]
    facts = {
        key: ("entry", [getattr(one, key) for one in entries])
        for key in ("model", "revision", "kind")
    }
    data = {
        name: (("entry", "other"), of, {"long_name": names[name], "units": "1"})
        for name, of in values.items()
    }
    return xr.Dataset(data, {"entry": labels, "other": labels, **facts}, {"top": top})


def _heads_alike(first: Entry, second: Entry, top: int) -> dict[str, float]:
    """Comparisons head by head; nothing where the two have other heads."""
    if any(not np.array_equal(first.heads[name], second.heads[name]) for name in CELL):
        return {}
    a, b = first.heads["score"].values.ravel(), second.heads["score"].values.ravel()
    both = np.isfinite(a) & np.isfinite(b)
    found = {"spearman": float(spearman(a[both], b[both]))}
    known = [np.flatnonzero(np.isfinite(one)) for one in (a, b)]
    top = min(top, *map(len, known))  # a published list may be shorter
    if 0 < top < max(map(len, known)):
        strongest = [
            set(ranked(np.where(np.isfinite(one), one, np.nan))[:top].tolist()) for one in (a, b)
        ]
        found |= {
            "jaccard_top": jaccard(*strongest),
            "jaccard_chance": chance_jaccard(top, max(map(len, known))),
        }
    if "flag" in first.heads and "flag" in second.heads:
        flagged = [
            set(np.flatnonzero(one.heads["flag"].values.ravel() == 1).tolist())
            for one in (first, second)
        ]
        found["jaccard_flagged"] = jaccard(*flagged)
    return found


def profile(heads: xr.Dataset) -> np.ndarray:
    """The strongest head of each layer, by relative depth, at DEPTHS; NaN of one layer or without
    values.
    """
    strongest = heads["score"].max("head").values.astype(float)
    known = np.isfinite(strongest)
    if known.sum() < 2:
        return np.full(DEPTHS.size, np.nan)
    return np.interp(DEPTHS, heads["depth"].values[known], strongest[known])


def _profiles_alike(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    steps = round(FARTHEST * (DEPTHS.size - 1))
    each = {
        move: _correlated(first, second, move) for move in sorted(range(-steps, steps + 1), key=abs)
    }
    known = {move: value for move, value in each.items() if value == value}
    if not known:
        return {}
    move = max(known, key=lambda one: known[one])
    return {"profile": each[0], "profile_shifted": known[move], "shift": move / (DEPTHS.size - 1)}


def _correlated(first: np.ndarray, second: np.ndarray, move: int) -> float:
    """Pearson of two profiles, the second moved to a greater depth; where they still lie beside
    each other.
    """
    size = first.size - abs(move)
    a, b = (first[move:], second[:size]) if move >= 0 else (first[:size], second[-move:])
    if not (np.isfinite(a).all() and np.isfinite(b).all()) or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def step_of(revision: str) -> int | None:
    """The training step in a revision's name: `step3000`, `stage1-step1000-tokens5B`."""
    match = DIGITS.search(revision)
    return int(match.group(1)) if match else None


def emergence(entries: list[Entry]) -> dict[tuple[str, str], xr.Dataset]:
    """How heads come about over the revisions of a model: (model, type) -> curves, where there are
    several.

    Returns:
        (revision, layer, head): `score` and, where known, `flag`; (revision): `strongest`,
        `flagged`; (layer, head): `onset`, the first step, or place in the order, from which on a
        head is always flagged. Revisions stand in the order of their steps if all have one
        (`step`), else as they came.
    """
    groups: dict[tuple[str, str], list[Entry]] = {}
    for one in entries:
        groups.setdefault((one.model, one.type), []).append(one)
    found = {}
    for key, group in groups.items():
        alike = [one for one in group if one.shape == group[0].shape]
        if len(alike) > 1:
            found[key] = _curves(alike)
    return found


def _curves(group: list[Entry]) -> xr.Dataset:
    steps = [step_of(one.revision) for one in group]
    stepped = None not in steps
    numbers = [step for step in steps if step is not None] if stepped else list(range(len(group)))
    order = np.argsort(numbers, kind="stable")
    group = [group[place] for place in order]
    whole = all("flag" in one.heads for one in group)
    names = ["score", "flag"] if whole else ["score"]
    along = xr.Variable("revision", [one.revision for one in group])
    joined = xr.concat([one.heads[names] for one in group], along, combine_attrs="drop_conflicts")
    joined = (
        joined.assign_coords(step=("revision", np.array(numbers)[order])) if stepped else joined
    )
    meaning = joined["score"].attrs
    joined["strongest"] = (
        joined["score"].max(CELL).assign_attrs({**meaning, "long_name": "strongest head"})
    )
    if whole:
        flags = joined["flag"] == 1
        joined["flagged"] = (
            flags.sum(CELL).astype("int32").assign_attrs(long_name="heads flagged", units="1")
        )
        later = flags[::-1].cumprod("revision")[::-1].astype(bool)  # flagged from here on
        first = xr.DataArray(np.array(numbers)[order].astype(float), dims="revision")
        about = {"long_name": "first step from which on it is flagged", "units": "1"}
        joined["onset"] = first.where(later).min("revision").astype("float32").assign_attrs(about)
    return joined


def changes(base: Entry, tuned: Entry) -> xr.Dataset:
    """What changes from one model to another of the same shape, head by head.

    Returns:
        (layer, head): `difference`, tuned minus base. Where both were asked the same prompts, also
        its interval (`_low`, `_high`), `p_value` (t test over prompts, paired), `q_value` and
        `flag`.
    """
    if base.shape != tuned.shape:
        raise BadInput(
            f"{base.name} has {base.shape} heads and {tuned.name} {tuned.shape}; they cannot be"
            " compared"
        )
    about = {**base.heads["score"].attrs, "long_name": f"change of {base.kind}"}
    pair = paired(base, tuned)
    if pair is None:
        difference = (
            (tuned.heads["score"] - base.heads["score"]).rename("difference").assign_attrs(about)
        )
        return difference.to_dataset().assign_attrs(base=base.name, tuned=tuned.name, paired=0)
    result = stats.mean(pair.rename("difference").assign_attrs(about))
    values = pair.transpose("batch", *CELL).values.astype(float)
    p_value = stats.differs_from(values)
    result = result.assign(stats.discoveries(p_value, "p of no change", "changes"))
    return result.assign_attrs(base=base.name, tuned=tuned.name, paired=1)


def paired(base: Entry, tuned: Entry) -> xr.DataArray | None:
    """Differences prompt by prompt; None unless both were asked the same prompts and rank by a mean
    over them.
    """
    if base.scores is None or tuned.scores is None:
        return None
    first, second = base.scores.attrs, tuned.scores.attrs
    name = text(first.get("headline"))
    same = first.get("prompts_sha256") and first.get("prompts_sha256") == second.get(
        "prompts_sha256"
    )
    if (
        not same
        or "contrast" in first
        or "counts" in first
        or name not in base.scores
        or name not in tuned.scores
    ):
        return None
    a, b = base.scores[name], tuned.scores[name]
    return None if a.sizes != b.sizes or set(a.dims) != {"batch", *CELL} else b - a


def roles(entries: list[Entry]) -> xr.Dataset:
    """Types of one model at one revision: `flag` (type, layer, head), `count` (layer, head) of
    types that flag a head, and `which` of them, by name. A type that was asked twice counts
    once."""
    own = [one for one in entries if "flag" in one.heads and one.shape == entries[0].shape]
    if not own:
        raise BadInput(f"no score of {entries[0].model} flags heads")
    flag = xr.concat(
        [one.heads["flag"] == 1 for one in own], xr.Variable("type", [one.type for one in own])
    )
    names = np.array([one.type for one in own], dtype=object)
    which = [
        ["; ".join(names[flag.values[:, i, j]]) for j in range(own[0].shape[1])]
        for i in range(own[0].shape[0])
    ]
    kinds = flag.assign_coords(kind=("type", [one.kind for one in own])).groupby("kind").any()
    count = (
        kinds.sum("kind")
        .astype("int16")
        .assign_attrs(long_name="types that flag a head", units="1")
    )
    result = xr.Dataset({"flag": flag.astype("int8"), "count": count}).drop_vars(
        "depth", errors="ignore"
    )
    result["which"] = (CELL, np.array(which, dtype=object).astype(str))
    return result


def depth_map(heads: dict[tuple, xr.Dataset]) -> xr.DataArray:
    """(entry, depth): the strongest head by relative depth, whatever the size, as a share of each
    one's strongest.
    """
    each = np.stack([profile(one) for one in heads.values()])
    most = np.nanmax(np.where(np.isfinite(each), each, -np.inf), axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(most > 0, each.clip(min=0) / most, np.nan)
    about = {"long_name": "strongest head, as a share of the strongest of all", "units": "1"}
    names = [" ".join(place) for place in heads]
    return xr.DataArray(
        share, {"entry": names, "depth": DEPTHS.round(2)}, ("entry", "depth"), attrs=about
    )


def file_name(name: str) -> str:
    """A name of a model, a revision or a type as part of a file's."""
    return re.sub(r"[^\w.+-]+", "-", name, flags=re.ASCII).strip("-.")[:60] or "unnamed"


def label(name: str) -> str:
    """A name as a picture can show it: two dollars would start a formula there."""
    return re.sub(r"[^\w ./:()+~-]", "·", name)


def group_names(places: list[tuple[str, ...]]) -> list[str]:
    """Paths of groups in a file, one for each place. Names that say more than a group's name can
    are made plain; two that come out the same are told apart by a number."""
    found: dict[tuple[str, ...], str] = {}
    taken: set[str] = set()
    for place in places:
        for depth in range(1, len(place) + 1):
            if place[:depth] not in found:
                parent = found[place[: depth - 1]] if depth > 1 else ""
                plain = (
                    re.sub(r"[^\w.()+ -]+", "-", place[depth - 1], flags=re.ASCII).strip(" .-")[
                        :100
                    ]
                    or "unnamed"
                )
                path, number = f"{parent}/{plain}", 1
                while path in taken:
                    number += 1
                    path = f"{parent}/{plain}~{number}"
                found[place[:depth]] = path
                taken.add(path)
    return [found[place] for place in places]
