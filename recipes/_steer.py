"""What `nnheads steer` is asked: texts, strengths, sampling, and a saved intervention."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnheads.recipes._checks import check_at_least, check_choice

from nnheads.errors import BadInput

if TYPE_CHECKING:
    from nnheads.recipes._study import Study

    from nnheads.interventions.schema import Intervention

SCOPES = ("all", "prompt", "decode")  # where a direction is added
READS = ("all", "end")  # which tokens give it
STRENGTHS = "0,0.5,1,2,4"
LARGEST = 1e6  # below which strengths have to be
# said of nothing in particular, for models whose own world is the world
NEUTRAL = (
    "The train to the coast leaves at nine and arrives shortly before noon.",
    "She put the keys on the table and opened the window.",
    "Most of the houses in this street were built about a hundred years ago.",
    "To make the dough, mix the flour with water and let it rest for an hour.",
    "The committee will meet again on Thursday to discuss the budget.",
    "A river runs through the valley and turns north behind the hills.",
    "He wrote down the number, closed the notebook and went back to work.",
    "The museum shows paintings, maps and tools from three centuries.",
    "In winter the shop closes at five, in summer it stays open until seven.",
    "The bridge is long enough for two cars and a bicycle side by side.",
    "They planted beans, carrots and onions behind the house.",
    "The report has four chapters and a list of figures at the end.",
)
STATEMENTS = 3  # in a text of the reference's own world
TEXTS = 32  # of each sort
QUESTIONS = 8  # as prompts
FILLER = 24  # words of a neutral text


@dataclass(frozen=True, eq=False)
class Texts:
    """What steers, what is continued, and what should stay as it is.

    toward, away: None where a saved intervention says which way.
    """

    toward: list[str] | None
    away: list[str] | None
    prompts: list[str]
    neutral: list[str]

    @property
    def digest(self) -> str:
        """A hash of all texts."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self)).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Request:
    """Texts, a saved intervention if one was named, what it is called, and the strengths."""

    texts: Texts
    saved: Intervention | None
    name: str
    strengths: list[float]


def request_of(study: Study) -> Request:
    """Return what the options ask for, and refuse what no model could be asked."""
    check(study)
    texts, source = texts_of(study), study.intervention
    saved = None if source is None else saved_edits(source, study.trust)
    return Request(texts, saved, identity_of(source, saved), strengths_of(study.strength, saved))


def check(study: Study) -> None:
    """Refuse options that contradict each other, and values that are none."""
    from nnheads.interventions.sampling import sampling

    check_at_least(1, draws=study.draws, new_tokens=study.new_tokens)
    check_choice("--at", study.at, SCOPES)
    check_choice("--read", study.read, READS)
    number = study.layer.isascii() and study.layer.isdigit()
    if study.layer != "auto" and not number:
        raise BadInput(f"--layer {study.layer!r} is not possible; use a number or auto")
    check_prompts(study.arguments)
    check_saved(study)
    if (study.toward is None) != (study.away is None):
        raise BadInput("--toward and --away belong together; give both or neither")
    sampling(sample_of(study.arguments))


def check_prompts(arguments: dict[str, Any]) -> None:
    """Refuse two sources of prompts."""
    if arguments["prompt"] is not None and arguments["prompts"] is not None:
        raise BadInput(
            "--prompt and --prompts exclude each other; what is continued comes from one of them"
        )


def check_saved(study: Study) -> None:
    """Refuse options of a direction with a saved intervention, and trust without one."""
    if study.intervention is None:
        if study.trust:
            raise BadInput(
                "--trust is for a saved intervention; name one with --intervention, or leave it out"
            )
        return
    usual = {"layer": "auto", "site": "resid_post", "read": "all", "at": "all"}
    for name, value in usual.items():
        if study.arguments[name] != value:
            raise BadInput(
                f"--{name} is for a direction; a saved intervention says itself where it acts"
            )


def sample_of(arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Return how tokens are drawn; None for the likeliest."""
    drawn = {
        name: arguments[name] for name in ("temperature", "top_p") if arguments[name] is not None
    }
    return {**drawn, "seed": arguments["seed"]} if drawn else None


def texts_of(study: Study) -> Texts:
    """Return texts of every kind, from files, or of the reference model's own world."""
    from nnheads.interventions.steering_directions import check_texts
    from nnheads.models.shipped import REFERENCE

    world: dict[str, list[str]] = own_world(study.seed) if study.name == REFERENCE else {}
    read = {
        name: world.get(name) if study.arguments[name] is None else lines_of(study.arguments[name])
        for name in ("toward", "away", "prompts", "neutral")
    }
    prompts = read["prompts"] if study.prompt is None else [study.prompt]
    if read["toward"] is None and study.intervention is None:
        raise BadInput(
            "--toward and --away are needed: two files of texts, one a line (only the reference has"
            " its own)"
        )
    if prompts is None:
        raise BadInput("--prompt or --prompts is needed: what the model continues")
    if study.intervention is None:
        for name in ("toward", "away"):
            check_texts(name, read[name] or [])
    if read["toward"] is not None and set(read["toward"]) == set(read["away"] or []):
        raise BadInput("--toward and --away are the same texts; no direction leads between them")
    return Texts(read["toward"], read["away"], prompts, read["neutral"] or list(NEUTRAL))


def lines_of(path: Path) -> list[str]:
    """Return the texts of a file, one a line."""
    from nnheads.spans.lines import numbered_lines

    return [line.strip() for _, line in numbered_lines(path, "one text a line")]


def own_world(seed: int) -> dict[str, list[str]]:
    """Return texts of the reference model's world: statements that are true, and statements that
    are popular mistakes. The questions asked as prompts stand in none of them.
    """
    from nnheads.prompts import world

    rng = random.Random(seed)
    disputed = [question for question in world.questions() if not question.truth_is_popular]
    rng.shuffle(disputed)
    asked, told = disputed[:QUESTIONS], disputed[QUESTIONS:]
    return {
        "toward": [statements(rng, told, "true") for _ in range(TEXTS)],
        "away": [statements(rng, told, "misconception") for _ in range(TEXTS)],
        "prompts": [question.text for question in asked],
        "neutral": [" ".join(world.filler(rng, FILLER)) for _ in range(TEXTS // 2)],
    }


def statements(rng: random.Random, questions: list, answer: str) -> str:
    """Return a text of questions with their answers of one sort, drawn."""
    from nnheads.prompts import world

    text: list[str] = []
    for question in rng.sample(questions, STATEMENTS):
        words = world.question_words(question.relation, question.subject)
        text += [*words, getattr(question, answer), "."]
    return " ".join(text)


def saved_edits(source: str, trust: bool) -> Intervention:
    """Return an intervention of a folder or of the Hub, if it can be steered with."""
    from nnheads.interventions.files import load

    try:
        found = load(source, trust=trust)
    except BadInput as error:
        raise BadInput(str(error).replace("load with trust=True", "use --trust")) from None
    if found.sources:
        raise BadInput(
            f"intervention {source!r} takes {found.sources} source prompts, which steer does not"
            " have"
        )
    return found


def identity_of(source: str | None, saved: Intervention | None) -> str:
    """Return the name of a saved intervention, and a hash of what it says."""
    if saved is None:
        return ""
    digest = hashlib.sha256(repr(saved.edits).encode())
    for name, tensor in sorted(saved.tensors.items()):
        digest.update(name.encode() + tensor.detach().float().numpy().tobytes())
    return f"{Path(source or '').name} {digest.hexdigest()[:12]}"


def strengths_of(text: str, saved: Intervention | None) -> list[float]:
    """Return the strengths to sweep; without and with, for what cannot be scaled."""
    if saved is None or any(edit.do.name in ("add", "subtract") for edit in saved.edits):
        return numbers_in(text)
    if text != STRENGTHS:
        raise BadInput(
            "--strength scales what an intervention adds, and this one adds nothing; leave it out"
        )
    return [0.0, 1.0]


def numbers_in(text: str) -> list[float]:
    """Return `0,1,2.5` as [0.0, 1.0, 2.5], in order, with the 0 that all others are compared to."""
    try:
        numbers = {float(piece) for piece in text.split(",")}
    except ValueError:
        numbers = set()
    if not numbers or not all(abs(number) < LARGEST for number in numbers):
        raise BadInput(f"--strength {text!r} is no list of numbers; write 0,1,2,4,8")
    return sorted({0.0, *numbers})
