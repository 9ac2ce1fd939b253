"""What `nnheads das` searches, and what it computes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnheads.recipes import _das_pairs
from nnheads.recipes._checks import check_at_least, check_choice
from nnheads.recipes._das_pairs import PairSets
from nnheads.recipes._results import described, save_edits
from nnheads.recipes._terminal import say

from nnheads.errors import BadInput

if TYPE_CHECKING:
    import xarray as xr
    from nnheads.recipes._study import Study

    from nnheads.interventions.positions import At
    from nnheads.interventions.schema import Intervention
    from nnheads.runs.folder import Run

EVERY = 10  # steps between measurements
FEW_LAYERS = 4  # that `--quick` searches, spread over all
MANY_LAYERS = 6  # that are searched without `--layers`


@dataclass(frozen=True, eq=False)
class Search:
    """Pairs, and the layers and positions (by name) where their variable is looked for."""

    pairs: PairSets
    layers: list[int]
    positions: dict[str, At]


def search_of(study: Study) -> Search:
    """Return what the options ask for, and refuse what the model cannot do."""
    check(study)
    records = None if study.pairs is None else _das_pairs.read(study.pairs)
    check_gradients(study)
    layers = layers_of(study)
    pairs = _das_pairs.of_task(study) if records is None else _das_pairs.of_file(study, records)
    positions = positions_of(study.at, pairs.roles)
    if study.quick and study.at is None:
        positions = dict(list(positions.items())[-1:])
        say(f"quick: at {', '.join(positions)} alone")
    return Search(pairs, layers, positions)


def check(study: Study) -> None:
    """Refuse what no model could be asked, before one is loaded."""
    from nnheads.interventions.alignment import KINDS
    from nnheads.interventions.schema import SITES

    counts = ("steps", "step_pairs", "test", "directions", "patience")
    check_at_least(1, **{name: study.arguments[name] for name in counts})
    check_learning_rate(study.learning_rate)
    check_choice("--kind", study.kind, KINDS)
    check_choice("--site", study.site, SITES)
    check_variable(study)


def check_learning_rate(rate: float) -> None:
    """Refuse a learning rate with which nothing is learned."""
    if not 0 < rate < math.inf:
        raise BadInput(f"--learning-rate {rate} is not possible; it must be above 0")


def check_variable(study: Study) -> None:
    """Refuse a variable that the causal model does not have."""
    from nnheads.interventions.tasks import task_of

    if study.pairs is None:
        task = task_of(study.task)
        task.model.check(study.variable or task.variable)
    elif study.variable is not None:
        raise BadInput(
            "--variable is of a causal model that ships; pairs of your own have their answers"
            " already"
        )


def check_gradients(study: Study) -> None:
    """Refuse weights that have no gradients here."""
    if study.quantization is not None and study.model.device.type == "cpu":
        raise BadInput(
            "bitsandbytes has no gradients on a CPU; use a GPU (--device-map), or drop"
            " --quantization"
        )


def layers_of(study: Study) -> list[int]:
    """Return the layers that are searched: those of `--layers`, or some that are spread over all.

    Each is trained at every position, twice.
    """
    from nnheads.models.geometry import geometry
    from nnheads.models.names import parse_numbers

    count = geometry(study.model).layers
    few = FEW_LAYERS if study.quick else MANY_LAYERS
    if study.layers is None and count > few:
        some = sorted({round((count - 1) * part / (few - 1)) for part in range(few)})
        named = ",".join(map(str, some))
        say(f"{'quick: ' * study.quick}layers {named} of {count}; --layers 0-{count - 1} for all")
        return some
    if study.layers is None:
        return list(range(count))
    return parse_numbers(study.layers, "layer", count)


def positions_of(text: str | None, roles: tuple[str, ...]) -> dict[str, At]:
    """Return `S2,END,-2` as positions by name; without a text all roles, or the last token."""
    names = [word.strip() for word in (text or ",".join(roles) or "-1").split(",")]
    return {name: position_of(name, roles) for name in names}


def position_of(name: str, roles: tuple[str, ...]) -> At:
    """Return a role or a number as positions of a prompt."""
    from nnheads.interventions.positions import index, role

    if re.fullmatch(r"-?\d{1,6}", name):
        return index(int(name))
    if name in roles:
        return role(name)
    known = f"roles {', '.join(roles)}, or positions" if roles else "positions"
    raise BadInput(f"--at {name!r} is not known; use {known} such as 0 or -1")


def compute(run: Run, search: Search) -> None:
    """Train, test, reduce, draw, save; every layer and position that is done is kept in the run's
    folder.
    """
    from nnheads.interventions.localise import reduced

    scores, best = trained(run, search)
    scores = described(scores, about(run, search.pairs))
    table = reduced(scores, seed=run.facts["seed"])
    run.save(scores=scores, places=table)
    best_at = f"layer {table.attrs['best_layer']}, {table.attrs['best_place']}"
    draw(run, scores, table, f"Where is the {search.pairs.name}?", best_at)
    save_edits(run, best, scores.attrs["model"])
    run.finish(best=best_at)


def trained(run: Run, search: Search) -> tuple[xr.Dataset, Intervention]:
    """Return what alignments trained at every layer and position score, and the best of them."""
    from nnheads.interventions.localise import localise

    facts = run.facts
    return localise(
        run.model,
        search.pairs.fit,
        search.pairs.test,
        search.positions,
        site=facts["site"],
        layers=search.layers,
        kind=facts["kind"],
        directions=facts["directions"],
        steps=facts["steps"],
        batch_size=facts["step_pairs"],
        every=EVERY,
        learning_rate=facts["learning_rate"],
        patience=facts["patience"],
        parts=run.parts,
        seed=facts["seed"],
        quiet=facts["quiet"],
    )


def about(run: Run, pairs: PairSets) -> dict[str, Any]:
    """Return what repeats the result, and what its pairs are about, as attributes."""
    from nnheads.interventions.alignment import SOURCE

    references = "; ".join(text for text in (SOURCE, pairs.references) if text)
    made = run.about(title="alignment", prompts=pairs.digest, references=references)
    return {**made, "variable": pairs.name, "about": pairs.about, "kept": pairs.kept}


def draw(run: Run, scores: xr.Dataset, table: xr.Dataset, question: str, best_at: str) -> None:
    """Draw the accuracy at every layer and position."""
    import numpy as np

    from nnheads import plot

    accuracy = table["trained"].assign_attrs(long_name="interchange accuracy")
    figure = plot.heatmap(
        accuracy,
        signed=False,
        title=f"{question}\nBest on pairs left out of training: {best_at};"
        f" without any intervention {float(table['none'].mean()):.0%}",
        texts=np.vectorize("{:.0%}".format)(accuracy.values),
        note=plot.note(scores, scores.sizes["batch"]),
    )
    run.picture("places", figure)
