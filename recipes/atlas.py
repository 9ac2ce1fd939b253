"""Many runs in one file: overlap of types, models and revisions, emergence, base against tuned, and
stability.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _options as options

SHOWN = 8  # rows of a table in the terminal; the file holds all
MOST = 40  # entries of an overlap that can still be read as a picture


def main(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Runs, folders that hold some, and lists of heads in any tool's format.",
            show_default="results",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", file_okay=False, help="Folder for atlas.nc.")
    ] = Path("atlas"),
    top: Annotated[int, typer.Option(help="How many heads at the top are compared.")] = 8,
    draws: Annotated[
        int, typer.Option(help="Pairs of samples of prompts for stability; 0 for none.")
    ] = 50,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    traceback: options.Traceback = False,
) -> None:
    """Many runs in one file: overlap of types, models and revisions, emergence, base against tuned,
    and stability.

    Writes atlas.nc, an xarray DataTree: /heads/<model>/<revision>/<type>, /overlap,
        /emergence/<model>/<type>,
    /changes/<base> to <tuned>/<type>, /roles/<model>/<revision>,
    /stability/<model>/<revision>/<type>; and pictures. Relative depth is the axis that models of
    any size share. A list of heads in any format that `nnheads convert` reads stands beside the
    runs of its model. Loads no model.
    """
    from nnheads.compare.entries import entries_of, entries_of_files
    from nnheads.errors import BadInput
    from nnheads.runs.find import RECORD, find_runs

    options.positive(top=top)
    if draws < 0:
        raise BadInput(f"--draws {draws} is not possible; it must be at least 0")
    given = runs or [options.RESULTS]
    lists = [path for path in given if path.is_file() and path.name != RECORD]
    places = [path for path in given if path not in lists]
    found, unfinished = find_runs(places) if places else ([], [])
    entries = entries_of(found) if found else []
    entries += entries_of_files(lists, entries)
    parts = gathered(entries, top, draws, seed)
    path = save(output / "atlas.nc", parts, about(found))
    pictures(output, parts)
    report(entries, parts, unfinished)
    for file in (path, *sorted(output.glob("*.png"))):
        options.say(options.shown(file))


def gathered(entries: list, top: int, draws: int, seed: int) -> dict:
    """Every part of the atlas: name -> what is in it, by place."""
    from nnheads.compare import atlas
    from nnheads.compare.entries import LIST
    from nnheads.compare.stability import stable

    found, refused = stable(entries, top=top, draws=draws, seed=seed)
    for name, reason in refused.items():
        options.say(f"{name}: no stability; {reason}")
    models: dict[tuple[str, str], list] = {(one.model, one.revision): [] for one in entries}
    for one in entries:
        models[one.model, one.revision].append(one)
    return {
        "heads": {(one.model, one.revision, one.type): one.heads for one in entries},
        "overlap": {(): atlas.overlap(entries, top)},
        "emergence": atlas.emergence(entries),
        "changes": compared(entries),
        "roles": {
            place: atlas.roles(own)
            for place, own in models.items()
            if place[1] != LIST and any("flag" in one.heads for one in own)
        },
        "stability": found,
    }


def compared(entries: list) -> dict:
    """Models of one shape against each other, type by type, each at its last revision; the first
    named is the base.
    """
    from nnheads.compare import atlas

    ordered = sorted(entries, key=lambda one: atlas.step_of(one.revision) or 0)
    last = {(one.model, one.type): one for one in ordered}
    found = {}
    for (model, kind), one in last.items():
        for (other, same), two in last.items():
            before = list(dict.fromkeys(each.model for each in entries))
            if (
                kind == same
                and before.index(model) < before.index(other)
                and one.shape == two.shape
            ):
                found[f"{model} to {other}", kind] = atlas.changes(one, two)
    return found


def about(runs: list) -> dict:
    """Who made the atlas, and of which runs."""
    import json
    from datetime import UTC, datetime

    from nnheads.runs.provenance import command, git_state, versions

    commit, dirty = git_state()
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    sources = [{"folder": run.shown, "command": run.record.get("command")} for run in runs]
    return {
        "title": "atlas of heads",
        "history": f"{now} {command()}",
        "packages": json.dumps(versions()),
        "git_commit": commit,
        "git_dirty": dirty,
        "runs": json.dumps(sources),
    }


def save(path: Path, parts: dict, attributes: dict) -> Path:
    """One netCDF file with a group for every place."""
    import xarray as xr

    from nnheads.compare.atlas import group_names
    from nnheads.runs import store

    places = [(part, *place) for part, each in parts.items() for place in each]
    datasets = [plain(dataset) for each in parts.values() for dataset in each.values()]
    tree = xr.DataTree.from_dict(dict(zip(group_names(places), datasets)))
    tree.attrs = {name: store.netcdf_value(value) for name, value in attributes.items()}
    return store.write(path, lambda target: tree.to_netcdf(target, engine="netcdf4"))


def plain(dataset):
    """Attributes as netCDF knows them."""
    from nnheads.runs.store import netcdf_value

    copy = dataset.copy()
    for each in (copy, *copy.variables.values()):
        each.attrs = {str(name): netcdf_value(value) for name, value in each.attrs.items()}
    return copy


def pictures(output: Path, parts: dict) -> None:
    """Overlap, depth, how heads come about, who does several things, and how many prompts a list
    needs.
    """
    from nnheads import plot
    from nnheads.compare.atlas import file_name, label
    from nnheads.runs import store

    drawn = side_by_side(parts) if 1 < len(parts["heads"]) <= MOST else {}
    for (model, kind), curves in parts["emergence"].items():
        score = curves["score"].assign_coords(
            revision=[label(str(one)) for one in curves["revision"].values]
        )
        name = f"emergence-{file_name(model)}-{file_name(kind)}"
        drawn[name] = plot.emergence(score, title=label(f"{kind} over revisions of {model}"))
    for (model, revision), own in parts["roles"].items():
        masks = {label(str(flag["type"].values)): flag.where(flag == 1) for flag in own["flag"]}
        name = f"roles-{file_name(model)}-{file_name(revision)}"
        drawn[name] = plot.types_map(masks, title=label(f"Flagged heads of {model} {revision}"))
        drawn |= found_again(parts["stability"], model, revision)
    for name, figure in drawn.items():
        store.write(output / f"{name}.png", partial(plot.render, figure))


def side_by_side(parts: dict) -> dict:
    """All scores on one picture: heads in common, and where in depth the strongest are."""
    from nnheads import plot
    from nnheads.compare.atlas import depth_map, label

    models = {place[:2] for place in parts["heads"]}
    title = label(f" of {' '.join(next(iter(models)))}") if len(models) == 1 else ""
    names = [label(" ".join(place[2:] if title else place)) for place in parts["heads"]]
    common = parts["overlap"][()]["jaccard_top"].assign_coords(entry=names, other=names)
    depth = depth_map(parts["heads"]).assign_coords(entry=names)
    return {
        "overlap": plot.heatmap(common, title=f"Heads in common{title}", signed=False),
        "depth": plot.heatmap(
            depth, title=f"Strongest head by relative depth{title}", signed=False
        ),
    }


def found_again(stability: dict, model: str, revision: str) -> dict:
    """A picture of how alike the lists of two samples are, type by type."""
    from nnheads import plot
    from nnheads.compare.atlas import file_name, label

    lines = {}
    for (own_model, own_revision, kind), own in stability.items():
        known = own["n"].size > 1 and bool(own["jaccard"].notnull().all())
        if (own_model, own_revision) == (model, revision) and known:
            about = own["jaccard"].assign_attrs(long_name="Jaccard of the lists of two samples")
            lines[label(f"{kind} (top {own.attrs['top']})")] = (
                about,
                own["jaccard_low"],
                own["jaccard_high"],
            )
    title = label(f"Lists of {model} {revision}, found again by other prompts")
    name = f"stability-{file_name(model)}-{file_name(revision)}"
    return {name: plot.curves(lines, title=title)} if lines else {}


def report(entries: list, parts: dict, unfinished: list[str]) -> None:
    """What was joined, what is alike, what changes, and how far lists can be trusted."""
    from nnheads.models.names import head_name

    models = list(dict.fromkeys((one.model, one.revision) for one in entries))
    options.say(f"{len(entries)} scores, {len(models)} models or revisions")
    for folder in unfinished:
        options.say(f"  left out, not finished: {folder}")
    alike(parts["overlap"][()])
    again(parts["overlap"][()])
    for (model, revision), own in parts["roles"].items():
        ranked = own["count"].to_series().sort_values(ascending=False, kind="stable")
        several = [f"{head_name(*head)} {count}" for head, count in ranked.items() if count > 1][
            :SHOWN
        ]
        options.say(f"heads with several roles, {model} {revision}: {', '.join(several) or 'none'}")
    for (model, kind), own in parts["emergence"].items():
        values = ", ".join(
            f"{one} {float(value):.2f}"
            for one, value in zip(own["revision"].values, own["strongest"])
        )
        options.say(f"{kind} of {model}, strongest head by revision: {values}")
    for (pair, kind), own in parts["changes"].items():
        largest = (
            abs(own["difference"]).to_series().idxmax()
            if own["difference"].notnull().any()
            else None
        )
        said = (
            ""
            if largest is None
            else (
                f"; most: {head_name(*largest)}"
                f" {float(own['difference'].sel(layer=largest[0], head=largest[1])):+.2f}"
            )
        )
        flagged = (
            f"{int(own['flag'].sum())} heads change" if "flag" in own else "no test: other prompts"
        )
        options.say(f"{kind}, {pair}: {flagged}{said}")
    trust(parts["stability"])


def alike(overlap) -> None:
    """The pairs that share the most heads beyond what random lists share."""
    beyond = (overlap["jaccard_top"] - overlap["jaccard_chance"]).values
    pairs = [
        (beyond[i, j], i, j)
        for i in range(len(beyond))
        for j in range(i)
        if beyond[i, j] == beyond[i, j] and beyond[i, j] > 0
    ]
    if pairs:
        options.say(
            f"most heads in common, of the top {overlap.attrs['top']} (Jaccard; Spearman over all"
            " heads):"
        )
    names = overlap["entry"].values
    for _, i, j in sorted(pairs, reverse=True)[:SHOWN]:
        shared, rank = float(overlap["jaccard_top"][i, j]), float(overlap["spearman"][i, j])
        options.say(f"  {shared:.2f}  {rank:+.2f}  {names[j]} | {names[i]}")


def again(overlap) -> None:
    """Models that were asked twice about the same: with another seed, other prompts or more of
    them.
    """
    facts = [
        tuple(str(overlap[name].values[i]) for name in ("model", "revision", "kind"))
        for i in range(overlap.sizes["entry"])
    ]
    names = overlap["entry"].values
    pairs = [(i, j) for j in range(len(facts)) for i in range(j) if facts[i] == facts[j]]
    for i, j in pairs:
        flagged, shared, rank = (
            float(overlap[name][i, j]) for name in ("jaccard_flagged", "jaccard_top", "spearman")
        )
        said = (
            f"Jaccard of flagged {flagged:.2f}, of the top {overlap.attrs['top']} {shared:.2f};"
            f" Spearman {rank:.2f}"
        )
        options.say(f"asked again: {names[i]} | {names[j]}: {said}")


def trust(found: dict) -> None:
    """How alike two samples are, and how many prompts the list needs."""
    if not found:
        return
    options.say("lists found again by other prompts:")
    for place, own in found.items():
        needed = {}
        for target in own["target"].values:
            value = float(own["needed_n"].sel(target=target))
            needed[target] = (
                f"{value:.0f}" if value == value else f"more than {int(own['n'].max())}"
            )
        said = ", ".join(
            f"Jaccard {target} needs {count} prompts" for target, count in needed.items()
        )
        value = float(own["reliability_all"])
        reliability = f"{value:.2f}" if value == value else "unknown"
        options.say(
            f"  {' '.join(place)}: top {own.attrs['top']}, {said}; rank correlation {reliability}"
        )
