"""Pairs of prompts that `nnheads das` trains and tests on: of a causal model, or of a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnheads.errors import BadInput, RunError

if TYPE_CHECKING:
    from nnheads.recipes._study import Study

    from nnheads.interventions.counterfactuals import Pairs

APART = 1_000_000  # added to the seed of what is tested on
SHARE = 0.3  # of one's own pairs are tested on, at most
FEWEST = 8  # prompts that the model answers right
Record = tuple[str, str, str]  # base, source and answer


@dataclass(frozen=True, eq=False)
class PairSets:
    """Pairs to train and to test on, what they are about, and roles of their prompts."""

    fit: Pairs
    test: Pairs
    name: str
    about: str
    kept: str
    roles: tuple[str, ...] = ()
    references: str = ""

    @property
    def digest(self) -> str:
        """A hash of all pairs."""
        from nnheads.runs.provenance import prompts_hash

        found = hashlib.sha256()
        for pairs in (self.fit, self.test):
            datasets = [prompts.reset_coords() for prompts in (pairs.base, *pairs.sources)]
            hashes = [prompts_hash(one) for one in datasets]
            found.update(repr([*hashes, pairs.answer.tolist()]).encode())
        return found.hexdigest()


def read(path: Path) -> list[Record]:
    """Return one's own pairs, enough of them to learn from some and be tested on others."""
    from nnheads.interventions.counterfactuals import read_counterfactuals

    records = list(dict.fromkeys(read_counterfactuals(path)))
    if len(records) < FEWEST:
        raise BadInput(f"{path} holds {len(records)} different pairs; give at least {FEWEST}")
    return records


def of_file(study: Study, records: list[Record]) -> PairSets:
    """Return pairs of a file: most to train on, the others to test on."""
    import numpy as np

    from nnheads.interventions.counterfactuals import from_texts

    order = np.random.default_rng(study.seed).permutation(len(records))
    count = min(study.test, max(1, int(len(records) * SHARE)))
    tested, fitted = order[:count], order[count:][: study.limit]
    pairs = from_texts(study.model.tokenizer, records)
    return PairSets(
        pairs.rows(fitted),
        pairs.rows(tested),
        name=f"variable of {study.pairs.name}",
        about="the answers that the file gives",
        kept=f"{len(records)} pairs: {len(fitted)} to train on, {count} to test on",
    )


def of_task(study: Study) -> PairSets:
    """Return pairs that a causal model gives, of prompts that the network answers as it does."""
    from nnheads.interventions.tasks import task_of

    task = task_of(study.task)
    variable = study.variable or task.variable
    draw = Draw(study, task, variable)
    fit, trained, seen = draw.pairs("train", study.limit, study.seed, set())
    test, tested, _ = draw.pairs("test", study.test, study.seed + APART, seen)
    return PairSets(
        fit,
        test,
        name=f"{variable} ({study.task})",
        about=task.about,
        kept=f"{trained}; {tested}",
        roles=task.roles,
        references=task.references,
    )


@dataclass(frozen=True, eq=False)
class Draw:
    """A task, and the variable that its pairs exchange."""

    study: Study
    task: Any
    variable: str

    def pairs(
        self, side: str, count: int, seed: int, seen: set[tuple]
    ) -> tuple[Pairs, str, set[tuple]]:
        """Return pairs of prompts that are new and answered right, how many prompts these are, and
        all prompts that were drawn so far.
        """
        from nnheads.interventions.causal_model import draw_counterfactuals

        drawn = self.task.draw(self.study.model.tokenizer, count, seed)
        new = [number for number, text in enumerate(drawn.texts()) if text not in seen]
        fitting = right_ones(self.study.model, self.task, drawn)
        right = [number for number in new if number in fitting]
        self.check(len(right), len(new))
        kept = drawn.rows(right)
        pairs = kept.pairs(
            draw_counterfactuals(self.task.model, kept.inputs, self.variable, count, seed=seed)
        )
        return pairs, f"{len(right)} of {count} prompts to {side} on", seen | set(drawn.texts())

    def check(self, right: int, drawn: int) -> None:
        """Refuse to look for a variable in a model that does not do the task."""
        if right < FEWEST:
            raise RunError(
                f"{self.study.name} answers {right} of {drawn} prompts of {self.study.task} right;"
                f" at least {FEWEST} are needed to look for {self.variable}"
            )


def right_ones(model: Any, task: Any, drawn: Any) -> set[int]:
    """Return numbers of the prompts that the network answers as the causal model does."""
    import numpy as np

    from nnheads.interventions.alignment import evaluate
    from nnheads.interventions.counterfactuals import Pairs
    from nnheads.interventions.schema import Intervention

    pairs = Pairs(drawn.prompts, (), drawn.answers(task.model))
    score = evaluate(model, Intervention(), pairs)["score"]
    return set(np.flatnonzero(score.values == 1).tolist())
