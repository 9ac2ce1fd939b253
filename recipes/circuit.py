"""Is this set of heads the circuit?

Faithfulness, completeness, minimality, and the curve over circuit sizes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _options as options

from nnheads.errors import BadInput

REFERENCES = "Wang et al. 2022, arXiv 2211.00593; Mueller et al. 2025, arXiv 2504.13151"


def main(
    model: options.Model = "reference",
    heads: Annotated[
        str | None,
        typer.Option(help="The circuit: 9.9,9.6 or groups: 'movers: 9.9,9.6; inhibition: 7.3'."),
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Rank by another run: folder or heads.nc.")
    ] = None,
    statistic: Annotated[
        str, typer.Option(help="Which number of --from ranks the heads.")
    ] = "effect",
    top: Annotated[
        int, typer.Option(help="Without --heads: how many heads of the ranking are the circuit.")
    ] = 10,
    signed: Annotated[
        bool,
        typer.Option("--signed", help="Rank by how much heads help, not by how much they matter."),
    ] = False,
    prompts: Annotated[Path | None, typer.Option(help="Pairs of your own: .jsonl or .csv.")] = None,
    mean_set: Annotated[
        Path | None,
        typer.Option(
            help="Pairs whose clean prompts means are over; default: the others of --prompts."
        ),
    ] = None,
    ablation: Annotated[
        str,
        typer.Option(help="What removed heads say: mean, zero, uniform, resample or corrupted."),
    ] = "mean",
    subsets: Annotated[int, typer.Option(min=0, help="Random subsets of the circuit to cut.")] = 50,
    greedy: Annotated[int, typer.Option(min=0, help="Heads that a greedy search cuts.")] = 3,
    limit: options.Limit = 40,
    batch_size: options.BatchSize = 50,
    seed: options.Seed = 0,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    device_map: options.DeviceMap = None,
    remote: options.Remote = None,
    submit: options.Submit = False,
    output: options.Output = options.RESULTS,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    traceback: options.Traceback = False,
) -> None:
    """Is this set of heads the circuit?

    All heads outside it are ablated, to their mean over sentences with three fresh names (prompts
    of your own: over the others of them, or --mean-set), for each template, length and position;
        feed-forward parts stay. Without --heads
    or --from, heads are ranked by ablating one at a time in other sentences. They rank by how much
    they matter, so a circuit may hold heads that argue against the answer, as published ones do;
    --signed puts these last. Writes scores.nc (per case), circuit.nc, heads.nc (layer, head),
    curve.png and curve_log.png.
    """
    arguments = dict(locals())
    from nnheads.patching.circuit import REMOVALS, check_groups, every_head
    from nnheads.runs.folder import Run
    from nnheads.runs.provenance import model_identity, prompts_hash

    options.positive(limit=limit, batch_size=batch_size, top=top)
    if ablation not in REMOVALS:
        raise BadInput(f"--ablation {ablation!r} is not known; use one of {', '.join(REMOVALS)}")
    if mean_set is not None and ablation not in ("mean", "resample"):
        raise BadInput(f"--mean-set is for mean and resample ablation, not for {ablation}")
    if mean_set is not None and prompts is None:
        raise BadInput(
            "--mean-set goes with --prompts; our own sentences have theirs, with three fresh names"
        )
    groups = None if heads is None else parse_groups(heads)
    given = None if from_ is None else read_ranking(from_, statistic)
    where = options.remote_of(remote)
    loaded = options.load(model, revision, dtype, device_map, where, quantization)
    everything = every_head(loaded)
    if groups is not None:
        check_groups(groups, everything)
    if given is not None:
        given = of_model(given, everything, from_)
    sets = prompt_sets(loaded.tokenizer, prompts, mean_set, limit, seed)
    check_others(sets, ablation)
    identity = model_identity(loaded, model)
    facts = {**arguments, "model": identity["model"], "weights": identity["commit"]}
    facts |= {f"{name}_sha256": prompts_hash(one) for name, one in sets.items() if one is not None}
    run = Run(output, "circuit", model, identity["revision"], facts, overwrite=overwrite)
    run.jobs_of(loaded)
    if not run.complete:
        compute(run, loaded, sets, groups, given, facts, model, batch_size, quiet)
    report(run)


def parse_groups(text: str) -> dict[str, list[tuple[int, int]]]:
    """`9.9,9.6` or `movers: 9.9,9.6; inhibition: 7.3` -> name -> heads."""
    from nnheads.models.names import parse_head

    groups: dict[str, list[tuple[int, int]]] = {}
    pieces = [piece for piece in text.split(";") if piece.strip()]
    for number, piece in enumerate(pieces, 1):
        name, _, listed = piece.rpartition(":")
        name = name.strip() or ("circuit" if len(pieces) == 1 else f"group {number}")
        if name in groups:
            raise BadInput(f"--heads names the group {name!r} twice")
        groups[name] = [parse_head(head) for head in listed.split(",") if head.strip()]
        if not groups[name]:
            raise BadInput(
                f"--heads: the group {name!r} is empty; write 'name: 9.9,9.6; other: 7.3'"
            )
    if not groups:
        raise BadInput("--heads names no head; a circuit needs at least one, as 9.9,9.6")
    return groups


def read_ranking(path: Path, statistic: str):
    """A statistic (layer, head) of another run."""
    from nnheads.runs import store

    scores = store.load(path / "heads.nc" if path.is_dir() else path)
    known = [str(name) for name in scores.data_vars if set(scores[name].dims) == {"layer", "head"}]
    if statistic not in known:
        raise BadInput(
            f"{path} has no statistic {statistic!r} of heads; it has {', '.join(known) or 'none'}"
        )
    found = scores[statistic].transpose("layer", "head")
    if not bool(found.notnull().any()):
        raise BadInput(
            f"{path}: {statistic} has no value for any head, so heads cannot be ranked by it"
        )
    return found


def of_model(values, everything, path):
    """Values for every head of the model; NaN where the other run has none."""
    layers, heads = (max(part) + 1 for part in zip(*everything))
    if int(values["layer"].max()) >= layers or values.sizes["head"] != heads:
        raise BadInput(
            f"{path} ranks heads up to layer {int(values['layer'].max())}, {values.sizes['head']} a"
            f" layer; this model has layers 0 to {layers - 1} of {heads}: rank by a run of the same"
            " model"
        )
    return values.reindex(layer=range(layers))


def prompt_sets(tokenizer, path: Path | None, mean_set: Path | None, limit: int, seed: int) -> dict:
    """The prompts to judge by, others to rank heads by, and those that means come from (None: the
    prompts).
    """
    from nnheads.prompts.ioi import ioi
    from nnheads.prompts.pairs import read_pairs, tokenize

    if path is None:
        judged, ranked = ioi(tokenizer, limit, seed=seed), ioi(tokenizer, limit, seed=seed + 1)
        fresh = ioi(tokenizer, max(limit, 100), seed=seed + 2, corruption="abc")
        reference = fresh.assign(token=fresh["corrupted"])
    else:
        judged = ranked = tokenize(tokenizer, read_pairs(path)[:limit])
        reference = None
    if mean_set is not None:
        reference = tokenize(tokenizer, read_pairs(mean_set))
    return {"prompts": judged, "ranked_on": ranked, "mean_set": reference}


def check_others(sets: dict, ablation: str) -> None:
    """Refuse prompts that would get their own values back for want of others."""
    from nnheads.patching.behaviours import with_others

    if ablation not in ("mean", "resample"):
        return
    prompts = sets["prompts"]
    alone = ~with_others(prompts, prompts if sets["mean_set"] is None else sets["mean_set"])
    if alone.any():
        where = "them" if sets["mean_set"] is None else "the mean set"
        raise BadInput(
            f"{alone.sum()} of {len(alone)} prompts have no other of their template and length in"
            f" {where}, so there is nothing to put in for a head; give such with --mean-set, or"
            " --ablation corrupted, zero or uniform"
        )


def compute(
    run, model, sets: dict, groups, given, facts: dict, name: str, batch_size: int, quiet: bool
) -> None:
    """Rank, judge, save; what is measured is kept in the run's folder, set by set."""
    from nnheads.patching.circuit import every_head, removal
    from nnheads.patching.circuit_runs import study
    from nnheads.patching.faithfulness import judge, knocked_out, order
    from nnheads.runs.provenance import provenance

    keep = {"ablation": facts["ablation"], "reference": sets["mean_set"], "seed": facts["seed"]}
    keep |= {"batch_size": batch_size, "parts": run.parts, "quiet": quiet}
    everything = every_head(model)
    if given is None:
        ranking = knocked_out(
            removal(model, sets["ranked_on"], title="heads", **keep), everything, seed=facts["seed"]
        )
    else:
        ranking = given.astype("float32").to_dataset(name="ranking")
    ordered = order(ranking["ranking"], signed=facts["signed"])
    chosen, helpers = (
        ordered[: facts["top"]],
        order(ranking["ranking"], signed=True)[: facts["top"]],
    )
    scores = study(
        removal(model, sets["prompts"], title="circuits", **keep),
        everything,
        groups or {"circuit": chosen},
        ordered,
        subsets=facts["subsets"],
        steps=facts["greedy"],
        seed=facts["seed"],
        helpers=() if groups or set(helpers) == set(chosen) else helpers,
    )
    about = provenance(
        title="circuit: faithfulness, completeness, minimality",
        model=model,
        name=name,
        prompts=sets["prompts"],
        arguments=facts,
        references=REFERENCES,
    )
    batch = {
        key: value for key, value in sets["prompts"].coords.items() if value.dims == ("batch",)
    }
    scores = scores.assign_coords(batch).assign_attrs(
        **about, cases=scores.sizes["batch"], ablation=facts["ablation"]
    )
    found = judge(scores, seed=facts["seed"])
    heads = by_head(found, ranking).assign_attrs(scores.attrs)
    run.save(scores=scores, circuit=found, heads=heads)
    draw(run, found)
    run.finish(circuit=scores.attrs["circuit"], cases=scores.sizes["batch"])


def by_head(found, ranking):
    """What is known of each head: what it was ranked by, whether it is in the circuit, and its
    minimality there.
    """
    import numpy as np
    import xarray as xr

    heads = ranking.copy()
    shape = dict(heads["ranking"].sizes)
    place = (found["member_layer"].values, found["member_head"].values)
    inside = np.zeros(tuple(shape.values()), np.int8)
    inside[place] = 1
    heads["in_circuit"] = (
        tuple(shape),
        inside,
        {"long_name": "1 where the head is in the circuit", "units": "1"},
    )
    for name in ("minimality", "minimality_low", "minimality_high"):
        values = np.full(inside.shape, np.nan, np.float32)
        values[place] = found[name].values
        heads[name] = xr.DataArray(values, dims=tuple(shape), attrs=found[name].attrs)
    return heads


def draw(run, found) -> None:
    """The curve, over the share of heads and over its logarithm, with the circuit as a point of its
    own.
    """
    from nnheads import plot

    share = found["size"].assign_attrs(
        long_name="share of the model's heads, in the order of the ranking"
    )
    curve = tuple(
        found[name].assign_coords(size=share) for name in ("curve", "curve_low", "curve_high")
    )
    inside = len(str(found.attrs["circuit"]).split())
    points = {
        f"the circuit, {inside} heads": (
            inside / int(found.attrs["heads_of_model"]),
            float(found["recovered"]),
        )
    }
    for name, suffix in (("curve", ""), ("curve_log", "_log")):
        area = f"CPR {float(found[f'cpr{suffix}']):.3f}, CMD {float(found[f'cmd{suffix}']):.3f}"
        figure = plot.curves(
            {"first heads of the ranking": curve},
            title=f"Faithfulness of circuits by size: {area}",
            points=points,
            log=bool(suffix),
            note=plot.note(found, int(found.attrs["cases"])),
        )
        run.picture(name, figure)


def opponents(heads) -> list[str]:
    """The circuit's heads without which more is left of the answer, beyond chance where that is
    known.
    """
    from nnheads.models.names import head_name

    below = (heads["in_circuit"] == 1) & (heads.get("ranking_high", heads["ranking"]) < 0)
    return [
        head_name(int(layer), int(head))
        for layer, head in zip(*below.transpose("layer", "head").values.nonzero())
    ]


def report(run) -> None:
    """F of the model, the circuit and no head; what is missing; each head's part; and where the
    files are.
    """
    from nnheads import stats
    from nnheads.models.names import head_name

    found, heads = run.load("circuit"), run.load("heads")

    def value(name: str, **place) -> str:
        return options.with_interval(found.isel(place), name)

    inside = len(str(found.attrs["circuit"]).split())
    options.say(
        f"circuit: {inside} of {found.attrs['heads_of_model']} heads, {found.attrs['cases']}"
        " prompts"
    )
    options.say(
        f"mean logit difference: model {value('model')}, circuit {value('circuit')}, no head"
        f" {value('empty')}"
    )
    options.say(f"faithfulness F(C)/F(M): {value('faithfulness')}; |F(M) - F(C)|: {value('gap')}")
    against = opponents(heads)
    if against:
        options.say(f"  against the answer, by the ranking: {', '.join(against)}")
    if "helpers" in found:
        options.say(f"  the {inside} heads that help most (--signed): {value('helpers')}")
    random = found["random"]
    options.say(
        f"  random circuits of {inside} heads: mean {float(random.mean()):.3f}, highest"
        f" {float(random.max()):.3f} ({random.size} draws)"
    )
    worst = int(found["incompleteness"].values.argmax())
    options.say(
        f"completeness, worst of {found.sizes['cut']} subsets K:"
        f" {value('incompleteness', cut=worst)}"
    )
    options.say(f"  K = {found['cut_heads'].values[worst]} ({found['cut_kind'].values[worst]})")
    best = stats.top_heads(heads, "minimality", inside)
    if best[0]["low"] == best[0]["low"]:
        options.say_heads("minimality of each head, relative to F(M) [95% interval]:", best)
    else:
        options.say("minimality of each head, relative to F(M) [no interval: one prompt]:")
        for one in best:
            options.say(f"  {head_name(one['layer'], one['head']):<7} {one['value']:+.3f}")
    options.say(f"curve over the share of heads: CPR {value('cpr')}, CMD {value('cmd')}")
    options.say(f"  over its logarithm: CPR {value('cpr_log')}, CMD {value('cmd_log')}")
    for name in ("scores.nc", "circuit.nc", "heads.nc", "curve.png", "curve_log.png"):
        options.say(options.shown(run.folder / name))
