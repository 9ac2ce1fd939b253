"""Print what `nnheads knockout` would cost, and what it found."""

from __future__ import annotations

import itertools
from functools import partial

from nnheads.recipes._knockout import Head, metric_name
from nnheads.recipes._study import Study
from nnheads.recipes._terminal import (
    first_batch,
    line_of,
    say,
    say_files,
    say_kept,
    say_plan,
    with_interval,
)

FEW = 24  # prompts, over which a mean is noise that costs some of the behaviour
PAIRS = 10  # shown; all are in interactions.nc
ABOVE_ZERO = ("accuracy", "logit_difference")  # where not, a model does not do what is asked
signed = partial(with_interval, form="+.3f")


def report_plan(
    study: Study, prompts, reference, heads: list[Head], counts: list[int] | None
) -> None:
    """Print what the two jobs of a batch would cost, and how many batches there are."""
    from nnheads.patching import interaction
    from nnheads.patching.head_sets import plan_without
    from nnheads.patching.knockout import chosen_lists

    part = first_batch(prompts, study.batch_size)
    drawn, listed, random = chosen_lists(study.model, heads, counts, study.draws, study.seed)
    sets = interaction.chosen_sets(study.model, heads, study.pairs, study.backup)
    jobs = {
        "knockout": [one[:k] for one in (listed, *random) for k in drawn],
        "interactions": [one for each in sets.values() for one in each],
    }
    options = {"metric": metric_name(study), "at": study.at, "seed": study.seed}
    for title, lists in jobs.items():
        job = plan_without(
            study.model, part, lists, ablation=study.ablation, reference=reference, **options
        )
        say(f"{title}:")
        say_plan(study.model, job, prompts.sizes["batch"] / part.sizes["batch"])


def report(run) -> None:
    """Print the curve against random lists, whether the parts add up, and where the files are."""
    curve = run.load("curve")
    about = curve.attrs
    say(f"behaviour: {about['behaviour']}; heads {about['heads']} ({about['origin']})")
    say_kept(about)
    say_curve(curve, about["metric"])
    say_interactions(run.load("interactions"))
    names = ["scores.nc", "curve.nc", "interactions.nc", "curve.png"]
    if (run.folder / "heads.nc").is_file():
        say_backups(run.load("heads"))
        names += ["heads.nc", "heads.png"]
    say_files(run, *names)


def say_curve(curve, metric: str) -> None:
    """Print the metric without the first K heads and, beside it, without K random ones."""
    say_intact(curve, metric)
    meaning = f"{curve.attrs['meaning']}{averaged(curve.attrs.get('averaged'))}"
    say(f"{metric} [95% interval] without the first K heads; in their place: {meaning}")
    if "random_median" in curve:
        draws = curve.sizes["draw"]
        say(
            "without K random heads of the same layers: median [range]; p, that a random list would"
            f" change as much (with {draws} lists, not below {1 / (draws + 1):.3f})"
        )
        count = int(curve.attrs.get("random_lent", 0))
        if count:
            say(
                f"{count} heads of each random list are of a neighbouring layer: theirs has too few"
                " others"
            )
    for index, k in enumerate(curve["k"].values):
        without = curve.isel(k=index)
        say(f"  {int(k):>3}  {signed(without, metric)}" + random_lists(without))


def averaged(number: int | None) -> str:
    """Return over how many prompts a mean is, and that few harm by themselves."""
    if number is None:
        return ""
    few = ", so few that the mean harms by itself" if number < FEW else ""
    return f"; {number} of them{few}"


def say_intact(curve, metric: str) -> None:
    """Print it where the intact model does not do what is asked of it."""
    intact = f"base_{metric}"
    low = curve[f"{intact}_low"].fillna(curve[intact])  # one prompt has no interval
    least = float(curve.attrs.get("accuracy_of_guessing", 0.0)) if metric == "accuracy" else 0.0
    if metric in ABOVE_ZERO and float(low) <= least:
        beyond = f", and guessing {least:.2f}" if least else ""
        say(
            f"the intact model has {metric} {signed(curve, intact)}{beyond}: there is little to"
            " lose, and no head can be shown to be needed"
        )


def random_lists(one) -> str:
    """Return the median and range over random lists of one length; nothing where there are none."""
    if "random_median" not in one:
        return ""
    names = ("random_median", "random_lowest", "random_highest", "p_value")
    median, lowest, highest, p = (float(one[name]) for name in names)
    return f"   {median:+.3f} [{lowest:+.3f}, {highest:+.3f}]   p {p:.3f}"


def say_interactions(table) -> None:
    """Print effects alone, after the others and together, and of pairs where they are there."""
    if table.sizes["member"] < 2:
        return
    say("effect of each head alone; after the others of the list")
    for index, name in enumerate(table["member"].values):
        one = table.isel(member=index)
        say(f"  {name:<7} {signed(one, 'alone')}   {signed(one, 'last')}")
    say_sum(table)
    if "pair" in table:
        say_pairs(table)


def say_sum(table) -> None:
    """Print the effect of the whole list, and whether its parts add up to it."""
    joint, total, surplus = (signed(table, name) for name in ("joint", "sum_of_parts", "surplus"))
    say(f"together {joint}; sum of the parts {total}; difference {surplus}")
    verdict = "one prompt cannot say whether the parts add up"
    if "adds_up" in table.attrs:
        verdict = "the parts add up"
    say(table.attrs.get("warning", verdict))


def say_pairs(table) -> None:
    """Print the pairs of heads whose effect differs most from the sum of their own."""
    couples = list(itertools.combinations(range(table.sizes["member"]), 2))
    differs = abs(table["pair_surplus"]).values
    most = sorted(couples, key=lambda couple: -differs[couple])[:PAIRS]
    which = ""
    if len(most) < len(couples):
        which = f" (the {PAIRS} of {len(couples)} that differ most)"
    say(f"effect of two heads together; by how much it differs from the sum of their own{which}")
    names = table["member"].values
    for a, b in most:
        one = table.isel(member=a, other=b)
        title = f"{names[a]} + {names[b]}"
        say(f"  {title:<15} {signed(one, 'pair')}   {signed(one, 'pair_surplus')}")


def say_backups(table) -> None:
    """Print the heads whose effect grows when the list is gone."""
    from nnheads.patching.interaction import stepping_in

    backups = stepping_in(table, 8)
    if not backups:
        say_no_backup(table)
        return
    say("heads that step in: effect alone; after the list; growth")
    for head in backups:
        say_backup(table.sel(layer=head["layer"], head=head["head"]))


def say_no_backup(table) -> None:
    """Print that no head can be shown to step in, and which comes nearest."""
    from nnheads import stats

    down = table.attrs.get("first") != "highest"
    nearest = stats.top_heads(table, "growth", 1, lowest=down)
    said = "no other head can be shown to step in for the list"
    if "end of its range" in str(table.attrs.get("warning", "")):
        said += f": {table.attrs['metric']} is at the end of its range without it"
    if not nearest:
        say(said)
        return
    head = nearest[0]
    q_value = float(table["q_value"].sel(layer=head["layer"], head=head["head"]))
    with_q = f", with q {q_value:.2f}" if q_value == q_value else ""
    say(f"{said}; effect grows most{with_q}:")
    say(f"  {line_of(head, 'H')}")


def say_backup(one) -> None:
    """Print the effect of one head before and after, and by how much it grows."""
    from nnheads.models.names import head_name

    values = "   ".join(signed(one, name) for name in ("before", "after", "growth"))
    say(f"  {head_name(int(one['layer']), int(one['head'])):<7} {values}")
