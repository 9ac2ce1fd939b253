"""Resolve the options of `nnheads knockout`: the list of heads, and the prompts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from nnheads.recipes._checks import check_at_least, check_choice
from nnheads.recipes._study import Study

from nnheads.errors import BadInput, RunError

# heads taken from a ranking without flags: those whose interval is above zero, at most so many
CLEAR = 10
# added to the seed of prompts, so that no head is tested on the prompts that it was found on
APART = 1_000_000
DETECTION_PROMPTS = 32
ALONE = "without another of their length, whose mean would be themselves"

Head = tuple[int, int]


def few(arguments: dict) -> int:
    """Return how many prompts a quick answer has time for: --backup tries every head, twice."""
    return 2 if arguments["backup"] else 6


def short(arguments: dict) -> int | None:
    """Return how many tokens are repeated where every head is tried in a quick answer."""
    return 16 if arguments["backup"] and arguments["behaviour"] == "induction" else None


QUICK = {"limit": few, "length": short, "draws": 4, "top": 4}


@dataclass(frozen=True)
class HeadList:
    """Heads, strongest first, and where the list is from; None: a detector is yet to find them."""

    heads: list[Head] | None
    origin: str


def check(study: Study) -> None:
    """Refuse options that do not go together, before anything is loaded."""
    from nnheads.patching.ablation_values import ABLATIONS
    from nnheads.patching.behaviours import BEHAVIOURS
    from nnheads.patching.metrics import metric_of

    check_choice("--behaviour", study.behaviour, BEHAVIOURS)
    check_choice("--ablation", study.ablation, ABLATIONS)
    if study.heads is not None and study.from_ is not None:
        raise BadInput("--heads and --from exclude each other; the list comes from one of them")
    if study.statistic is not None and study.from_ is None:
        raise BadInput("--statistic needs --from, a run that ranks heads")
    if study.top is not None and study.heads is not None:
        raise BadInput("--top cuts a ranking, and --heads names the heads; use one of them")
    check_at_least(0, draws=study.draws)
    check_at_least(1, length=study.length)
    metric_of(metric_name(study))


def metric_name(study: Study) -> str:
    """Return the metric of `--metric`, or that of the behaviour."""
    from nnheads.patching.behaviours import BEHAVIOURS

    return study.metric or BEHAVIOURS[study.behaviour].metric


def counts_in(text: str) -> list[int]:
    """Return the numbers of `0,1,2,5`, in order."""
    pieces = [piece.strip() for piece in text.split(",")]
    if not all(piece.isascii() and piece.isdigit() and len(piece) < 7 for piece in pieces):
        raise BadInput(f"--ks {text!r} is no list of numbers; write 0,1,2,5")
    return sorted({int(piece) for piece in pieces})


def names_of(heads: list[Head]) -> list[str]:
    """Return the heads as they are printed: L9H6."""
    from nnheads.models.names import head_name

    return [head_name(*head) for head in heads]


def check_list(study: Study, heads: list[Head], counts: list[int] | None) -> None:
    """Refuse counts beyond the list, and heads that the model does not have."""
    from nnheads.patching.knockout import chosen_lists, counts_of

    counts_of(counts, len(heads))
    chosen_lists(study.model, heads, counts, study.draws, study.seed)


def head_list(study: Study) -> HeadList:
    """Return the list of `--heads` or `--from`, or what a detector is to find."""
    from nnheads.models.names import parse_head
    from nnheads.patching.behaviours import BEHAVIOURS

    if study.heads is not None:
        return HeadList([parse_head(piece) for piece in study.heads.split(",")], "named")
    if study.from_ is not None:
        return ranked_in(study.from_, study.top, study.statistic)
    head_type = BEHAVIOURS[study.behaviour].head_type
    if head_type is None:
        raise BadInput(
            f"no detector finds the heads of behaviour {study.behaviour}; name them with --heads,"
            " or with --from and a run that ranks them, such as one of nnheads ioi"
        )
    return HeadList(None, f"flagged by detect {head_type}")


def ranked_in(source: Path, top: int | None, statistic: str | None) -> HeadList:
    """Return the heads of a run or a file: the first `top`, or those that are beyond chance."""
    path = source / "heads.nc" if source.is_dir() else source
    table, name, ranked = read_ranking(path, statistic)
    title, model = table.attrs.get("title", path.name), table.attrs.get("model", "?")
    origin = f"ranked by {name} in {title!r} of {model}"
    if top is None:
        ranked = beyond_chance(table, name, ranked)
        if not ranked:
            raise BadInput(f"no head of {path} is beyond chance; say with --top how many to take")
    elif top > len(ranked):
        raise BadInput(f"--top {top} is more than the {len(ranked)} heads that {path} ranks")
    return HeadList(ranked[:top], origin)


def read_ranking(path: Path, statistic: str | None) -> tuple:
    """Return the table of a file (layer, head), what it is ranked by, and its heads in order."""
    from nnheads.interchange.read import read_heads
    from nnheads.interchange.table import ranking
    from nnheads.patching.knockout import ranked_heads
    from nnheads.runs import store

    if not path.is_file():
        raise BadInput(
            f"no file {str(path)!r}; --from takes a run of detect or ioi, its heads.nc, or a list"
            " of heads"
        )
    if path.suffix == ".nc":
        table = store.load(path)
        ranked, name = ranked_heads(table, statistic)
        return table, name, ranked
    table = read_heads(path, statistic=statistic)
    return table, "score", ranking(table)


def beyond_chance(table, name: str, ranked: list[Head]) -> list[Head]:
    """Return those that are flagged or, without flags, whose interval is above zero."""
    if "flag" in table:
        clear, most = table["flag"] == 1, len(ranked)
    else:
        clear, most = table.get(f"{name}_low", table[name]) > 0, CLEAR
    own = [(layer, head) for layer, head in ranked if bool(clear.sel(layer=layer, head=head))]
    return own[:most]


def prompts_of(study: Study) -> tuple:
    """Return the prompts (batch, position), and what their ablations take values from.

    Left out are prompts that no other is like.
    """
    from nnheads.models.inputs import check_length
    from nnheads.patching.behaviours import ask_for
    from nnheads.patching.targets import role

    prompts, reference = ask_for(
        study.behaviour,
        study.model.tokenizer,
        study.limit,
        seed=study.seed + APART,
        length=study.length,
        path=study.prompts,
    )
    check_length(int(prompts["mask"].sum("position").max()), study.model.config)
    if study.at is not None:
        role(prompts, study.at)
    check_metric(study, prompts)
    return with_reference(study, prompts, reference), reference


def check_metric(study: Study, prompts) -> None:
    """Refuse a metric of two answers for prompts that have one."""
    from nnheads.patching.metrics import metric_of

    metric = metric_of(metric_name(study))
    if metric.pair and "wrong" not in prompts:
        raise BadInput(
            f"{metric.name} compares two answers; these prompts have one: try log_probability or"
            " accuracy"
        )


def with_reference(study: Study, prompts, reference):
    """Return the prompts that others can stand in for, and count those that are left out."""
    from nnheads.patching.behaviours import with_others

    dropped = json.loads(prompts.attrs.get("dropped", "{}"))
    count = prompts.attrs.get("asked", prompts.sizes["batch"])
    if study.ablation in ("mean", "resample"):
        usable = with_others(prompts, reference)
        if not usable.any():
            raise BadInput(
                f"none of {len(usable)} prompts has another of its length, so there is nothing to"
                " put in for a head; use more (--limit), or --ablation uniform or zero"
            )
        dropped[ALONE] = int((~usable).sum())
        prompts = prompts.isel(batch=usable)
    dropped = {reason: number for reason, number in dropped.items() if number}
    return prompts.assign_attrs(asked=count, dropped=json.dumps(dropped))


def averaged_over(study: Study, prompts, reference) -> dict[str, int]:
    """Return over how many prompts the means are, as an attribute; none of other ablations."""
    from nnheads.patching.behaviours import fewest_others

    return {"averaged": fewest_others(prompts, reference)} if study.ablation == "mean" else {}


def detected_heads(study: Study, run) -> list[Head]:
    """Return the heads that the behaviour's detector flags; found once for a run."""
    from nnheads.detectors._detect import detect, ranking
    from nnheads.patching.behaviours import BEHAVIOURS

    path = run.folder / "found.json"
    if path.exists():
        return [(layer, head) for layer, head in json.loads(path.read_text())]
    kind = str(BEHAVIOURS[study.behaviour].head_type)
    heads = detect(run.model, kind, n=DETECTION_PROMPTS, seed=study.seed, quiet=study.quiet)
    assert not isinstance(heads, dict), "one type has one dataset"
    flagged = ranking(heads, flagged=True)
    if not flagged:
        name = study.identity["model"]
        raise RunError(f"detect {kind} flags no head of {name}; name some with --heads or --from")
    flagged = flagged[: study.top]
    run.keep(path.name, json.dumps(flagged))
    return flagged
