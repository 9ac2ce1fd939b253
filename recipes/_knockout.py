"""What `nnheads knockout` is told, and what it says on the terminal."""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path

from nnheads.recipes import _options as options

# heads taken from a ranking without flags: those whose interval is above zero, at most so many
CLEAR = 10
PAIRS = 10  # shown; all are in interactions.nc
signed = partial(options.with_interval, form="+.3f")
ABOVE_ZERO = ("accuracy", "logit_difference")  # where not, a model does not do what is asked


def check(arguments: dict) -> None:
    """Refuse options that do not go together, before anything is loaded."""
    from nnheads.errors import BadInput
    from nnheads.patching.ablation_values import ABLATIONS
    from nnheads.patching.behaviours import BEHAVIOURS
    from nnheads.patching.metrics import metric_of

    behaviour, ablation, top, draws = (
        arguments[name] for name in ("behaviour", "ablation", "top", "draws")
    )
    if behaviour not in BEHAVIOURS:
        raise BadInput(f"behaviour {behaviour!r} is not known; use one of {', '.join(BEHAVIOURS)}")
    if ablation not in ABLATIONS:
        raise BadInput(f"ablation {ablation!r} is not known; use one of {', '.join(ABLATIONS)}")
    if arguments["heads"] is not None and arguments["from_"] is not None:
        raise BadInput("--heads and --from exclude each other; the list comes from one of them")
    for name in ("top", "statistic"):
        if arguments[name] is not None and arguments["from_"] is None:
            raise BadInput(f"--{name} needs --from, a run that ranks heads")
    if top is not None:
        options.positive(top=top)
    if draws < 0:
        raise BadInput(f"--draws {draws} is not possible; it must be at least 0")
    if arguments["length"] is not None:
        options.positive(length=arguments["length"])
    metric_of(arguments["metric"] or BEHAVIOURS[behaviour].metric)


def counts_in(text: str) -> list[int]:
    """`0,1,2,5` -> [0, 1, 2, 5]."""
    from nnheads.errors import BadInput

    pieces = [piece.strip() for piece in text.split(",")]
    if not all(piece.isascii() and piece.isdigit() and len(piece) < 7 for piece in pieces):
        raise BadInput(f"--ks {text!r} is no list of numbers; write 0,1,2,5")
    return sorted({int(piece) for piece in pieces})


def names(heads: list[tuple[int, int]]) -> list[str]:
    from nnheads.models.names import head_name

    return [head_name(*head) for head in heads]


def listed_heads(
    heads: str | None, source: Path | None, top: int | None, statistic: str | None, behaviour: str
) -> tuple[list[tuple[int, int]] | None, str]:
    """The list and where it is from; None for one that a detector is yet to find."""
    from nnheads.errors import BadInput
    from nnheads.models.names import parse_head
    from nnheads.patching.behaviours import BEHAVIOURS

    if heads is not None:
        return [parse_head(piece) for piece in heads.split(",")], "named"
    if source is not None:
        return ranked_in(source, top, statistic)
    head_type = BEHAVIOURS[behaviour].head_type
    if head_type is None:
        raise BadInput(
            f"no detector finds the heads of behaviour {behaviour}; name them with --heads or"
            " --from"
        )
    return None, f"flagged by detect {head_type}"


def ranked_in(
    source: Path, top: int | None, statistic: str | None
) -> tuple[list[tuple[int, int]], str]:
    """Heads of a run, strongest first: the first `top`, or those that it flags, or whose interval
    is above zero.
    """
    from nnheads.errors import BadInput
    from nnheads.interchange.read import read_heads
    from nnheads.interchange.table import ranking
    from nnheads.patching.knockout import ranked_heads
    from nnheads.runs import store

    path = source / "heads.nc" if source.is_dir() else source
    if not path.is_file():
        raise BadInput(
            f"no file {str(path)!r}; --from takes a run of detect or ioi, its heads.nc, or a list"
            " of heads"
        )
    if path.suffix == ".nc":
        table = store.load(path)
        ranked, name = ranked_heads(table, statistic)
    else:
        table, name = read_heads(path, statistic=statistic), "score"
        ranked = ranking(table)
    origin = (
        f"ranked by {name} in {table.attrs.get('title', path.name)!r} of"
        f" {table.attrs.get('model', '?')}"
    )
    if top is not None:
        if top > len(ranked):
            raise BadInput(f"--top {top} is more than the {len(ranked)} heads that {path} ranks")
        return ranked[:top], origin
    if "flag" in table:
        clear, most = table["flag"] == 1, len(ranked)
    else:
        clear, most = table.get(f"{name}_low", table[name]) > 0, CLEAR
    own = [(layer, head) for layer, head in ranked if bool(clear.sel(layer=layer, head=head))][
        :most
    ]
    if not own:
        raise BadInput(f"no head of {path} is beyond chance; say with --top how many to take")
    return own, origin


def report(run) -> None:
    """The curve against the random lists, whether the parts add up, and where the files are."""
    reduced = run.load("curve")
    metric, about = reduced.attrs["metric"], reduced.attrs
    dropped = "; ".join(
        f"{count} {reason}" for reason, count in json.loads(about["dropped"]).items()
    )
    options.say(f"{about['behaviour']}; heads {about['heads']} ({about['origin']})")
    options.say(
        f"kept {about['kept']} of {about['asked']} prompts"
        + (f" (dropped: {dropped})" if dropped else "")
    )
    low = reduced[f"base_{metric}_low"].fillna(
        reduced[f"base_{metric}"]
    )  # one prompt has no interval
    if metric in ABOVE_ZERO and float(low) <= 0:
        options.say(
            f"the intact model has {metric} {signed(reduced, f'base_{metric}')}: there is little to"
            " lose"
        )
    options.say(
        f"{metric} [95% interval] without the first K heads; in their place: {about['meaning']}"
    )
    if "random_median" in reduced:
        options.say(
            "without K random heads of the same layers: median [range]; p, share of lists that"
            " change as much"
        )
    for place, k in enumerate(reduced["k"].values):
        one = reduced.isel(k=place)
        line = f"  {int(k):>3}  {signed(one, metric)}"
        if "random_median" in one:
            median, lowest, highest = (
                float(one[f"random_{text}"]) for text in ("median", "lowest", "highest")
            )
            line += (
                f"   {median:+.3f} [{lowest:+.3f}, {highest:+.3f}]   p {float(one['p_value']):.3f}"
            )
        options.say(line)
    say_interactions(run.load("interactions"))
    names = ["scores.nc", "curve.nc", "interactions.nc", "curve.png"]
    if (run.folder / "heads.nc").is_file():
        say_backups(run.load("heads"))
        names += ["heads.nc", "heads.png"]
    for name in names:
        options.say(options.shown(run.folder / name))


def say_interactions(table) -> None:
    """Effects alone, after the others and together; a table of pairs where there is one."""
    if table.sizes["member"] < 2:
        return
    options.say("effect of each head alone; after the others of the list")
    for place, name in enumerate(table["member"].values):
        one = table.isel(member=place)
        options.say(f"  {name:<7} {signed(one, 'alone')}   {signed(one, 'last')}")
    joint, total, surplus = (signed(table, name) for name in ("joint", "sum_of_parts", "surplus"))
    options.say(f"together {joint}; sum of the parts {total}; difference {surplus}")
    alone = "one prompt cannot say whether the parts add up"
    options.say(
        table.attrs.get("warning", "the parts add up" if "adds_up" in table.attrs else alone)
    )
    if "pair" not in table:
        return
    couples = list(itertools.combinations(range(table.sizes["member"]), 2))
    differs = abs(table["pair_surplus"]).values
    most = sorted(couples, key=lambda couple: -differs[couple])[:PAIRS]
    which = (
        "" if len(most) == len(couples) else f" (the {PAIRS} of {len(couples)} that differ most)"
    )
    options.say(
        f"effect of two heads together; by how much it differs from the sum of their own{which}"
    )
    for a, b in most:
        one = table.isel(member=a, other=b)
        title = f"{table['member'].values[a]} + {table['member'].values[b]}"
        options.say(f"  {title:<15} {signed(one, 'pair')}   {signed(one, 'pair_surplus')}")


def say_backups(table) -> None:
    """The heads whose effect grows when the list is gone."""
    from nnheads.models.names import head_name
    from nnheads.patching.interaction import stepping_in

    found = stepping_in(table, 8)
    if not found:
        options.say("no other head steps in for the list")
        return
    options.say("heads that step in: effect alone; after the list; growth")
    for head in found:
        one = table.sel(layer=head["layer"], head=head["head"])
        shown = "   ".join(signed(one, name) for name in ("before", "after", "growth"))
        options.say(f"  {head_name(head['layer'], head['head']):<7} {shown}")
