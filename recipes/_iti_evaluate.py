"""What `nnheads iti evaluate` computes: an edit on unseen questions, beside its controls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnheads.recipes import _iti, _iti_runs
from nnheads.recipes._iti_use import identity_of
from nnheads.recipes._results import band, save_described

from nnheads.errors import BadInput

if TYPE_CHECKING:
    import xarray as xr
    from nnheads.recipes._iti_runs import Experiment
    from nnheads.recipes._study import Study

    from nnheads.interventions.schema import Intervention
    from nnheads.runs.folder import Run
    from nnheads.truth.material import Material, Options

USUAL = {"alpha": _iti.ALPHAS, "heads": _iti.HEADS, "direction": "mass_mean", "scope": "all"}
CURVES = {  # picture: what it shows, in words, and which levels have a line
    "grid": ("mc1", "MC1 on validation questions", (0.0, 1.0)),
    "cost": ("kl", "Cost on neutral texts", (0.0,)),
}


@dataclass(frozen=True)
class Request:
    """A saved edit to test, if one was named, and who judges answers: what about -> judge."""

    change: Intervention | None
    judges: dict[str, Any]


def request_of(study: Study) -> Request:
    """Return the saved edit and the judges that the options name, and refuse what contradicts."""
    from nnheads.recipes._checks import check_at_least

    from nnheads.interventions.files import load
    from nnheads.truth.judges import open_judge

    check_at_least(1, new_tokens=study.new_tokens)
    _iti.check_lists(study)
    check_saved(study)
    saved = study.intervention
    specs = {"true": study.judge, "informative": study.info_judge}
    change = None if saved is None else load(saved)
    judges = {about: open_judge(spec) for about, spec in specs.items() if spec is not None}
    return Request(change, judges)


def check_saved(study: Study) -> None:
    """Refuse options that a saved edit says itself."""
    if study.intervention is None:
        return
    for name, value in USUAL.items():
        if study.arguments[name] != value:
            raise BadInput(
                f"--{name} is for an edit that is fitted here; a saved intervention says it itself"
            )
    if study.plan:
        raise BadInput(
            "--plan says what fitting and testing cost; leave it out with a saved intervention"
        )


def evaluated(study: Study, request: Request) -> Run:
    """Return the run of `iti evaluate`, computed if it is not there."""
    if request.change is not None:
        return transferred(study, request.change, request.judges)
    experiment = _iti_runs.opened(study, "evaluate")
    if not experiment.run.complete:
        _iti_runs.check_scope(experiment.prompts, study.scope)
        evaluate(experiment, request.judges)
    return experiment.run


def transferred(study: Study, change: Intervention, judges: dict[str, Any]) -> Run:
    """Return the run of a saved edit on all questions, computed if it is not there."""
    name = identity_of(change)
    experiment = _iti_runs.opened(study, f"transfer-{name}", intervention=name)
    if not experiment.run.complete:
        transfer(experiment, change, judges)
    return experiment.run


def evaluate(experiment: Experiment, judges: dict[str, Any]) -> None:
    """Cross-validate: choose on validation questions, test on the others, compare."""
    from nnheads.truth import crossval

    run, facts = experiment.run, experiment.facts
    given, how = _iti_runs.material(experiment), _iti_runs.how_of(experiment)
    settings, table = _iti_runs.chosen(experiment, given, how)
    scores = crossval.evaluate(experiment.model, given, settings, how)
    about = experiment.about("evaluation")
    if table is not None:
        grid = _iti_runs.reduced(table, facts["seed"]).assign_attrs(about)
        run.save(grid=grid)
        draw_grid(run, grid, scores.sizes["question"])
    edits = edits_of(given, settings, how)
    numbers = sampled([fold.test for fold in given.folds], facts["samples"], facts["seed"])
    save_samples(experiment, list(zip(numbers, edits)), about, judges)
    heads = [given.heads(fold, count) for fold, (_, count) in enumerate(settings)]
    about |= {"chosen_heads": json.dumps(heads), "settings": scores.attrs["settings"]}
    save_scores(experiment, scores, {**about, "reached": scores.attrs["reached"]})
    _iti_runs.draw_probes(experiment, given.probes, run.load("scores"))
    run.finish(settings=settings)


def edits_of(given: Material, settings: _iti_runs.Settings, how: Options) -> list[Intervention]:
    """Return the edit of each fold."""
    from nnheads.truth.conditions import final

    return [
        final(given, fold, alpha, count, how)[1] for fold, (alpha, count) in enumerate(settings)
    ]


def transfer(experiment: Experiment, change: Intervention, judges: dict[str, Any]) -> None:
    """Score an edit that was fitted elsewhere on all of these questions."""
    from nnheads.truth import crossval
    from nnheads.truth.directions import fitted_on

    texts, facts = experiment.read.texts(), experiment.facts
    how = _iti_runs.how_of(experiment, direction="mass_mean")
    neutral = experiment.neutral_prompts()
    scores = crossval.transfer(experiment.model, change, experiment.prompts, texts, neutral, how)
    about = experiment.about("transfer")
    about |= {"reached": scores.attrs["reached"], "guarded": int(fitted_on(change) is not None)}
    [numbers] = sampled([range(len(texts))], facts["samples"], facts["seed"])
    save_samples(experiment, [(numbers, change)], about, judges)
    save_scores(experiment, scores, about)
    experiment.run.finish()


def save_scores(experiment: Experiment, scores: xr.Dataset, about: dict[str, Any]) -> None:
    """Save scores (condition, question) and their summary."""
    from nnheads.truth.contrasts import summary

    table = summary(scores, seed=experiment.facts["seed"])
    save_described(experiment.run, about, scores=scores, summary=table)


def draw_grid(run: Run, table: xr.Dataset, questions: int) -> None:
    """Draw MC1 and its cost over the strength, a curve for each number of heads."""
    from nnheads import plot

    positive = bool((table["alpha"] > 0).all())  # else there is no logarithm
    for picture, (name, text, levels) in CURVES.items():
        each = {}
        for count in table["heads"].values:
            value, low, high = band(table.sel(heads=count), name)
            each[f"{count} heads"] = (value.assign_attrs(long_name=text), low, high)
        note = plot.note(table, questions)
        figure = plot.curves(each, title=text, log=positive, levels=levels, note=note)
        run.picture(picture, figure)


def sampled(parts: Sequence[Sequence[int]], count: int, seed: int) -> list[list[int]]:
    """Return so many questions in all, as evenly from each part as can be."""
    import numpy as np

    generator, found = np.random.default_rng(seed), []
    for number, part in enumerate(parts):
        share = min(len(part), count // len(parts) + (number < count % len(parts)))
        found.append(sorted(generator.choice(np.array(part), share, replace=False).tolist()))
    return found


def save_samples(
    experiment: Experiment,
    numbered: list[tuple[list[int], Intervention]],
    about: dict[str, Any],
    judges: dict[str, Any],
) -> None:
    """Save what is written with and without each edit, judged if there is a judge: (sample).

    numbered: numbers of questions, and the edit that answers them.
    """
    from nnheads.truth.samples import answers

    facts, questions = experiment.facts, experiment.read.questions
    pairs = [(questions[number], change) for numbers, change in numbered for number in numbers]
    if not pairs:
        return
    table = answers(
        experiment.model,
        pairs,
        template=facts["template"],
        new_tokens=facts["new_tokens"],
        judges=judges,
        batch_size=facts["batch_size"],
    )
    save_described(experiment.run, about, samples=table)
