"""Writing on with edits in place: one forward over the prompt, then one for each written token.

    written = write_on(model, inputs, edits, known, spec, tensors, options)
    written["ids"]                          # [row, step], -1 from a row's end on

Forwards after the first stand behind a key-value cache and read one token.
Shipped to remote servers as source: torch only. Everything that was asked for arrives as plain
data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

import torch
from jaxtyping import Float, Int
from nnsight import save

from nnheads.trace.edits import Edit, apply_edits
from nnheads.trace.plain import Inputs, ModelSpec

Ids = Int[torch.Tensor, "row step"]


class WriteOptions(TypedDict):
    """How a text is written: how long, where it ends, and how tokens are chosen.

    ends: ids that end a text. stops: texts that do. processors: of scores. keep: return logits.
    seed: None for the likeliest token.
    """

    new_tokens: int
    ends: list[int]
    stops: list[str]
    processors: list[Callable[..., torch.Tensor]]
    seed: int | None
    keep: bool


class Step(TypedDict):
    """What a forward reads: the new tokens, all text so far, and the cache of the rest."""

    inputs: Inputs
    text: torch.Tensor
    cache: Any


def write_on(
    model: Any,
    inputs: Inputs,
    edits: list[Edit],
    known: dict[int, torch.Tensor],
    spec: ModelSpec,
    tensors: dict[str, Any],
    options: WriteOptions,
) -> dict[str, Any]:
    """Let a model continue prompts; call inside a session.

    Args:
        inputs: ids and mask [row, position], padded on the left, and positions where the model
            takes them.
        edits: in the order of execution; `where` [row, place] for the prompt's forward, `steps` for
            those behind it.
        known: number of an edit -> features [row, place, feature] of its source: one place, used at
            every step, or one for each of its steps.

    Returns:
        ids [row, step], -1 from a row's end on; logits [row, step, vocabulary] or None; collected,
        a dict per forward; broken, whether it stopped at scores that are no numbers.
    """
    rows, seed = inputs["input_ids"].shape[0], options["seed"]
    state = {"inputs": inputs, "text": inputs["input_ids"], "cache": None}  # type: Step
    draws = None if seed is None else torch.Generator().manual_seed(seed)
    written, ended = torch.zeros(rows, 0, dtype=torch.long), torch.zeros(rows, dtype=torch.bool)
    logits, collected, broken = [], [], False
    for step in range(options["new_tokens"]):
        own, sources = at_step(edits, known, step, rows)
        scores, features, cache = forward(model, state, own, spec, sources, tensors)
        token = next_token(scores, state["text"], options["processors"], draws)
        ended = ended | torch.isin(token, torch.tensor(options["ends"], dtype=torch.long))
        written = torch.cat([written, torch.where(ended, -1, token)[:, None]], 1)
        ended = ended | stopped(model, written, options["stops"])
        logits += [scores] if options["keep"] else []
        collected.append(features)
        broken = bool(scores.isnan().any())
        if broken or bool(ended.all()):
            break
        state = grown(state, token[:, None], cache)
    kept = torch.stack(logits, 1) if logits else None
    return {"ids": written, "logits": kept, "collected": collected, "broken": broken}


def grown(state: Step, token: Int[torch.Tensor, "row 1"], cache: Any) -> Step:
    """Return what the next forward reads, behind the longer cache."""
    mask = torch.cat([state["inputs"]["attention_mask"], torch.ones_like(token)], 1)
    inputs = {**state["inputs"], "input_ids": token, "attention_mask": mask}
    if "position_ids" in inputs:
        inputs["position_ids"] = mask.sum(-1, keepdim=True) - 1
    return {"inputs": inputs, "text": torch.cat([state["text"], token], 1), "cache": cache}


def forward(
    model: Any,
    state: Step,
    edits: list[Edit],
    spec: ModelSpec,
    sources: dict[int, torch.Tensor | None],
    tensors: dict[str, Any],
) -> tuple[Float[torch.Tensor, "row vocabulary"], dict[str, torch.Tensor], Any]:
    """Run one forward behind a cache: the next token's scores, what was collected, the cache."""
    inputs, options = state["inputs"], {"use_cache": True, "logits_to_keep": 1}
    rows, length = inputs["input_ids"].shape
    with torch.no_grad(), model.trace(**inputs, past_key_values=state["cache"], **options):
        collected = save(apply_edits(model, edits, spec, rows, length, sources, tensors))
        scores = save(model.output.logits[:, -1].float().clone())
        cache = save(model.output.past_key_values)
    return scores.cpu(), collected, cache


def at_step(
    edits: list[Edit], known: dict[int, torch.Tensor], step: int, rows: int
) -> tuple[list[Edit], dict[int, torch.Tensor | None]]:
    """Return the edits that act in a forward, and what they take from their sources there."""
    if step == 0:
        return [edit for edit in edits if acts(edit)], {**known}
    later = [of_token(edit, step - 1, rows) for edit in edits if step - 1 in edit["steps"]]
    own = [edit for edit in later if acts(edit)]
    return own, {edit["number"]: of_step(known, edit, step - 1) for edit in own}


def acts(edit: Edit) -> bool:
    """Return whether an edit has any position in a forward."""
    return bool((edit["where"] >= 0).any())


def of_token(edit: Edit, step: int, rows: int) -> Edit:
    """Return an edit of the forward that reads one written token.

    Its noise goes on where the places before it left off.
    """
    before, do = (edit["where"] >= 0).sum(1) + edit["steps"].index(step), edit["do"]
    do = {**do, "before": before.tolist()} if do["name"] == "noise" else do
    return {**edit, "do": do, "where": torch.zeros(rows, 1, dtype=torch.long)}


def of_step(known: dict[int, torch.Tensor], edit: Edit, step: int) -> torch.Tensor | None:
    """Return what an edit takes from its source at this step; None without a source."""
    features = known.get(edit["number"])
    if features is None or features.shape[1] == 1:
        return features
    place = edit["steps"].index(step)
    return features[:, place : place + 1]


def next_token(
    scores: Float[torch.Tensor, "row vocabulary"],
    text: Int[torch.Tensor, "row position"],
    processors: list[Callable[..., torch.Tensor]],
    draws: torch.Generator | None,
) -> Int[torch.Tensor, " row"]:
    """Return the likeliest token of each row, or a drawn one."""
    for process in processors:
        scores = process(text, scores)
    if draws is None:
        return scores.argmax(-1)
    return torch.multinomial(scores.softmax(-1).nan_to_num(1.0), 1, generator=draws)[:, 0]


def stopped(model: Any, written: Ids, stops: list[str]) -> torch.Tensor:
    """Return which rows have written one of these texts."""
    rows = written.tolist()
    if not stops:
        return torch.zeros(len(rows), dtype=torch.bool)
    words = [[token for token in row if token >= 0] for row in rows]
    texts = [model.tokenizer.decode(row) if row else "" for row in words]
    return torch.tensor([any(stop in text for stop in stops) for text in texts])
