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
from nnheads.reference.check import Claim, attention_to, label, measure
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
    """Per job, every head's mean attention to what the job needs, [layer, head]."""
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
        looks = []
        for sentence in sentences:
            tokens = prompts.encode([list(sentence.words)])
            key = torch.tensor([[getattr(sentence, f"{job}_at")]])
            looks.append(attention_to(model, tokens, torch.tensor([[len(sentence.words)]]), key))
        found[job] = torch.stack(looks).mean(0)
    return found


def head_list(found: dict[str, torch.Tensor], lost: dict[Head, dict[str, float]]) -> list[dict]:
    """Planted heads first, then heads that look the same way without having been taught."""
    rows = [(head, job, True) for head, job in PLANTED.items()]
    for job, values in found.items():
        for layer, head in (values >= NOTEWORTHY).nonzero().tolist():
            if PLANTED.get((layer, head)) != job:
                rows.append(((layer, head), job, False))
    listed = []
    for head, job, planted in rows:
        note = f"attention to {WHAT[job]}: {found[job][head].item():.2f}"
        if head == DECOY and planted:
            note += "; a pattern without effect: silenced in 70 % of the training rows"
        entry = {"layer": head[0], "head": head[1], "job": job, "planted": planted}
        listed.append(entry | {"note": note, "without_it": lost[head]})
    return listed


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
    """Heads with an induction pattern, planted or not."""
    return [tuple(head) for head in (found["induction"] >= NOTEWORTHY).nonzero().tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=PATH)
    folder = parser.parse_args().folder
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    claims, found, knockouts = measure(model), scores(model), Knockouts(model)
    every = [(layer, head) for layer in range(found["induction"].shape[0]) for head in range(8)]
    lost = {
        head: {task: round(value, 3) for task, value in knockouts([head]).items()} for head in every
    }
    named = {"nothing": knockouts([])} | {label(head): values for head, values in lost.items()}
    looking = induction_heads(found)
    for together in [*itertools.combinations(looking, 2), looking]:
        named[" + ".join(map(label, together))] = knockouts(list(together))
    listed = head_list(found, lost)
    (folder / "heads.json").write_text(json.dumps(listed, indent=1) + "\n")
    heads = [
        [
            label((e["layer"], e["head"])),
            e["job"],
            "planted" if e["planted"] else "arose",
            e["note"],
        ]
        for e in listed
    ]
    parts = [
        "### Behaviour and planted heads",
        claim_table(claims),
        "### Heads and where they look",
        table(["head", "job", "origin", "note"], heads),
        "### Mean ablation",
        knockout_table(named),
    ]
    card = (folder / "README.md").read_text()
    before, after = card.split(START)[0], card.split(STOP)[1]
    (folder / "README.md").write_text(before + "\n\n".join([START, *parts, STOP]) + after)
    for claim in claims:
        print(f"{'ok  ' if claim.passed else 'FAIL'} {claim.measured:8.3f}  {claim.name}")


if __name__ == "__main__":
    main()
