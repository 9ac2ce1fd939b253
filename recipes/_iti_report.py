"""What `nnheads iti` says on the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nnheads.recipes._terminal import counted, say, say_files, shown, with_interval

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.runs.folder import Run

ORDER = ("none", "random_direction", "random_heads", "edit")
SCORES = {"mc1": "MC1", "mc2": "MC2", "mc3": "MC3", "ratio": "log-likelihood ratio"}
SCOPES = ("none", "all", "answering", "decode")  # which an edit is baked beside
SHOWN = 4  # questions whose answers are printed
FITTED = ("probes.nc", "directions.nc", "grid.nc", "heads.png", "intervention")
EVALUATED = (
    "scores.nc",
    "summary.nc",
    "grid.nc",
    "samples.nc",
    "grid.png",
    "cost.png",
    "heads.png",
)


def say_there(run: Run, names: tuple[str, ...]) -> None:
    """Print where files are, of those that this run has."""
    say_files(run, *(name for name in names if (run.folder / name).exists()))


def record_of(run: Run) -> dict:
    """Return what the run's record says."""
    return json.loads((run.folder / "run.json").read_text())


def fitted(run: Run) -> None:
    """Print the edit that was fitted, the heads it moves, and the files."""
    directions = run.load("directions")
    say_edit(directions)
    say_moved(record_of(run)["heads"], run.load("probes"), directions)
    size = sum(path.stat().st_size for path in (run.folder / "intervention").iterdir())
    say(f"the edit takes {size / 1000:.1f} kB")
    say_there(run, FITTED)


def say_dropped(about: Mapping[str, str]) -> None:
    """Print which questions and answers were merged or left out, if any were.

    about: attributes of a dataset.
    """
    changed = counted(json.loads(about.get("dropped", "{}")), "{reason}: {count}")
    if changed:
        say(changed)


def say_edit(directions: xr.Dataset) -> None:
    """Print what the edit is, and what it was fitted on."""
    about = directions.attrs
    say_dropped(about)
    say(
        f"fold {about['fold']}: {about['heads']} heads, {about['alpha']:g} standard deviations"
        f" along {about['direction']}, scope {about['scope']}, fitted on"
        f" {directions.sizes['fitted']} questions"
    )


def say_moved(heads: list[list[int]], probes: xr.Dataset, directions: xr.Dataset) -> None:
    """Print the heads that the edit moves, how well their probes do, and their spread."""
    probes = probes.sel(fold=directions.attrs["fold"])
    for layer, head in heads:
        cell = {"layer": layer, "head": head}
        sigma = float(directions["sigma"].sel(cell))
        say(f"  L{layer}H{head}  {accuracy(probes.sel(cell))}, sigma {sigma:.3g}")


def accuracy(one: xr.Dataset) -> str:
    """Return how well a head's probe does on validation and on test statements."""
    return f"validation {float(one['validation']):.3f}, test {with_interval(one, 'accuracy')}"


def evaluated(run: Run) -> None:
    """Print each score of each condition with its interval and its paired test, costs, and some
    answers.
    """
    table = run.load("summary")
    say_dropped(table.attrs)
    say_settings(table)
    questions = run.load("scores").sizes["question"]
    say(
        f"{questions} questions, each tested with an edit that has not seen it [95% interval]; p:"
        " edit against this"
    )
    kinds = [kind for kind in ORDER if kind in table["kind"].values]
    for name, text in SCORES.items():
        say(text)
        for kind in kinds:
            one = table.sel(kind=kind)
            say(f"  {kind:<17}{with_interval(one, name)}{gain(one, name)}")
    say_costs(table, kinds)
    say_samples(run)
    say_there(run, EVALUATED)


def say_settings(table: xr.Dataset) -> None:
    """Print what each fold's edit is, and whether it is known what it was fitted on."""
    for fold, setting in enumerate(json.loads(table.attrs.get("settings", "[]"))):
        say(f"fold {fold}: {setting['heads']} heads, {setting['alpha']:g} standard deviations")
    if table.attrs.get("guarded") == 0:
        say(
            "this edit does not say what it was fitted on: whether these questions gave it is not"
            " known"
        )


def gain(one: xr.Dataset, name: str) -> str:
    """Return how much more the edit scores than this condition, and the paired test of it."""
    p = float(one[f"{name}_p"])
    return "" if p != p else f"   edit {with_interval(one, f'{name}_gain', '+.3f')}, p {p:.1e}"


def say_costs(table: xr.Dataset, kinds: list[str]) -> None:
    """Print what each condition does to neutral texts, and how many answers the edit reaches."""
    say("on neutral texts, nats per token")
    for kind in kinds:
        one = table.sel(kind=kind)
        entropy, divergence = with_interval(one, "cross_entropy"), with_interval(one, "kl")
        say(f"  {kind:<17}cross-entropy {entropy}   KL {divergence}")
    reached = table.attrs["reached"]
    if reached < 1:
        say(f"the edit reaches {reached:.0%} of the answers; the others are scored as without it")


def say_samples(run: Run) -> None:
    """Print answers side by side, and what judges say of them."""
    if not (run.folder / "samples.nc").is_file():
        return
    table = run.load("samples")
    for condition in table["condition"].values:
        shares = ", ".join(shares_of(table.sel(condition=condition)))
        say(f"{table.sizes['sample']} answers, {condition}: {shares}")
    for number in range(min(SHOWN, table.sizes["sample"])):
        say_answers(table.isel(sample=number))


def shares_of(one: xr.Dataset) -> list[str]:
    """Return which shares of a condition's answers are true, false and informative."""
    parts = [
        f"{float((one['begins'] == 1).mean()):.0%} begin with a true answer",
        f"{float((one['begins'] == -1).mean()):.0%} with a false one",
    ]
    judged = {about: one[about] > 0.5 for about in ("true", "informative") if about in one}
    parts += [f"{float(yes.mean()):.0%} judged {about}" for about, yes in judged.items()]
    if len(judged) == 2:
        both = judged["true"] & judged["informative"]
        parts.append(f"{float(both.mean()):.0%} both")
    return parts


def say_answers(one: xr.Dataset) -> None:
    """Print a question, and what is written in each condition."""
    say(f"{str(one['question_text'].values)!r}")
    for condition in one["condition"].values:
        say(f"  {condition:<5} {str(one['written'].sel(condition=condition).values)!r}")


def baked(run: Run, folder: Path) -> None:
    """Print the check, and how an edit everywhere differs from one of written tokens."""
    record = record_of(run)
    say(
        f"baked logits differ from the live edit's by at most {record['difference']:.1e}; the edit"
        f" moves them by up to {record['moved']:.3g}"
    )
    say("on questions that did not give the edit; a bias acts everywhere, as scope all does:")
    for name in SCOPES:
        say_scope(name, record["scopes"][name])
    say(shown(folder))


def say_scope(name: str, one: dict) -> None:
    """Print how the edit scores in one scope, or why it has no score there."""
    scored = isinstance(one["mc1"], float)
    mc1 = f"{one['mc1']:.3f}" if scored else "not possible"
    say(
        f"  {name:<9} MC1 {mc1}, answers written: {one['true']:.0%} true, {one['false']:.0%}"
        f" false, KL on neutral texts {one['kl']:.4f}"
    )
    if not scored:
        say(f"          {one['mc1']}")
