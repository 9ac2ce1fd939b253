"""What `nnheads das` is asked and given, and what it says on the terminal."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnheads.recipes import _options as options

if TYPE_CHECKING:
    from nnheads.interventions.counterfactuals import Pairs
    from nnheads.interventions.operations import At

APART = 1_000_000  # added to the seed of what is tested on
EVERY = 10  # steps between measurements
SHARE = 0.3  # of one's own pairs are tested on, at most
FEWEST = 8  # prompts that the model answers right


@dataclass(frozen=True, eq=False)
class Given:
    """Pairs to train and to test on, what they are about, and roles of their prompts."""

    fit: Pairs
    test: Pairs
    roles: tuple[str, ...]
    name: str
    about: str
    kept: str
    references: str = ""

    @property
    def digest(self) -> str:
        """A hash of all pairs."""
        import hashlib

        from nnheads.runs.provenance import prompts_hash

        found = hashlib.sha256()
        for one in (self.fit, self.test):
            texts = [prompts_hash(prompts.reset_coords()) for prompts in (one.base, *one.sources)]
            found.update(repr([*texts, one.answer.tolist()]).encode())
        return found.hexdigest()


def check(arguments: dict) -> None:
    """Refuse what no model could be asked before one is loaded."""
    from nnheads.errors import BadInput
    from nnheads.interventions.alignment import KINDS
    from nnheads.interventions.schema import SITES
    from nnheads.interventions.tasks import task_of

    options.positive(**{name: arguments[name] for name in ("steps", "step_pairs", "limit", "test")})
    for name in ("directions", "patience"):
        if arguments[name] is not None:
            options.positive(**{name: arguments[name]})
    if not 0 < arguments["learning_rate"] < float("inf"):
        raise BadInput(
            f"--learning-rate {arguments['learning_rate']} is not possible; it must be above 0"
        )
    for name, known in (("kind", KINDS), ("site", SITES)):
        if arguments[name] not in known:
            raise BadInput(
                f"--{name} {arguments[name]!r} is not known; use one of {', '.join(known)}"
            )
    if arguments["pairs"] is None:
        task = task_of(arguments["task"])
        task.model.check(arguments["variable"] or task.variable)
    elif arguments["variable"] is not None:
        raise BadInput(
            "--variable is of a causal model that ships; pairs of your own have their answers"
            " already"
        )


def read(path: Path) -> list[tuple[str, str, str]]:
    """One's own pairs, enough of them to learn from some and be tested on others."""
    from nnheads.errors import BadInput
    from nnheads.interventions.counterfactuals import read_counterfactuals

    found = list(dict.fromkeys(read_counterfactuals(path)))
    if len(found) < FEWEST:
        raise BadInput(f"{path} holds {len(found)} different pairs; give at least {FEWEST}")
    return found


def own_pairs(model, records: list[tuple[str, str, str]], arguments: dict) -> Given:
    """Pairs of a file: most to train on, the others to test on."""
    import numpy as np

    from nnheads.interventions.counterfactuals import from_texts

    order = np.random.default_rng(arguments["seed"]).permutation(len(records))
    tested = min(arguments["test"], max(1, int(len(records) * SHARE)))
    chosen = {"test": order[:tested], "fit": order[tested:][: arguments["limit"]]}
    pairs = from_texts(model.tokenizer, records)
    kept = f"{len(records)} pairs: {len(chosen['fit'])} to train on, {tested} to test on"
    name, about = f"variable of {arguments['pairs'].name}", "the answers that the file gives"
    return Given(pairs.rows(chosen["fit"]), pairs.rows(chosen["test"]), (), name, about, kept)


def given_pairs(model, arguments: dict) -> Given:
    """Pairs that a causal model gives, of prompts that the network answers as the causal model
    does.
    """
    from nnheads.errors import RunError
    from nnheads.interventions.causal_model import draw_counterfactuals
    from nnheads.interventions.tasks import task_of

    task, seed = task_of(arguments["task"]), arguments["seed"]
    variable = arguments["variable"] or task.variable
    sides: dict[str, Any] = {}
    told, seen = [], set()
    for side, n, own_seed in (
        ("train", arguments["limit"], seed),
        ("test", arguments["test"], seed + APART),
    ):
        drawn = task.draw(model.tokenizer, n, own_seed)
        new = [number for number, text in enumerate(drawn.texts()) if text not in seen]
        seen |= set(drawn.texts())
        fitting = right_ones(model, task, drawn)
        right = [number for number in new if number in fitting]
        if len(right) < FEWEST:
            raise RunError(
                f"{arguments['model']} answers {len(right)} of {len(new)} prompts of"
                f" {arguments['task']} right; at least {FEWEST} are needed to look for {variable}"
            )
        told.append(f"{len(right)} of {n} prompts to {side} on")
        kept = drawn.rows(right)
        sides[side] = kept.pairs(
            draw_counterfactuals(task.model, kept.inputs, variable, n, seed=own_seed)
        )
    name = f"{variable} ({arguments['task']})"
    return Given(
        sides["train"],
        sides["test"],
        task.roles,
        name,
        task.about,
        "; ".join(told),
        task.references,
    )


def right_ones(model, task, drawn) -> set[int]:
    """Numbers of the prompts that the network answers as the causal model does."""
    import numpy as np

    from nnheads.interventions.alignment import evaluate
    from nnheads.interventions.counterfactuals import Pairs
    from nnheads.interventions.schema import Intervention

    score = evaluate(model, Intervention(), Pairs(drawn.prompts, (), drawn.answers(task.model)))[
        "score"
    ]
    return set(np.flatnonzero(score.values == 1).tolist())


def places_of(text: str | None, given: Given) -> dict[str, At]:
    """`S2,END,-2` as positions by name; without a text all roles, or the last token."""
    from nnheads.errors import BadInput
    from nnheads.interventions.schema import index, role

    found = {}
    for word in (text or ",".join(given.roles) or "-1").split(","):
        name = word.strip()
        if re.fullmatch(r"-?\d{1,6}", name):
            found[name] = index(int(name))
        elif name in given.roles:
            found[name] = role(name)
        else:
            known = f"roles {', '.join(given.roles)}, or positions" if given.roles else "positions"
            raise BadInput(f"--at {name!r} is not known; use {known} such as 0 or -1")
    return found


def percent(values):
    """Shares as texts."""
    import numpy as np

    return np.vectorize(lambda value: f"{value:.0%}")(values)


def report(run) -> None:
    """Accuracy at every place, and the best one beside its controls."""
    from nnheads.interventions.localise import CONDITIONS

    table = run.load("places")
    options.say(f"{table.attrs['variable']}: {table.attrs['about']}; {table.attrs['kept']}")
    options.say(f"interchange accuracy on pairs never trained on, {table.attrs['site']}:")
    places = [str(name) for name in table["place"].values]
    options.say("  layer  " + "  ".join(f"{name:>9}" for name in places))
    for layer in table["layer"].values:
        row = table["trained"].sel(layer=layer).values
        options.say(f"  {int(layer):>5}  " + "  ".join(f"{value:>9.3f}" for value in row))
    layer, place = table.attrs["best_layer"], table.attrs["best_place"]
    options.say(f"best on pairs left out of training: layer {layer}, {place} [95% interval]")
    count, changed = len(run.load("scores")["batch"]), table.attrs["pairs_changed"]
    options.say(f"  {'':<42} {f'all {count} pairs':<22} the {changed} whose answer changes")
    one = table.sel(layer=layer, place=place)
    for name, text in CONDITIONS.items():
        whole = options.with_interval(one, name)
        # without an edit none of them is right: that is how they are chosen
        changed_only = "0.000" if name == "none" else options.with_interval(one, f"{name}_changed")
        options.say(f"  {text:<42} {whole:<22} {changed_only}")
    for file in ("scores.nc", "places.nc", "places.png", "intervention"):
        options.say(options.shown(run.folder / file))
