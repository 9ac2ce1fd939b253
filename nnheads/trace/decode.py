"""Writing on with edits in place: one forward over the prompt, then one for each written token,
behind a cache.

Shipped to remote servers as source: torch only. Everything that was asked for arrives as plain
    data.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from nnsight import save

from nnheads.trace.edits import apply_edits


def write_on(
    model, fed: dict, edits: list[dict], known: dict, form: dict, tensors: dict, how: dict
) -> dict:
    """Let a model continue prompts; call inside a session.

    Args:
        fed: ids and mask [row, position], padded on the left, and positions where the model takes
            them.
        edits: in the order of execution; `where` [row, place] for the prompt's forward, `steps` for
            those behind it.
        known: number of an edit -> features [row, place, feature] of its source: one place, used at
            every step, or one for each of its steps.
        how: new_tokens; ends, ids that end a text; stops, texts that do; processors of scores;
            seed, None for the likeliest token; keep, whether logits are returned.

    Returns:
        ids [row, step], -1 from a row's end on; logits [row, step, vocabulary] or None; collected,
        a dict per forward; broken, whether it stopped at scores that are no numbers.
    """
    rows, mask, cache = fed["input_ids"].shape[0], fed["attention_mask"], None
    text, ended = fed["input_ids"], torch.zeros(rows, dtype=torch.bool)
    draws = None if how["seed"] is None else torch.Generator().manual_seed(how["seed"])
    written, logits, collected, broken = torch.zeros(rows, 0, dtype=torch.long), [], [], False
    for step in range(how["new_tokens"]):
        own = (
            edits
            if step == 0
            else [at_step(edit, step - 1, rows) for edit in edits if step - 1 in edit["steps"]]
        )
        own = [edit for edit in own if bool((edit["where"] >= 0).any())]
        sources = (
            known if step == 0 else {edit["number"]: of_step(known, edit, step - 1) for edit in own}
        )
        scores, found, cache = forward(model, fed, cache, own, form, sources, tensors)
        token = next_token(scores, text, how["processors"], draws)
        ended = ended | torch.isin(token, torch.tensor(how["ends"], dtype=torch.long))
        written = torch.cat([written, torch.where(ended, -1, token)[:, None]], 1)
        ended = ended | stopped(model, written, how["stops"])
        token = token[:, None]
        text, mask = torch.cat([text, token], 1), torch.cat([mask, torch.ones_like(token)], 1)
        logits += [scores] if how["keep"] else []
        collected.append(found)
        broken = bool(scores.isnan().any())
        if broken or bool(ended.all()):
            break
        fed = {**fed, "input_ids": token, "attention_mask": mask}
        if "position_ids" in fed:
            fed["position_ids"] = mask.sum(-1, keepdim=True) - 1
    kept = torch.stack(logits, 1) if logits else None
    return {"ids": written, "logits": kept, "collected": collected, "broken": broken}


def forward(model, fed: dict, cache, edits: list[dict], form: dict, sources: dict, tensors: dict):
    """One forward behind a cache: scores of the next token [row, vocabulary], what was collected,
    and the longer cache."""
    rows, length = fed["input_ids"].shape
    with (
        torch.no_grad(),
        model.trace(**fed, past_key_values=cache, use_cache=True, logits_to_keep=1),
    ):
        collected = save(apply_edits(model, edits, form, rows, length, sources, tensors))
        scores = save(model.output.logits[:, -1].float().clone())
        grown = save(model.output.past_key_values)
    return scores.cpu(), collected, grown


def at_step(edit: dict, step: int, rows: int) -> dict:
    """An edit of the forward that reads one written token.

    Its noise goes on where the places before it left off.
    """
    before = (edit["where"] >= 0).sum(1) + edit["steps"].index(step)
    do = {**edit["do"], "before": before.tolist()} if edit["do"]["name"] == "noise" else edit["do"]
    return {**edit, "do": do, "where": torch.zeros(rows, 1, dtype=torch.long)}


def of_step(known: dict, edit: dict, step: int):
    """What an edit takes from its source at this step; None without a source."""
    features = known.get(edit["number"])
    if features is None or features.shape[1] == 1:
        return features
    place = edit["steps"].index(step)
    return features[:, place : place + 1]


def next_token(
    scores: Float[torch.Tensor, "row vocabulary"],
    text: Int[torch.Tensor, "row position"],
    processors: list,
    draws,
) -> Int[torch.Tensor, " row"]:
    """The likeliest token of each row, or a drawn one."""
    for process in processors:
        scores = process(text, scores)
    if draws is None:
        return scores.argmax(-1)
    return torch.multinomial(scores.softmax(-1).nan_to_num(1.0), 1, generator=draws)[:, 0]


def stopped(model, written: Int[torch.Tensor, "row step"], stops: list[str]):
    """Which rows have written one of these texts."""
    rows = (
        [[token for token in row if token >= 0] for row in written.tolist()]
        if stops
        else written.tolist()
    )
    said = [model.tokenizer.decode(row) if stops and row else "" for row in rows]
    return torch.tensor([any(stop in one for stop in stops) for one in said])
