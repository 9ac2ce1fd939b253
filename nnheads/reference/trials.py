"""Fresh test prompts for the reference model as plain tensors, built from its world."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch

from nnheads.prompts import world
from nnheads.prompts import world_words as words
from nnheads.prompts.ioi_words import HELD_OUT_NAMES, HELD_OUT_TEMPLATES, NAMES, OBJECTS, PLACES


@dataclass(frozen=True)
class Batch:
    """Prompts of one length with `answers` marking the tokens to be predicted.

    `queries` and `keys` say where a head that does the task looks: prompt b's query position
    queries[b, i] should attend to keys[b, i].
    """

    tokens: torch.Tensor
    answers: torch.Tensor
    queries: torch.Tensor
    keys: torch.Tensor


@dataclass(frozen=True)
class Sentence:
    """Words of one indirect-object sentence up to where the receiver is expected."""

    words: tuple[str, ...]
    receiver: str
    subject: str
    subject_at: int
    receiver_at: int


@dataclass(frozen=True)
class People:
    sentences: tuple[Sentence, ...]

    def groups(self) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Return sentences of one length at a time: tokens, receivers, subjects."""
        found = []
        for length in sorted({len(sentence.words) for sentence in self.sentences}):
            same = [sentence for sentence in self.sentences if len(sentence.words) == length]
            ids = world.token_ids()
            receivers = torch.tensor([ids[sentence.receiver] for sentence in same])
            subjects = torch.tensor([ids[sentence.subject] for sentence in same])
            found.append((encode([list(sentence.words) for sentence in same]), receivers, subjects))
        return found

    def corrupted(self) -> People:
        """Return the receiver named a second time in place of the subject, which now follows."""
        return self._with([sentence.receiver for sentence in self.sentences])

    def fresh(self, rng: random.Random, *, held_out: bool) -> People:
        """Return a third person for the subject's second mention: both others may follow."""
        pool = [name for index, name in enumerate(NAMES) if (index in HELD_OUT_NAMES) == held_out]
        return self._with(
            [rng.choice([name for name in pool if name not in s.words]) for s in self.sentences]
        )

    def _with(self, names: list[str]) -> People:
        changed = []
        for sentence, name in zip(self.sentences, names, strict=True):
            text = list(sentence.words)
            text[sentence.subject_at - 1] = name
            changed.append(replace(sentence, words=tuple(text)))
        return People(tuple(changed))


def encode(texts: list[list[str]]) -> torch.Tensor:
    """Return texts of equal length as token ids with `<bos>` in front."""
    ids = world.token_ids()
    return torch.tensor([[ids["<bos>"], *(ids[word] for word in text)] for text in texts])


def people(rng: random.Random, size: int, *, held_out: bool) -> People:
    """Return indirect-object sentences with the trained or the held-out templates and names."""
    frames = [f for i, f in enumerate(world.FRAMES) if (i in HELD_OUT_TEMPLATES) == held_out]
    names = [name for i, name in enumerate(NAMES) if (i in HELD_OUT_NAMES) == held_out]
    found = []
    for index in range(size):
        frame = frames[index % len(frames)]
        first, second = rng.sample(names, 2)
        subject, receiver = rng.sample([first, second], 2)
        slots = {"{first}": first, "{second}": second, "{subject}": subject}
        slots |= {"{place}": rng.choice(PLACES), "{object}": rng.choice(OBJECTS)}
        text = tuple(slots.get(word, word) for word in frame)
        # Positions count <bos>.
        receiver_at = 1 + frame.index("{first}" if receiver == first else "{second}")
        found.append(Sentence(text, receiver, subject, 1 + frame.index("{subject}"), receiver_at))
    return People(tuple(found))


def repeated(rng: random.Random, period: int, size: int) -> Batch:
    """Return `<bos> r r` with `period` distinct random tokens; queries and keys are those of
    induction.
    """
    plain = range(len(words.SPECIAL), len(world.vocabulary()))
    drawn = torch.tensor([rng.sample(plain, period) for _ in range(size)])
    bos = torch.full((size, 1), world.token_ids()["<bos>"])
    tokens = torch.cat([bos, drawn, drawn], 1)
    answers = torch.zeros_like(tokens, dtype=torch.bool)
    # The first token of the second copy cannot be known.
    answers[:, period + 2 :] = True
    queries = torch.arange(period + 1, 2 * period + 1).expand(size, -1)
    return Batch(tokens, answers, queries, queries - period + 1)


def states(rng: random.Random, job: str, steps: int, size: int) -> Batch:
    """Return `input : b1..bn parity : s1..sn` (or copy); the head for state t looks at input t."""
    texts = []
    for _ in range(size):
        bits = [rng.randint(0, 1) for _ in range(steps)]
        totals = bits if job == "copy" else [sum(bits[: step + 1]) % 2 for step in range(steps)]
        texts.append(["input", ":", *map(str, bits), job, ":", *map(str, totals)])
    tokens = encode(texts)
    answers = torch.zeros_like(tokens, dtype=torch.bool)
    answers[:, -steps:] = True
    queries = torch.arange(steps + 4, 2 * steps + 4).expand(size, -1)
    return Batch(tokens, answers, queries, torch.arange(3, steps + 3).expand(size, -1))


def needles(rng: random.Random, length: int, size: int, hidden: int = 1) -> Batch:
    """Return documents of `length` tokens with the asked needle at evenly spread depths."""
    texts, starts = [], []
    for index in range(size):
        depth = index / max(1, size - 1)
        text, question, answer = world.needle_document(rng, length, depth, hidden)
        texts.append([*text, *question, *answer])
        starts.append(1 + world.needle_start(text, question[-2]))
    tokens = encode(texts)
    answers = torch.zeros_like(tokens, dtype=torch.bool)
    answers[:, -world.CODE_LENGTH :] = True
    steps = torch.arange(world.CODE_LENGTH)
    queries = (length - world.CODE_LENGTH - 1 + steps).expand(size, -1)
    return Batch(tokens, answers, queries, torch.tensor(starts)[:, None] + steps)
