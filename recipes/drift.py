"""Do head scores survive fewer bits, another attention, or a server?

The same prompts, scored in two settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from nnheads.recipes import _drift_report
from nnheads.recipes._remote_option import NDIF
from nnheads.recipes._study import Study, study

from nnheads.errors import BadInput

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.runs.folder import Run

MEANINGS = {
    "score": "statistic that ranks the heads of the type, first side",
    "against": "statistic that ranks the heads of the type, second side",
    "difference": "change of that statistic, second side minus first",
}
TYPES = "induction,previous_token,duplicate_token,attention_sink,indirect_object,retrieval"

Types = Annotated[str, typer.Option(help="Head types (see `nnheads heads`), or all.")]
Against = Annotated[
    str, typer.Option(help="float32, bfloat16, float16, eager, sdpa, 4bit, 8bit, or remote.")
]
Top = Annotated[int, typer.Option(help="How many heads at the top to compare.")]


@study(limit=16, batch_size=8, dtype="float32", quick={"limit": 4})
def main(study: Study, types: Types = TYPES, against: Against = "bfloat16", top: Top = 10) -> None:
    """Do head scores survive fewer bits, another attention, or a server? The same prompts, scored
    in two settings.

    One side is as `--dtype` says, the other is the same but for what `--against` names; one is in
    memory at a time. With `--against remote`, `--remote` says which server scores the other side.
    Writes drift.nc (type, layer, head) and drift.png: rank correlation of all heads, most of which
    noise may rank, and of those flagged; heads at the top in common, largest change, flags that
    come and go.
    """
    from nnheads.compare.settings import settings

    named = study.changed(types=names_of(types))
    sides = settings(study.dtype, study.quantization, against, study.remote)
    run, first, about = first_side(named, sides[0])
    if not run.complete:
        second, other = second_side(run, named, sides[1], about)
        finish(run, first, second, {**about, "source_against": json.dumps(other)})
    _drift_report.report(run)


def names_of(types: str) -> list[str]:
    """Return head types by the names that nnheads gives them."""
    from nnheads.detectors import _catalog as catalog

    if types == "all":
        return list(catalog.types())
    return list(dict.fromkeys(catalog.canonical(name) for name in types.split(",")))


def side_of(study: Study, setting: dict[str, Any]) -> tuple[Study, list]:
    """Return the study with the model of one side, and its prompts."""
    from nnheads.detectors._stimulus import prepare

    side = study.changed(**setting)
    return side, prepare(side.model, study.types, n=study.limit, seed=study.seed)


def measured(side: Study, stimuli: list, parts: Path) -> dict[str, xr.Dataset]:
    """Return type -> scores; each side has a folder of its own for finished batches, which do not
    say who made them.
    """
    from nnheads.detectors._scores import measure_all

    return measure_all(
        side.model, stimuli, batch_size=side.batch_size, quiet=side.quiet, parts=parts
    )


def first_side(
    study: Study, setting: dict[str, Any]
) -> tuple[Run, dict[str, xr.Dataset], dict[str, Any]]:
    """Open the run and score the side of the options, unless all is there: run, scores, and who
    made them. The model is let go.
    """
    from nnheads.compare.drift import check_top
    from nnheads.models.geometry import geometry
    from nnheads.runs.provenance import prompts_hash

    side, stimuli = side_of(study, setting)
    sizes = geometry(side.model)
    check_top(study.top, sizes.layers * sizes.heads)
    hashes = {stimulus.key: prompts_hash(stimulus.prompts) for stimulus in stimuli}
    facts = side.facts(without=("attention",), prompts=hashes, remote=study.remote)
    run = side.open_as(facts, f"{study.quantization or study.dtype}-{study.against}")
    if run.complete:
        return run, {}, {}
    about = run.about(title="drift of head scores", prompts=json.dumps(hashes), references="")
    scores = measured(side, stimuli, run.parts / "first")
    run.model = None
    return run, scores, about


def second_side(
    run: Run, study: Study, setting: dict[str, Any], about: dict[str, Any]
) -> tuple[dict[str, xr.Dataset], dict[str, str]]:
    """Score the other side, once the first model is gone: scores and identity."""
    from nnheads.compare.settings import computed_in

    make_room()
    side, stimuli = side_of(study, setting)
    there = setting["remote"]
    if side.identity == json.loads(about["source"]) and not there:
        raise BadInput(
            f"both sides are {_drift_report.said(side.identity)}; name another with --against"
        )
    run.work_with(side.model, study.name)
    scores = measured(side, stimuli, run.parts)
    if not there:
        return scores, side.identity
    server = "NDIF" if there == NDIF else there
    return scores, {
        **side.identity,
        "dtype": computed_in(side.model, stimuli[0].prompts),
        "attention": f"{side.identity['attention']} at {server}",
    }


def make_room() -> None:
    """Give back the memory of a model that nothing holds any more."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def finish(
    run: Run, first: dict[str, xr.Dataset], second: dict[str, xr.Dataset], about: dict[str, Any]
) -> None:
    """Compare, save, draw."""
    import xarray as xr

    from nnheads.compare.drift import compare

    facts = run.facts
    each = [
        compare(first[kind], second[kind], top=facts["top"], seed=facts["seed"]) for kind in first
    ]
    axis = xr.Variable("type", list(first))
    table = named(xr.concat(each, axis, combine_attrs="drop_conflicts")).assign_attrs(about)
    run.save(drift=table)
    draw(run, table)
    run.finish()


def named(table: xr.Dataset) -> xr.Dataset:
    """Return the table with what its scores are, where its types have no statistic in common."""
    for name, text in MEANINGS.items():
        about = {"long_name": text, "units": "as the type's statistic"}
        table[name].attrs = {**about, **table[name].attrs}
    return table


def draw(run: Run, table: xr.Dataset) -> None:
    """Draw how far the score of each head moves at most."""
    from nnheads import plot

    largest = abs(table["difference"]).max("type")
    largest.attrs = {"long_name": "largest change of score, any type", "units": "1"}
    one, other = _drift_report.sides_of(table)
    figure = plot.heatmap(
        largest,
        title=f"Drift: {one}\nagainst {other}",
        signed=False,
        robust=True,
        note=plot.note(table, run.facts["limit"]),
    )
    run.picture("drift", figure)
