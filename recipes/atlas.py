"""Many runs in one file: overlap, emergence, base against tuned, and stability of heads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from nnheads.recipes import _atlas, _atlas_pictures
from nnheads.recipes._checks import check_at_least
from nnheads.recipes._options import RESULTS, Quiet, Seed, Traceback
from nnheads.recipes._terminal import say, shown

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.compare.entries import Entry

Runs = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Runs, folders that hold some, and lists of heads in any tool's format.",
        show_default="results",
    ),
]
Folder = Annotated[
    Path, typer.Option("--output", "-o", file_okay=False, help="Folder for atlas.nc.")
]
Top = Annotated[int, typer.Option(help="How many heads at the top are compared.")]
Draws = Annotated[int, typer.Option(help="Pairs of samples of prompts for stability; 0 for none.")]


def main(
    runs: Runs = None,
    output: Folder = Path("atlas"),
    top: Top = 8,
    draws: Draws = 50,
    seed: Seed = 0,
    quiet: Quiet = False,
    traceback: Traceback = False,
) -> None:
    """Many runs in one file: overlap of types, models and revisions, emergence, base against tuned,
    and stability.

    Writes atlas.nc, an xarray DataTree: /heads/<model>/<revision>/<type>, /overlap,
    /emergence/<model>/<type>, /changes/<base> to <tuned>/<type>, /roles/<model>/<revision>,
    /stability/<model>/<revision>/<type>; and pictures. Relative depth is the axis that models of
    any size share. A list of heads in any format that `nnheads convert` reads stands beside the
    runs of its model. Loads no model.
    """
    check_draws(top, draws)
    entries, found, unfinished = entries_in(runs or [RESULTS])
    parts = gathered(entries, top, draws, seed)
    path = save(output / "atlas.nc", parts, about(found))
    _atlas_pictures.save(output, parts)
    _atlas.report(entries, parts, unfinished)
    for file in (path, *sorted(output.glob("*.png"))):
        say(shown(file))


def check_draws(top: int, draws: int) -> None:
    """Refuse counts that are none."""
    check_at_least(1, top=top)
    check_at_least(0, draws=draws)


def entries_in(paths: list[Path]) -> tuple[list[Entry], list, list[str]]:
    """Return every score in runs and lists, the runs that were found, and those left unfinished."""
    from nnheads.compare.entries import entries_of, entries_of_files
    from nnheads.runs.find import find_runs
    from nnheads.runs.record import RECORD

    lists = [path for path in paths if path.is_file() and path.name != RECORD]
    folders = [path for path in paths if path not in lists]
    found, unfinished = find_runs(folders) if folders else ([], [])
    entries = entries_of(found) if found else []
    return entries + entries_of_files(lists, entries), found, unfinished


def gathered(entries: list[Entry], top: int, draws: int, seed: int) -> dict[str, dict]:
    """Return every part of the atlas: name -> what is in it, by where it stands."""
    from nnheads.compare.emergence import emergence
    from nnheads.compare.overlap import overlap
    from nnheads.compare.stability import stable

    found, refused = stable(entries, top=top, draws=draws, seed=seed)
    for name, reason in refused.items():
        say(f"{name}: no stability; {reason}")
    return {
        "heads": {(one.model, one.revision, one.type): one.heads for one in entries},
        "overlap": {(): overlap(entries, top)},
        "emergence": emergence(entries),
        "changes": compared(entries),
        "roles": roles_of(entries),
        "stability": found,
    }


def roles_of(entries: list[Entry]) -> dict[tuple[str, str], xr.Dataset]:
    """Return what each head does, for every model and revision whose heads are flagged."""
    from nnheads.compare import atlas
    from nnheads.compare.entries import LIST

    models: dict[tuple[str, str], list[Entry]] = {}
    for one in entries:
        models.setdefault((one.model, one.revision), []).append(one)
    return {
        (model, revision): atlas.roles(group)
        for (model, revision), group in models.items()
        if revision != LIST and any("flag" in one.heads for one in group)
    }


def compared(entries: list[Entry]) -> dict[tuple[str, str], xr.Dataset]:
    """Compare models of one shape with each other, type by type, each at its last revision; the
    first named is the base.
    """
    from nnheads.compare import atlas
    from nnheads.compare.emergence import step_of

    ordered = sorted(entries, key=lambda one: step_of(one.revision) or 0)
    last = {(one.model, one.type): one for one in ordered}
    order = list(dict.fromkeys(one.model for one in entries))
    found = {}
    for base in last.values():
        for tuned in last.values():
            named_first = order.index(base.model) < order.index(tuned.model)
            if base.type == tuned.type and named_first and base.shape == tuned.shape:
                pair = f"{base.model} to {tuned.model}"
                found[pair, base.type] = atlas.changes(base, tuned)
    return found


def about(runs: list) -> dict[str, Any]:
    """Return who made the atlas, and of which runs."""
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


def save(path: Path, parts: dict[str, dict], attributes: dict) -> Path:
    """Write one netCDF file with a group for every part."""
    import xarray as xr

    from nnheads.compare.group_names import group_names
    from nnheads.runs import store

    groups = [(part, *keys) for part, each in parts.items() for keys in each]
    datasets = [plain(dataset) for each in parts.values() for dataset in each.values()]
    tree = xr.DataTree.from_dict(dict(zip(group_names(groups), datasets)))
    tree.attrs = {name: store.netcdf_value(value) for name, value in attributes.items()}
    return store.write(path, lambda target: tree.to_netcdf(target, engine="netcdf4"))


def plain(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with attributes as netCDF knows them, of its coordinates too."""
    from nnheads.runs.coordinates import labelled
    from nnheads.runs.store import netcdf_value

    copy = labelled(dataset)
    described: list[Any] = [copy, *copy.variables.values()]
    for each in described:
        each.attrs = {str(name): netcdf_value(value) for name, value in each.attrs.items()}
    return copy
