"""The pictures of `nnheads atlas`: overlap, depth, emergence, roles and stability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnheads.recipes._results import band

if TYPE_CHECKING:
    import xarray as xr

MOST = 40  # entries of an overlap that can still be read as a picture


def save(output: Path, parts: dict[str, dict]) -> None:
    """Write every picture that the parts of an atlas allow."""
    from nnheads import plot
    from nnheads.runs import store

    drawn = side_by_side(parts) if 1 < len(parts["heads"]) <= MOST else {}
    drawn |= emerging(parts["emergence"])
    for (model, revision), dataset in parts["roles"].items():
        drawn |= roles(dataset, model, revision)
        drawn |= found_again(parts["stability"], model, revision)
    for name, figure in drawn.items():
        store.write(output / f"{name}.png", partial(plot.render, figure))


def side_by_side(parts: dict[str, dict]) -> dict[str, Any]:
    """Draw all scores on one picture: heads in common, and where in depth the strongest are."""
    from nnheads import plot
    from nnheads.compare.group_names import label
    from nnheads.compare.overlap import depth_map

    models = {keys[:2] for keys in parts["heads"]}
    title = label(f" of {' '.join(next(iter(models)))}") if len(models) == 1 else ""
    names = [label(" ".join(keys[2:] if title else keys)) for keys in parts["heads"]]
    common = parts["overlap"][()]["jaccard_top"].assign_coords(entry=names, other=names)
    depth = depth_map(parts["heads"]).assign_coords(entry=names)
    return {
        "overlap": plot.heatmap(common, title=f"Heads in common{title}", signed=False),
        "depth": plot.heatmap(
            depth, title=f"Strongest head by relative depth{title}", signed=False
        ),
    }


def emerging(curves: dict[tuple[str, str], xr.Dataset]) -> dict[str, Any]:
    """Draw how heads come about over the revisions of a model, type by type."""
    from nnheads import plot
    from nnheads.compare.group_names import file_name, label

    drawn = {}
    for (model, kind), curve in curves.items():
        revisions = [label(str(one)) for one in curve["revision"].values]
        score = curve["score"].assign_coords(revision=revisions)
        name = f"emergence-{file_name(model)}-{file_name(kind)}"
        drawn[name] = plot.emergence(score, title=label(f"{kind} over revisions of {model}"))
    return drawn


def roles(dataset: xr.Dataset, model: str, revision: str) -> dict[str, Any]:
    """Draw the flagged heads of a model, each type that singles heads out in its colour."""
    from nnheads import plot
    from nnheads.compare.group_names import file_name, label
    from nnheads.stats import is_selective

    flags = [flag for flag in dataset["flag"] if is_selective(flag)]
    masks = {label(str(flag["type"].values)): flag.where(flag == 1) for flag in flags}
    name = f"roles-{file_name(model)}-{file_name(revision)}"
    title = label(f"Flagged heads of {model} {revision}")
    common = label(str(dataset.attrs.get("common", "")))
    says = [f"Left out, since most heads are flagged: {common}."] * bool(common)
    return {name: plot.types_map(masks, title=title, scored="", says=says)}


def found_again(
    stability: dict[tuple[str, str, str], xr.Dataset], model: str, revision: str
) -> dict[str, Any]:
    """Draw how alike the lists of two samples are, type by type."""
    from nnheads import plot
    from nnheads.compare.group_names import file_name, label

    lines = {}
    for (*which, kind), dataset in stability.items():
        jaccard = dataset["jaccard"]
        known = dataset["n"].size > 1 and bool(jaccard.notnull().all())
        if which == [model, revision] and known:
            named = jaccard.assign_attrs(long_name="Jaccard of the lists of two samples")
            _, low, high = band(dataset, "jaccard")
            lines[label(f"{kind} (top {dataset.attrs['top']})")] = (named, low, high)
    lines = without_repeats(lines)
    title = label(f"Lists of {model} {revision}, found again by other prompts")
    name = f"stability-{file_name(model)}-{file_name(revision)}"
    return {name: plot.curves(lines, title=title)} if lines else {}


def without_repeats(lines: Mapping[str, Sequence[xr.DataArray]]) -> dict[str, Any]:
    """Return lines of which no two are the same: those that are stand together under one name."""
    alike: dict[bytes, list[str]] = {}
    for name, band_of_line in lines.items():
        alike.setdefault(b"|".join(one.values.tobytes() for one in band_of_line), []).append(name)
    kept = {}
    for names in alike.values():
        together = f"{len(names)} types, one line: {', '.join(names)}"
        kept[names[0] if len(names) == 1 else together] = lines[names[0]]
    return kept
