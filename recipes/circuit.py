"""Is this set of heads the circuit? Faithfulness, completeness, minimality, a curve of sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes._circuit import check, check_others, groups_in, prompt_sets, ranking_of
from nnheads.recipes._circuit_report import draw, report
from nnheads.recipes._study import Study, study

REFERENCES = "Wang et al. 2022, arXiv 2211.00593; Mueller et al. 2025, arXiv 2504.13151"

Heads = Annotated[
    str | None,
    typer.Option(help="The circuit: 9.9,9.6 or groups: 'movers: 9.9,9.6; inhibition: 7.3'."),
]
From = Annotated[
    Path | None, typer.Option("--from", help="Rank by another run: folder or heads.nc.")
]
Statistic = Annotated[str, typer.Option(help="Which number of --from ranks the heads.")]
Top = Annotated[
    int, typer.Option(help="Without --heads: how many heads of the ranking are the circuit.")
]
Signed = Annotated[
    bool,
    typer.Option("--signed", help="Rank by how much heads help, not by how much they matter."),
]
PairsFile = Annotated[Path | None, typer.Option(help="Pairs of your own: .jsonl or .csv.")]
MeanSet = Annotated[
    Path | None,
    typer.Option(
        help="Pairs whose clean prompts means are over; default: the others of --prompts."
    ),
]
Ablation = Annotated[
    str,
    typer.Option(help="What removed heads say: mean, zero, uniform, resample or corrupted."),
]
Subsets = Annotated[int, typer.Option(min=0, help="Random subsets of the circuit to cut.")]
Greedy = Annotated[int, typer.Option(min=0, help="Heads that a greedy search cuts.")]


@study(limit=24, batch_size=50, quick={"limit": 4, "top": 6, "subsets": 2, "greedy": 1})
def main(
    study: Study,
    heads: Heads = None,
    from_: From = None,
    statistic: Statistic = "effect",
    top: Top = 10,
    signed: Signed = False,
    prompts: PairsFile = None,
    mean_set: MeanSet = None,
    ablation: Ablation = "mean",
    subsets: Subsets = 50,
    greedy: Greedy = 3,
) -> None:
    """Is this set of heads the circuit?

    All heads outside it are ablated, to their mean over sentences with three fresh names (prompts
    of your own: over the others of them, or --mean-set), for each template, length and position;
    MLPs stay. Without --heads or --from, heads are ranked by ablating one at a time in other
    sentences. They rank by how much they matter, so a circuit may hold heads that argue against the
    answer, as published ones do; --signed puts these last. Writes scores.nc (per case), circuit.nc,
    heads.nc (layer, head), curve.png and curve_log.png.
    """
    from nnheads.patching.circuit import check_groups, every_head
    from nnheads.runs.provenance import prompts_hash

    check(study)
    groups = None if heads is None else groups_in(heads)
    ranking = ranking_of(study)
    if groups is not None:
        check_groups(groups, every_head(study.model))
    sets = prompt_sets(study)
    check_others(sets, ablation)
    hashes = {f"{name}_sha256": prompts_hash(one) for name, one in sets.items() if one is not None}
    run = study.open(**hashes)
    if not run.complete:
        compute(study, run, sets, groups, ranking)
    report(run)


def compute(study: Study, run, sets: dict, groups: dict | None, ranking) -> None:
    """Rank, judge, save; what is measured is kept in the run's folder, set by set."""
    from nnheads.patching import faithfulness

    heads = ranked(study, run, sets) if ranking is None else ranking
    scores = judged(study, run, sets, groups, heads["ranking"])
    about = run.about(
        title="circuit: faithfulness, completeness, minimality",
        prompts=sets["prompts"],
        references=REFERENCES,
    )
    coordinates = sets["prompts"].coords.items()
    scores = scores.assign_coords(
        {name: values for name, values in coordinates if values.dims == ("batch",)}
    )
    form = sets["prompts"].attrs.get("word_form", "")
    cases = scores.sizes["batch"]
    scores = scores.assign_attrs(**about, cases=cases, ablation=study.ablation, word_form=form)
    circuit = faithfulness.judge(scores, seed=study.seed)
    table = by_head(circuit, heads).assign_attrs(scores.attrs)
    run.save(scores=scores, circuit=circuit, heads=table)
    draw(run, circuit)
    run.finish(circuit=scores.attrs["circuit"], cases=scores.sizes["batch"])


def remove_from(study: Study, run, sets: dict, name: str, title: str):
    """Return the function that measures one set of prompts without sets of heads."""
    from nnheads.patching.circuit import removal

    return removal(
        run.model,
        sets[name],
        title=title,
        ablation=study.ablation,
        reference=sets["mean_set"],
        seed=study.seed,
        batch_size=study.batch_size,
        parts=run.parts,
        quiet=study.quiet,
    )


def ranked(study: Study, run, sets: dict):
    """Return by how much each head is missed, alone, in the prompts to rank by (layer, head)."""
    from nnheads.patching import faithfulness
    from nnheads.patching.circuit import every_head

    remove = remove_from(study, run, sets, "ranked_on", "heads")
    return faithfulness.knocked_out(remove, every_head(run.model), seed=study.seed)


def judged(study: Study, run, sets: dict, groups: dict | None, ranking):
    """Return the measurements that judge the circuit: that of `--heads`, or the top of the ranking.

    The heads that help most are another circuit to compare with, where they are others.
    """
    from nnheads.patching import circuit_runs, faithfulness
    from nnheads.patching.circuit import every_head

    order = faithfulness.order(ranking, signed=study.signed)
    top, helpers = order[: study.top], faithfulness.order(ranking, signed=True)[: study.top]
    return circuit_runs.study(
        remove_from(study, run, sets, "prompts", "circuits"),
        every_head(run.model),
        groups or {"circuit": top},
        order,
        subsets=study.subsets,
        steps=study.greedy,
        seed=study.seed,
        helpers=() if groups or set(helpers) == set(top) else helpers,
    )


def by_head(circuit, ranking):
    """Return what is known of each head (layer, head): rank, membership, and minimality there."""
    import numpy as np
    import xarray as xr

    heads = ranking.copy()
    shape = dict(heads["ranking"].sizes)
    members = (circuit["member_layer"].values, circuit["member_head"].values)
    inside = np.zeros(tuple(shape.values()), np.int8)
    inside[members] = 1
    about = {"long_name": "1 where the head is in the circuit", "units": "1"}
    heads["in_circuit"] = (tuple(shape), inside, about)
    for name in ("minimality", "minimality_low", "minimality_high"):
        values = np.full(inside.shape, np.nan, np.float32)
        values[members] = circuit[name].values
        heads[name] = xr.DataArray(values, dims=tuple(shape), attrs=circuit[name].attrs)
    return heads
