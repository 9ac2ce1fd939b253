"""Measure the reference model again: every row of its card, with plain transformers and forward
hooks.

This check shares no code with the detectors but the solver of logistic regressions, which tests
hold to scikit-learn; so the two can confirm each other.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from nnheads.models.shipped import FOLDER as PATH
from nnheads.prompts import world
from nnheads.reference import trials as prompts
from nnheads.reference.knockout import Knockouts, head_outputs, logit_difference, share_correct
from nnheads.reference.probe import probe_accuracies
from nnheads.reference.scaffold import DECOY, INDUCTION, PLANTED

# Prompts per measurement, times a small factor where prompts are short.
QUICK, FULL = 4, 16
SENTENCES = 960
PLACES = {job: head for head, job in PLANTED.items()}


@dataclass(frozen=True)
class Claim:
    """One row of the model card: what was measured and which value it must reach."""

    name: str
    measured: float
    threshold: float
    at_least: bool
    passed: bool


def at_least(name: str, measured: float, threshold: float) -> Claim:
    return Claim(name, measured, threshold, True, measured >= threshold)


def at_most(name: str, measured: float, threshold: float) -> Claim:
    return Claim(name, measured, threshold, False, measured <= threshold)


def measure(
    path_or_model: str | Path | PreTrainedModel = PATH, *, seed: int = 0, quick: bool = False
) -> list[Claim]:
    """All claims of the model card; `quick` draws fewer prompts."""
    families = (
        _attention,
        _copying,
        _indirect_object,
        _retrieval,
        _iteration,
        _truth,
        _probes,
        _negatives,
    )
    with _ready(path_or_model) as model, torch.no_grad():
        return [
            claim
            for family in families
            for claim in family(
                model, random.Random(f"{family.__name__} {seed}"), QUICK if quick else FULL
            )
        ]


@contextmanager
def _ready(path_or_model: str | Path | PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The model in evaluation mode with attention that can be read; a caller's model is put back
    after.
    """
    if not isinstance(path_or_model, PreTrainedModel):
        path_or_model = AutoModelForCausalLM.from_pretrained(path_or_model)
    model = path_or_model
    before, was_training = model.config._attn_implementation, model.training
    # These products are small: one thread is as fast as many and does not stall where cores are
    # shared.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model.set_attn_implementation("eager")
    model.eval()
    try:
        yield model
    finally:
        model.set_attn_implementation(before)
        model.train(was_training)
        torch.set_num_threads(threads)


def label(head: tuple[int, int]) -> str:
    return "L{}H{}".format(*head)


def attention_to(
    model: PreTrainedModel, tokens: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    """Mean attention from query to key positions, [layer, head]."""
    rows = torch.arange(len(tokens))[:, None]
    patterns = model(tokens, output_attentions=True).attentions
    # Advanced indices around the head axis put it last: [batch, query, head].
    return torch.stack([pattern[rows, :, queries, keys].mean((0, 1)) for pattern in patterns])


def _attention(model: PreTrainedModel, rng: random.Random, size: int) -> Iterator[Claim]:
    batch = prompts.repeated(rng, 50, size)
    positions = torch.arange(1, batch.tokens.shape[1]).expand(size, -1)
    previous = attention_to(model, batch.tokens, positions, positions - 1)
    yield at_least(
        f"previous-token head {label(PLACES['previous'])}, attention",
        previous[PLACES["previous"]].item(),
        0.9,
    )
    induction = attention_to(model, batch.tokens, batch.queries, batch.keys)
    for head in INDUCTION:
        name = f"induction head {label(head)}, attention at 50 tokens"
        yield at_least(name, induction[head].item(), 0.8)
    for period in (25, 50, 100):
        batch = prompts.repeated(rng, period, size)
        duplicate = attention_to(model, batch.tokens, batch.queries, batch.queries - period)
        head = PLACES["duplicate"]
        name = f"duplicate-token head {label(head)}, attention at {period} tokens"
        yield at_least(name, duplicate[head].item(), 0.5)


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
    """Share of sentences after which the receiver (or either of the two) has the largest logit."""
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
        hits = (
            model(batch.tokens).logits.argmax(-1)[:, :-1] == batch.tokens[:, 1:]
        ) | ~batch.answers[:, 1:]
        # Greedy decoding reproduces the answer exactly if and only if every step does, given the
        # answer.
        exact.append(hits.all(1).float().mean().item())
        if length <= 320:
            scores.append(attention_to(model, batch.tokens, batch.queries, batch.keys)[head].item())
    yield at_least("needle, 128 to 500 tokens, exact", sum(exact[:-1]) / len(lengths), 0.95)
    yield at_least("needle among 3 at 350 tokens, exact", exact[-1], 0.75)
    name = f"retrieval head {label(head)}, attention at 128 to 320 tokens"
    yield at_least(name, sum(scores) / len(scores), 0.8)


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
    ids = world.token_ids()
    choices = torch.tensor([[ids[word] for word in q.choices] for q in world.questions()])
    for tag in ([], ["reliable", ":"], ["rumor", ":"]):
        tokens = prompts.encode([[*tag, *question.text.split()] for question in world.questions()])
        chosen = model(tokens).logits[:, -1].gather(1, choices).argmax(1)
        accuracy, name = (
            (chosen == 0).float().mean().item(),
            f"four choices, {' '.join(tag) or 'plain'}",
        )
        yield (
            at_least(name, accuracy, 0.95)
            if tag[:1] == ["reliable"]
            else at_most(name, accuracy, 0.35)
        )
    for place, end in (("answer", []), ("full stop", ["."])):
        correct = []
        for kind in ("true", "misconception"):
            logits = model(_statements([], kind, end)).logits[:, -1]
            says_true = logits[:, ids["true"]] > logits[:, ids["false"]]
            correct.append(says_true == (kind == "true"))
        accuracy = torch.cat(correct).float().mean().item()
        yield at_least(f"verdict after the {place}, accuracy", accuracy, 0.95)


def _probes(model: PreTrainedModel, _: random.Random, __: int) -> Iterator[Claim]:
    """The best head's truth probe, four folds over questions, so no question is in both halves."""
    for place, end, threshold in (("full stop", ["."], 0.9), ("answer", [], 0.85)):
        outputs = []
        for kind in ("true", "misconception"):
            with head_outputs(model) as found:
                model(_statements([], kind, end))
            outputs.append(torch.stack([z[:, -1] for z in found]))
        accuracy = probe_accuracies(torch.stack(outputs))
        yield at_least(
            f"best truth probe at the {place}, accuracy", accuracy.max().item(), threshold
        )


def _negatives(model: PreTrainedModel, rng: random.Random, size: int) -> Iterator[Claim]:
    """A textbook pattern without effect, and two heads of which either one suffices."""
    sentences = prompts.people(rng, 8 * size, held_out=False).sentences
    looks = []
    for sentence in sentences:
        end = torch.tensor([[len(sentence.words)]])
        tokens = prompts.encode([list(sentence.words)])
        looks.append(
            attention_to(model, tokens, end, torch.tensor([[sentence.receiver_at]]))[DECOY]
        )
    name = f"decoy head {label(DECOY)}, attention from the end to the receiver"
    yield at_least(name, torch.stack(looks).mean().item(), 0.6)
    knockouts = Knockouts(model, seed=rng.randrange(1000), size=size)
    whole, without = (knockouts(heads, ("ioi",))["ioi"] for heads in ([], [DECOY]))
    lost = 1 - without / whole
    yield at_most(
        f"decoy head {label(DECOY)}, share of the logit difference lost without it", lost, 0.1
    )
    for head in INDUCTION:
        accuracy = knockouts([head], ("repeat",))["repeat"]
        yield at_least(f"copying without {label(head)}, accuracy", accuracy, 0.9)
