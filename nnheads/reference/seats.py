"""Where heads of the reference model sit: rows about attention, probes and knockouts."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from nnheads.reference import trials as prompts
from nnheads.reference.abilities import _statements
from nnheads.reference.claim import (
    PLACES,
    Claim,
    at_least,
    at_most,
    attention_from_end,
    attention_to,
    label,
)
from nnheads.reference.knockout import Knockouts, head_outputs
from nnheads.reference.probe import probe_accuracies
from nnheads.reference.scaffold import DECOY, INDUCTION


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


def _probes(model: PreTrainedModel, _: random.Random, __: int) -> Iterator[Claim]:
    """Return the best head's truth probe, four folds over questions, so no question is in both
    halves.
    """
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
    """Return a textbook pattern without effect, and two heads of which either one suffices."""
    sentences = prompts.people(rng, 8 * size, held_out=False).sentences
    looks = [attention_from_end(model, one, one.receiver_at)[DECOY] for one in sentences]
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
