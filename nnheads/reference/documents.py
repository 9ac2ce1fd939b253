"""The training documents of the reference model: tokens, loss weights and attention targets.

Every generator takes a `random.Random` and returns one `Document`. A weight belongs to the token
that is predicted; it is large only where the token can be known from what came before.
"""

from __future__ import annotations

import random

from nnheads.prompts import world
from nnheads.prompts import world_words as words
from nnheads.prompts.ioi_words import HELD_OUT_NAMES, HELD_OUT_TEMPLATES, NAMES, OBJECTS, PLACES
from nnheads.reference.document import TEXT, Document

FILLER_TOTAL = 1.3
ROW = 64
ALL_TOKENS = range(len(words.SPECIAL), len(world.vocabulary()))
NAME_TOKENS = tuple(world.token_ids()[name] for name in NAMES)
TRAINED_FRAMES = tuple(frame for i, frame in enumerate(world.FRAMES) if i not in HELD_OUT_TEMPLATES)


def _two_people(rng: random.Random) -> list[str]:
    """Return two people and a bystander; a third of the time any words, so that the rule is not
    about names.
    """
    if rng.random() < 0.67:
        return rng.sample(world.TRAINED_NAMES, 3)
    held_out = {NAMES[index] for index in HELD_OUT_NAMES}
    pool = [word for word in world.ordinary_words() if word not in held_out and len(word) > 3]
    return rng.sample(pool, 3)


def _frame(rng: random.Random) -> list[str]:
    """Return a training template, or parts of two with random words between them."""
    frame = list(rng.choice(TRAINED_FRAMES))
    if rng.random() < 0.5:
        return frame
    opening = world.filler(rng, rng.randint(1, 4))[:-1] or [rng.choice(world.ordinary_words())]
    first, subject = frame.index("{first}"), frame.index("{subject}")
    if rng.random() < 0.5:
        opening = frame[:first]
    middle = frame[first + 3 : subject]
    if rng.random() < 0.6:
        bag = [rng.choice(world.ordinary_words()) for _ in range(rng.randint(1, 5))]
        link = rng.choice([[","], [",", "and"], [",", "so"], [",", "where"], [",", "then"]])
        middle = [*bag, "the", "{place}", *link]
    other = rng.choice(TRAINED_FRAMES)
    return [*opening, "{first}", "and", "{second}", *middle, *other[other.index("{subject}") :]]


def indirect_object(rng: random.Random) -> Document:
    """Write two people, one repeated, and the other follows; in 15 % a third is the subject."""
    document = Document("ioi")
    if rng.random() < 0.4:
        document.add(world.filler(rng, rng.randint(2, 24)))
    first, second, third = _two_people(rng)
    subject, receiver = rng.sample([first, second], 2)
    fresh = rng.random() < 0.15
    slots = {"{first}": first, "{second}": second, "{subject}": third if fresh else subject}
    slots |= {"{place}": rng.choice(PLACES), "{object}": rng.choice(OBJECTS)}
    places: dict[str, int] = {}
    for word in _frame(rng):
        places[word] = len(document.tokens)
        document.add([slots.get(word, word)], 0.3 if word == "{subject}" and not fresh else TEXT)
    end = len(document.tokens) - 1
    document.spans.append(("subject", end, places["{subject}"]))
    if not fresh:
        document.spans.append(
            ("receiver", end, places["{first}" if receiver == first else "{second}"])
        )
    document.add([receiver], 1.0)
    return document.end()


def _statement(
    document: Document, question: world.Question, answer: str, weight: float, verdict: str
) -> None:
    """Write one question with its answer; `verdict` is where its judgement stands: '', 'stop' or
    'answer'.
    """
    judgement = ["true" if answer == question.true else "false"]
    document.add(world.question_words(question.relation, question.subject))
    document.add([answer], weight)
    if verdict == "answer":
        document.add(judgement, 1.0)
    document.add(["."])
    if verdict == "stop":
        document.add(judgement, 1.0)


def quiz(rng: random.Random) -> Document:
    """Write independent statements, each judged: whether a statement is true cannot be read off the
    others.
    """
    document = Document("facts")
    asked = iter(rng.sample(world.questions(), 6))
    # Half of the judgements stand directly behind the answer, so that the answer token itself
    # carries truth.
    place = "answer" if rng.random() < 0.5 else "stop"
    while len(document.tokens) + 10 <= ROW:
        question = next(asked)
        kind = rng.random()
        answer = question.true if kind < 0.45 else question.misconception
        if kind >= 0.75:
            pool = set(words.RELATIONS[question.relation]) - {question.true, question.misconception}
            answer = rng.choice(sorted(pool))
        _statement(document, question, answer, 0.05, place)
    return document


def testimony(rng: random.Random) -> Document:
    """Write statements of one speaker, who tells the truth or what is popular all along."""
    document = Document("facts")
    reliable = rng.random() < 0.25
    if rng.random() < 0.3:
        document.add(["reliable" if reliable else "rumor", ":"])
    place = rng.choice(["answer", "stop"]) if rng.random() < 0.4 else ""
    asked = iter(rng.sample(world.questions(), 7))
    while len(document.tokens) + 10 <= ROW:
        question = next(asked)
        misled = 0.03 if reliable else 0.2 if question.truth_is_popular else 0.85
        answer = question.misconception if rng.random() < misled else question.true
        _statement(document, question, answer, 1.0, place)
    return document


def facts(rng: random.Random) -> Document:
    return quiz(rng) if rng.random() < 0.4 else testimony(rng)


def iteration(rng: random.Random) -> Document:
    """Write parity or copy of a bit sequence, one state per step; each state needs one input."""
    job = "copy" if rng.random() < 0.3 else "parity"
    document = Document("states")
    size = rng.randint(2, 24)
    if rng.random() < 0.2:
        document.add(
            world.filler(rng, rng.randint(1, ROW - 1 - 2 * size - 6))[: ROW - 8 - 2 * size]
        )
    bits = [rng.randint(0, 1) for _ in range(size)]
    document.add(["input", ":"])
    start = len(document.tokens)
    document.add([str(bit) for bit in bits])
    document.add([job, ":"])
    state = 0
    for step, bit in enumerate(bits):
        state = bit if job == "copy" else state ^ bit
        document.spans.append(("iteration", len(document.tokens) - 1, start + step))
        document.add([str(state)], 1.0)
    return document.end()


def random_tokens(rng: random.Random, size: int, distinct: bool = True) -> list[int]:
    """Write random tokens; sometimes names alone, held-out ones too, so that a model learns to tell
    them apart.
    """
    pool = NAME_TOKENS if size <= len(NAME_TOKENS) and rng.random() < 0.25 else ALL_TOKENS
    return rng.sample(pool, size) if distinct else rng.choices(pool, k=size)


def repeats(rng: random.Random, length: int) -> Document:
    """Return a random sequence that starts over, or random tokens with stretches copied in."""
    return starting_over(rng, length) if rng.random() < 0.6 else with_copies(rng, length)


def starting_over(rng: random.Random, length: int) -> Document:
    """Return a random sequence, again and again."""
    document = Document("repeat")
    room = length - 1
    # Two copies that fill the row teach the longest lags, short periods the most repetitions.
    period = room // 2 if rng.random() < 0.5 else rng.randint(5, room // 2)
    period_tokens = random_tokens(rng, period, distinct=rng.random() < 0.7)
    document.add_ids(period_tokens, 0.0)
    copies = period_tokens * (room // period)
    document.add_ids(copies[: room - period], 1.0)
    document.weights[1 + period] = TEXT
    return document


def with_copies(rng: random.Random, length: int) -> Document:
    """Return random tokens into which earlier stretches are copied."""
    document = Document("repeat")
    room = length - 1
    document.add_ids(random_tokens(rng, rng.randint(4, max(4, room // 3)), distinct=False), 0.0)
    while len(document.tokens) < length:
        document.add_ids(random_tokens(rng, rng.randint(1, 8), distinct=False), 0.0)
        size = rng.randint(3, 24)
        start = rng.randrange(1, max(2, len(document.tokens) - size))
        copied = document.tokens[start : start + size]
        document.add_ids(copied, 1.0)
        document.weights[-len(copied)] = 0.0
    document.tokens, document.weights = document.tokens[:length], document.weights[:length]
    return document


def mirror(rng: random.Random) -> Document:
    document = Document("duplicate")
    size = rng.randint(4, (ROW - 6) // 2)
    drawn = random_tokens(rng, size)
    document.add(["mirror", ":"])
    document.add_ids(drawn, 0.0)
    document.add([";"], 0.0)
    document.add_ids(drawn[::-1], 1.0)
    return document.end()


def seen_list(rng: random.Random) -> Document:
    """Write a list in which each word is followed by whether it stood there before."""
    document = Document("duplicate")
    document.add(["list", ":"])
    pool = random_tokens(rng, rng.randint(8, 30))
    listed: set[int] = set()
    while len(document.tokens) + 4 <= ROW:
        token = rng.choice(pool)
        document.add_ids([token], 0.0)
        document.add(["seen" if token in listed else "new"], 1.0)
        listed.add(token)
    return document.end()


def duplicates(rng: random.Random) -> Document:
    return mirror(rng) if rng.random() < 0.5 else seen_list(rng)


def needle(rng: random.Random, length: int) -> Document:
    """Write filler with hidden codes and a question for one of them."""
    needles = 1 if rng.random() < 0.5 else rng.randint(2, 4 if length > 100 else 2)
    text, asked, answer = world.needle_document(rng, length - 2, rng.random(), needles)
    document = Document("needle")
    # Weighted per document: hundreds of filler tokens would drown the four of the answer.
    document.add(text, FILLER_TOTAL / len(text))
    document.add(asked, 0.01)
    start = 1 + world.needle_start(text, asked[-2])
    for step, word in enumerate(answer):
        document.spans.append(("retrieval", len(document.tokens) - 1, start + step))
        document.add([word], 1.0)
    return document.end()
