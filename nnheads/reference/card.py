"""Write the measured part of the model card and heads.json: python -m nnheads.reference.card
[FOLDER].

The prose of README.md is written by hand; what stands between its two markers is replaced by
tables.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from nnheads.models.shipped import FOLDER as PATH
from nnheads.reference import trials as prompts
from nnheads.reference.check import measure
from nnheads.reference.claim import Claim, attention_from_end, attention_to, label
from nnheads.reference.knockout import TASKS, Head, Knockouts
from nnheads.reference.scaffold import DECOY, PLANTED

START, STOP = "<!-- measured: start -->", "<!-- measured: stop -->"
NOTEWORTHY = 0.4
WHAT = {
    "previous": "previous token",
    "duplicate": "earlier copy of the same token",
    "induction": "token after the earlier copy",
    "iteration": "input of the current step",
    "subject": "end of the sentence to the repeated name",
    "retrieval": "needle word to be said next",
    "receiver": "end of the sentence to the receiver",
    "itself": "its own position",
}


@torch.no_grad()
def scores(model: PreTrainedModel, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return for each job every head's mean attention to what the job needs, [layer, head]."""
    rng = random.Random(seed)
    copied = prompts.repeated(rng, 50, 16)
    everywhere = torch.arange(1, copied.tokens.shape[1]).expand(16, -1)
    parity, documents = prompts.states(rng, "parity", 16, 16), prompts.needles(rng, 256, 16)
    found = {
        "previous": attention_to(model, copied.tokens, everywhere, everywhere - 1),
        "itself": attention_to(model, copied.tokens, everywhere, everywhere),
        "duplicate": attention_to(model, copied.tokens, copied.queries, copied.queries - 50),
        "induction": attention_to(model, copied.tokens, copied.queries, copied.keys),
        "iteration": attention_to(model, parity.tokens, parity.queries, parity.keys),
        "retrieval": attention_to(model, documents.tokens, documents.queries, documents.keys),
    }
    sentences = prompts.people(rng, 60, held_out=True).sentences
    for job in ("subject", "receiver"):
        keys = [getattr(sentence, f"{job}_at") for sentence in sentences]
        looks = [attention_from_end(model, one, key) for one, key in zip(sentences, keys)]
        found[job] = torch.stack(looks).mean(0)
    return found


def head_list(found: dict[str, torch.Tensor], lost: dict[Head, dict[str, float]]) -> list[dict]:
    """Return planted heads first, then heads that look the same way without having been taught."""
    rows = [(head, job, True) for head, job in PLANTED.items()]
    for job, values in found.items():
        for layer, head in (values >= NOTEWORTHY).nonzero().tolist():
            if PLANTED.get((layer, head)) != job:
                rows.append(((layer, head), job, False))
    return [
        {
            "layer": head[0],
            "head": head[1],
            "job": job,
            "planted": planted,
            "note": note_on(head, job, planted, found[job][head].item()),
            "without_it": lost[head],
        }
        for head, job, planted in rows
    ]


def note_on(head: Head, job: str, planted: bool, attention: float) -> str:
    note = f"attention to {WHAT[job]}: {attention:.2f}"
    if head == DECOY and planted:
        note += "; a pattern without effect: silenced in 70 % of the training rows"
    return note


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def claim_table(claims: list[Claim]) -> str:
    rows = [
        [
            claim.name,
            f"{claim.measured:.3f}",
            f"{'>=' if claim.at_least else '<='} {claim.threshold}",
        ]
        for claim in claims
    ]
    return table(["what", "measured", "must be"], rows)


def knockout_table(lost: dict[str, dict[str, float]]) -> str:
    rows = [[name, *(f"{values[task]:.3f}" for task in TASKS)] for name, values in lost.items()]
    return table(["without", "repeat", "parity", "needle", "indirect object"], rows)


def induction_heads(found: dict[str, torch.Tensor]) -> list[Head]:
    """Return heads with an induction pattern, planted or not."""
    return [tuple(head) for head in (found["induction"] >= NOTEWORTHY).nonzero().tolist()]


def head_table(listed: list[dict]) -> str:
    rows = []
    for entry in listed:
        head = label((entry["layer"], entry["head"]))
        origin = "planted" if entry["planted"] else "arose"
        rows.append([head, entry["job"], origin, entry["note"]])
    return table(["head", "job", "origin", "note"], rows)


def lost_alone(knockouts: Knockouts, layers: int) -> dict[Head, dict[str, float]]:
    """Return what is left of each task without each head."""
    found = {}
    for head in itertools.product(range(layers), range(8)):
        found[head] = {task: round(value, 3) for task, value in knockouts([head]).items()}
    return found


def lost_together(
    knockouts: Knockouts, looking: list[Head], lost: dict[Head, dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Return what is left without nothing, each head, and sets of induction heads, by name."""
    named = {"nothing": knockouts([])} | {label(head): values for head, values in lost.items()}
    for together in [*itertools.combinations(looking, 2), looking]:
        named[" + ".join(map(label, together))] = knockouts(list(together))
    return named


def write_card(folder: Path, parts: list[str]) -> None:
    """Put the measured parts between the two markers of the card."""
    card = (folder / "README.md").read_text()
    before, after = card.split(START)[0], card.split(STOP)[1]
    (folder / "README.md").write_text(before + "\n\n".join([START, *parts, STOP]) + after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=PATH)
    folder = parser.parse_args().folder
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    claims, found, knockouts = measure(model), scores(model), Knockouts(model)
    lost = lost_alone(knockouts, found["induction"].shape[0])
    listed = head_list(found, lost)
    (folder / "heads.json").write_text(json.dumps(listed, indent=1) + "\n")
    parts = {
        "### Behaviour and planted heads": claim_table(claims),
        "### Heads and where they look": head_table(listed),
        "### Mean ablation": knockout_table(lost_together(knockouts, induction_heads(found), lost)),
    }
    write_card(folder, [text for part in parts.items() for text in part])
    for claim in claims:
        print(f"{'ok  ' if claim.passed else 'FAIL'} {claim.measured:8.3f}  {claim.name}")


if __name__ == "__main__":
    main()
