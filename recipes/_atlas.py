"""What `nnheads atlas` says on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnheads.recipes._terminal import say

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.compare.entries import Entry

SAME = 0.99999  # a rank correlation of scores that are the same
SHOWN = 8  # rows of a table in the terminal; the file holds all


def report(entries: list[Entry], parts: dict[str, dict], unfinished: list[str]) -> None:
    """Say what was joined, what is alike, what changes, and how far lists can be trusted."""
    models = {(one.model, one.revision) for one in entries}
    say(f"{len(entries)} scores, {len(models)} models or revisions")
    for folder in unfinished:
        say(f"  left out, not finished: {folder}")
    say_alike(parts["overlap"][()])
    say_again(parts["overlap"][()])
    say_roles(parts["roles"])
    say_emergence(parts["emergence"])
    say_changes(parts["changes"])
    say_stability(parts["stability"])


def say_roles(roles: dict[tuple[str, str], xr.Dataset]) -> None:
    """Say which heads do several things."""
    from nnheads.models.names import head_name

    for (model, revision), dataset in roles.items():
        counts = dataset["count"].to_series().sort_values(ascending=False, kind="stable")
        several = [f"{head_name(*head)} {count}" for head, count in counts.items() if count > 1]
        named = ", ".join(several[:SHOWN]) or "none"
        say(f"heads with several roles, {model} {revision}: {named}")
        if dataset.attrs["common"]:
            say(f"  no role, since most heads have it: {dataset.attrs['common']}")


def say_emergence(curves: dict[tuple[str, str], xr.Dataset]) -> None:
    """Say how the strongest head grows over the revisions of a model."""
    for (model, kind), curve in curves.items():
        steps = zip(curve["revision"].values, curve["strongest"])
        values = ", ".join(f"{revision} {float(value):.2f}" for revision, value in steps)
        say(f"{kind} of {model}, strongest head by revision: {values}")


def say_changes(changes: dict[tuple[str, str], xr.Dataset]) -> None:
    """Say how many heads change from one model to another, and which changes most."""
    for (pair, kind), dataset in changes.items():
        flagged = "no test: other prompts"
        if "flag" in dataset:
            flagged = f"{int(dataset['flag'].sum())} heads change"
        say(f"{kind}, {pair}: {flagged}{largest(dataset['difference'])}")


def largest(difference: xr.DataArray) -> str:
    """Return the head that changes most, and by how much."""
    from nnheads.models.names import head_name

    if not difference.notnull().any():
        return ""
    layer, head = abs(difference).to_series().idxmax()
    value = float(difference.sel(layer=layer, head=head))
    return f"; most: {head_name(layer, head)} {value:+.2f}"


def say_alike(overlap: xr.Dataset) -> None:
    """Print the pairs that share the most heads beyond what random lists share."""
    pairs = beyond_chance(overlap)
    if pairs:
        say(
            f"most heads in common, of the top {overlap.attrs['top']} (Jaccard; Spearman over all"
            " heads):"
        )
    names = overlap["entry"].values
    for i, j in pairs[:SHOWN]:
        shared, rank = float(overlap["jaccard_top"][i, j]), float(overlap["spearman"][i, j])
        same = "  (one ranking, in two runs)" if rank > SAME else ""
        say(f"  {shared:.2f}  {rank:+.2f}  {names[j]} | {names[i]}{same}")


def beyond_chance(overlap: xr.Dataset) -> list[tuple[int, int]]:
    """Return pairs of entries that share more heads than random lists, the most alike first."""
    beyond = (overlap["jaccard_top"] - overlap["jaccard_chance"]).values
    size = len(beyond)
    pairs = [(beyond[i, j], i, j) for i in range(size) for j in range(i) if beyond[i, j] > 0]
    return [(i, j) for _, i, j in sorted(pairs, reverse=True)]


def say_again(overlap: xr.Dataset) -> None:
    """Print how alike the answers are of models that were asked twice about the same: with another
    seed, other prompts or more of them.
    """
    names, top = overlap["entry"].values, overlap.attrs["top"]
    for i, j in asked_twice(overlap):
        cell = overlap.isel(entry=i, other=j)
        flagged, shared = float(cell["jaccard_flagged"]), float(cell["jaccard_top"])
        of_flagged = f"of flagged {flagged:.2f}, " if flagged == flagged else ""
        say(
            f"asked again: {names[i]} | {names[j]}: Jaccard {of_flagged}of the top {top}"
            f" {shared:.2f}; Spearman {float(cell['spearman']):.2f}"
        )


def asked_twice(overlap: xr.Dataset) -> list[tuple[int, int]]:
    """Return pairs of entries of one model, revision and kind."""
    columns = (overlap[name].values for name in ("model", "revision", "kind"))
    asked = list(zip(*columns))
    return [(i, j) for j in range(len(asked)) for i in range(j) if asked[i] == asked[j]]


def say_stability(stability: dict[tuple, xr.Dataset]) -> None:
    """Say how alike two samples are, and how many prompts a list needs."""
    from nnheads.detectors._ability import fails

    if stability:
        say("lists found again by other prompts:")
    for keys, dataset in stability.items():
        needs = ", ".join(need(dataset, target) for target in dataset["target"].values)
        value = float(dataset["reliability_all"])
        reliability = f"{value:.2f}" if value == value else "unknown"
        undone = "; the model does not do this task" if fails(dataset.attrs) else ""
        say(
            f"  {' '.join(keys)}: top {dataset.attrs['top']}, {needs};"
            f" rank correlation {reliability}{undone}"
        )


def need(dataset: xr.Dataset, target: float) -> str:
    """Return how many prompts a list needs to be found again as well as `target`."""
    value = float(dataset["needed_n"].sel(target=target))
    count = f"{value:.0f}" if value == value else f"more than {int(dataset['n'].max())}"
    return f"Jaccard {target} needs {count} prompts"
