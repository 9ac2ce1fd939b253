"""What the commands of `nnheads iti` begin with: a run with its questions, head outputs and probes.

experiment = opened(study, "fit")
if not experiment.run.complete:
    given, how = material(experiment), how_of(experiment)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnheads.recipes import _iti, _iti_questions
from nnheads.recipes._iti_questions import Questions, digest

if TYPE_CHECKING:
    import xarray as xr
    from nnheads.recipes._study import Study

    from nnheads.runs.folder import Run
    from nnheads.truth.material import Material, Options

Settings = list[tuple[float, int]]  # of each fold: its strength and its number of heads


@dataclass(frozen=True, eq=False)
class Experiment:
    """A run, and what it is about: questions, their statements (batch) and neutral texts."""

    run: Run
    read: Questions
    prompts: xr.Dataset
    neutral: list[str]

    @property
    def model(self) -> Any:
        """The model that is edited."""
        return self.run.model

    @property
    def facts(self) -> dict[str, Any]:
        """The options, and what else identifies the run."""
        return self.run.facts

    def about(self, kind: str) -> dict[str, Any]:
        """Return what repeats a result of this run, as attributes."""
        about = self.run.about(
            title=f"inference-time intervention: {kind}",
            prompts=self.prompts,
            references=_iti.REFERENCES,
            sample_dims="question text",
        )
        return {**about, "dropped": self.prompts.attrs["dropped"]}

    def neutral_prompts(self) -> xr.Dataset:
        """Return the neutral texts as tokens (batch, position)."""
        from nnheads.truth.neutral import neutral_texts

        return neutral_texts(self.model, self.neutral)


def opened(study: Study, item: str, without: tuple[str, ...] = (), **more: Any) -> Experiment:
    """Read the questions, load the model and open the run.

    item, without, more: as for `Study.open`.
    """
    _iti.check(study)
    read = _iti_questions.read(study)
    neutral = _iti_questions.neutral_of(study)
    kept, prompts = _iti_questions.statements_of(study.model.tokenizer, study, read)
    facts = {
        "data": Path(read.source).name,
        "neutral": digest(neutral),
        "questions": digest(kept.questions),
        "template": prompts.attrs["template"],
    }
    run = study.open(item=item, without=without, **facts, **more)
    return Experiment(run, kept, prompts, neutral)


def check_scope(prompts: xr.Dataset, scope: str) -> None:
    """Refuse to score answers that an edit of this scope cannot reach."""
    from nnheads.interventions.operations import Add
    from nnheads.interventions.schema import Edit, Intervention
    from nnheads.truth.answer_likelihood import check_reach
    from nnheads.truth.iti import SCOPES

    check_reach(Intervention(Edit("z", Add(0.0), layer=0, at=SCOPES[scope])), prompts)


def material(experiment: Experiment) -> Material:
    """Return head outputs at the ends of all statements, folds, and probes on every head."""
    from nnheads.truth.activations import last_outputs
    from nnheads.truth.folds import folds
    from nnheads.truth.material import Material, orders
    from nnheads.truth.probes import probe

    facts, prompts = experiment.facts, experiment.prompts
    texts, seed = experiment.read.texts(), facts["seed"]
    parts = folds(len(texts), facts["folds"], seed=seed, val_ratio=facts["val_ratio"])
    z = last_outputs(
        experiment.model,
        prompts,
        batch_size=facts["batch_size"],
        parts=experiment.run.parts,
        quiet=facts["quiet"],
    )
    probes = probe(z, prompts, parts, seed=seed)
    neutral = experiment.neutral_prompts()
    return Material(prompts, z, texts, parts, probes, neutral, orders(z, probes, parts))


def how_of(experiment: Experiment, direction: str | None = None) -> Options:
    """Return how edits are made and scored; direction: instead of the option's."""
    from nnheads.truth.material import Options

    facts = experiment.facts
    return Options(
        kind=direction or facts["direction"],
        scope=facts["scope"],
        draws=facts.get("draws", 0),
        seed=facts["seed"],
        batch_size=facts["batch_size"],
        parts=experiment.run.parts,
        quiet=facts["quiet"],
    )


def chosen(
    experiment: Experiment, given: Material, how: Options
) -> tuple[Settings, xr.Dataset | None]:
    """Return each fold's strength and number of heads, and the grid (alpha, heads) that decided.

    The grid is None where there was nothing to decide.
    """
    from nnheads.truth.crossval import choose, grid

    heads = given.probes.sizes["layer"] * given.probes.sizes["head"]
    alphas = _iti.numbers_in(experiment.facts["alpha"], "alpha")
    counts = _iti.counts_in(experiment.facts["heads"], heads)
    if len(alphas) == len(counts) == 1:
        return [(alphas[0], counts[0])] * len(given.folds), None
    table = grid(experiment.model, given, alphas, counts, how)
    return [choose(table, fold) for fold in range(len(given.folds))], table


def reduced(table: xr.Dataset, seed: int) -> xr.Dataset:
    """Return means of a grid with their intervals: over validation questions, and over texts for
    what it costs.
    """
    import xarray as xr

    from nnheads import stats
    from nnheads.truth.multiple_choice import CHOICES

    scores = (*CHOICES, *(f"original_{name}" for name in CHOICES))
    each = [stats.mean(table[name], "question", seed=seed) for name in scores]
    for name in ("cross_entropy", "kl"):
        over_folds = table[name].mean("fold", keep_attrs=True)
        each.append(stats.mean(over_folds, "text", seed=seed))
    return xr.merge(each, combine_attrs="drop_conflicts")


def draw_probes(
    experiment: Experiment, probes: xr.Dataset, shown: xr.Dataset, marked: list[dict] | None = None
) -> None:
    """Draw what every head knows of truth: the accuracy of its probe, over all folds.

    shown: a saved dataset of the run, for the small print. marked: heads with a frame.
    """
    from nnheads import plot

    values = probes["accuracy"].mean("fold").transpose("layer", "head")
    values.attrs = {"long_name": "accuracy of the probe on held-out statements", "units": "1"}
    figure = plot.heatmap(
        values,
        signed=False,
        marked=marked,
        framed="the heads that the edit takes",
        title="What heads know of truth",
        note=plot.note(shown, len(experiment.read.questions)),
    )
    experiment.run.picture("heads", figure)
