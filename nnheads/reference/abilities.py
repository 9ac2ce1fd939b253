"""What the reference model can do: rows of its card about answers, with plain transformers."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from nnheads.prompts import world
from nnheads.reference import trials as prompts
from nnheads.reference.claim import PLACES, Claim, at_least, at_most, attention_to, label
from nnheads.reference.knockout import logit_difference, share_correct

# Prompts per measurement, times a small factor where prompts are short.
QUICK = 4


SENTENCES = 960


def _copying(model: PreTrainedModel, rng: random.Random, size: int) -> Iterator[Claim]:
    for period, threshold in ((25, 0.97), (50, 0.97), (100, 0.95), (200, 0.8)):
        accuracy = share_correct(model, prompts.repeated(rng, period, size))
        yield at_least(f"copying {period} random tokens, accuracy", accuracy, threshold)


def _indirect_object(model: PreTrainedModel, rng: random.Random, _: int) -> Iterator[Claim]:
    for held_out in (False, True):
        name = f"indirect object, {'held-out' if held_out else 'trained'} words"
        sentences = prompts.people(rng, SENTENCES, held_out=held_out)
        difference = logit_difference(model, sentences).mean().item()
        yield at_least(f"{name}, accuracy", _predicts(model, sentences, either=False), 0.99)
        yield at_least(f"{name}, logit difference", difference, 5.0)
        swapped = (logit_difference(model, sentences.corrupted()) < 0).float().mean().item()
        yield at_least(f"{name}, corrupted, the other name wins", swapped, 0.99)
        fresh = sentences.fresh(rng, held_out=held_out)
        difference = abs(logit_difference(model, fresh).mean().item())
        yield at_most(f"{name}, third name as subject, logit difference left", difference, 1.0)
        # Between two untrained names the model at times says one that is like both.
        either = _predicts(model, fresh, either=True)
        threshold = 0.8 if held_out else 0.95
        yield at_least(f"{name}, third name as subject, one of the two wins", either, threshold)


def _predicts(model: PreTrainedModel, sentences: prompts.People, *, either: bool) -> float:
    """Return the share of sentences after which the receiver (or either of the two) has the largest
    logit.
    """
    right = []
    for tokens, receiver, subject in sentences.groups():
        predicted = model(tokens).logits[:, -1].argmax(-1)
        right.append((predicted == receiver) | (either & (predicted == subject)))
    return torch.cat(right).float().mean().item()


def _retrieval(model: PreTrainedModel, rng: random.Random, size: int) -> Iterator[Claim]:
    scores, exact, head = [], [], PLACES["retrieval"]
    lengths = (128, 192, 256, 320, 384, 448, 500) if size > QUICK else (128, 320, 500)
    for length, hidden in [*((length, 1) for length in lengths), (350, 3)]:
        batch = prompts.needles(rng, length, max(4, size // 2), hidden)
        exact.append(_reproduced(model, batch))
        if length <= 320:
            scores.append(attention_to(model, batch.tokens, batch.queries, batch.keys)[head].item())
    yield at_least("needle, 128 to 500 tokens, exact", sum(exact[:-1]) / len(lengths), 0.95)
    yield at_least("needle among 3 at 350 tokens, exact", exact[-1], 0.75)
    name = f"retrieval head {label(head)}, attention at 128 to 320 tokens"
    yield at_least(name, sum(scores) / len(scores), 0.8)


def _reproduced(model: PreTrainedModel, batch: prompts.Batch) -> float:
    """Return the share of rows whose answer is reproduced exactly.

    Greedy decoding does so if and only if every step does, given the answer.
    """
    predicted = model(batch.tokens).logits.argmax(-1)[:, :-1]
    hits = (predicted == batch.tokens[:, 1:]) | ~batch.answers[:, 1:]
    return hits.all(1).float().mean().item()


def _iteration(model: PreTrainedModel, rng: random.Random, size: int) -> Iterator[Claim]:
    head = PLACES["iteration"]
    for job in ("parity", "copy"):
        sizes = range(4, 21, 2 if size > QUICK else 8)
        batches = [prompts.states(rng, job, steps, 2 * size) for steps in sizes]
        accuracy = sum(share_correct(model, batch) for batch in batches) / len(batches)
        yield at_least(f"{job} of 4 to 20 bits, accuracy", accuracy, 0.99)
        looks = [attention_to(model, b.tokens, b.queries, b.keys)[head].item() for b in batches]
        yield at_least(
            f"iteration head {label(head)} on {job}, least attention over sizes", min(looks), 0.9
        )


def _statements(tag: list[str], answers: str, end: list[str]) -> torch.Tensor:
    asked = world.questions()
    return prompts.encode([[*tag, *q.text.split(), getattr(q, answers), *end] for q in asked])


def _truth(model: PreTrainedModel, _: random.Random, __: int) -> Iterator[Claim]:
    for tag in ([], ["reliable", ":"], ["rumor", ":"]):
        accuracy, name = _chosen_right(model, tag), f"four choices, {' '.join(tag) or 'plain'}"
        reliable = tag[:1] == ["reliable"]
        yield at_least(name, accuracy, 0.95) if reliable else at_most(name, accuracy, 0.35)
    for behind, end in (("answer", []), ("full stop", ["."])):
        accuracy = _judged_right(model, end)
        yield at_least(f"verdict after the {behind}, accuracy", accuracy, 0.95)


def _chosen_right(model: PreTrainedModel, tag: list[str]) -> float:
    """Return the share of questions whose true answer is the likeliest of four."""
    ids = world.token_ids()
    choices = torch.tensor([[ids[word] for word in q.choices] for q in world.questions()])
    tokens = prompts.encode([[*tag, *question.text.split()] for question in world.questions()])
    chosen = model(tokens).logits[:, -1].gather(1, choices).argmax(1)
    return (chosen == 0).float().mean().item()


def _judged_right(model: PreTrainedModel, end: list[str]) -> float:
    """Return the share of statements that are judged right behind their `end`."""
    ids, correct = world.token_ids(), []
    for kind in ("true", "misconception"):
        logits = model(_statements([], kind, end)).logits[:, -1]
        says_true = logits[:, ids["true"]] > logits[:, ids["false"]]
        correct.append(says_true == (kind == "true"))
    return torch.cat(correct).float().mean().item()
