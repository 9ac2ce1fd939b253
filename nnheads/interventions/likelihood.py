"""What an intervention does to given texts: how likely it makes them, and how far it moves the
predictions on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from nnsight import save

from nnheads.errors import BadInput
from nnheads.interventions import prepare as plan
from nnheads.interventions.apply import forward, places
from nnheads.interventions.schema import ANSWER, At, Intervention
from nnheads.models.geometry import model_spec
from nnheads.models.inputs import inputs
from nnheads.models.labels import check_finite
from nnheads.spans.layout import pad_left
from nnheads.trace.session import remote_of

SOURCE = "teacher-forced reading with and without the edits"
MEASURES = {
    "log_probability": "log probability of a token with the edits",
    "original": "log probability of a token without the edits",
    "kl": "KL divergence of the next token, without from with the edits",
}


def compare(model, intervention: Intervention, prompts: xr.Dataset) -> xr.Dataset:
    """How likely an intervention makes texts, and how far it moves the model's predictions on them.

    Args:
        intervention: takes no sources. Positions that mean written tokens mean those behind
            `prompt_length` here.
        prompts: token and mask (batch, position), and `prompt_length` (batch): what stands behind
            it is measured.

    Returns:
        (batch), in nats, means over the measured tokens: `log_probability`, `original`, `kl`. NaN
        where there are none.
    """
    shape = model_spec(model)
    plan.check_model(model, intervention, shape)
    if intervention.sources:
        raise BadInput(
            f"this intervention takes {intervention.sources} source prompts; texts alone have none"
        )
    fed, tensors = inputs(model, prompts), {**intervention.tensors, **plan.functions(intervention)}
    edits = [
        {
            **plan.plain(intervention.edits[i], i),
            "where": read_places(intervention.edits[i].at, prompts),
        }
        for i in plan.ordered(model, intervention)
    ]
    with torch.no_grad(), model.session(remote=remote_of(model)):
        found = save(read_twice(model, fed, edits, shape, tensors))
    real = fed["attention_mask"].bool()
    check_finite(found.cpu()[:, real[:, 1:] & real[:, :-1]], "predictions")
    answer = places(ANSWER, prompts)
    measured = torch.zeros(prompts["token"].shape, dtype=torch.bool)
    row, place = (answer >= 0).nonzero(as_tuple=True)
    measured[row, answer[row, place]] = True
    measured = measured & (
        fed["attention_mask"].cumsum(1) > 1
    )  # nothing predicts a text's first token
    values = (
        torch.where(measured[:, 1:], found.cpu(), torch.nan).nanmean(-1).numpy().astype("float32")
    )
    about = {"units": "nat", "source": SOURCE, "cell_methods": "position: mean"}
    return xr.Dataset(
        {
            name: ("batch", one, {"long_name": text, **about})
            for (name, text), one in zip(MEASURES.items(), values)
        },
        {"batch": prompts["batch"]},
    )


def read_twice(model, fed: dict, edits: list[dict], shape: dict, tensors: dict):
    """MEASURES of each token but the first [measure, row, previous]. Logits stay where they are
    computed: they are large, and what a session binds to a name is sent back."""
    before, _ = forward(model, fed, [], {}, shape, {}, 0)
    after, _ = forward(model, fed, edits, {}, shape, tensors, 0)
    return compared(before, after, fed["input_ids"])


def read_places(at: At, prompts: xr.Dataset) -> torch.Tensor:
    """Positions [row, place] where the text is given as a whole: what follows the prompt counts as
    written.
    """
    if at.kind == "decode":
        return places(ANSWER, prompts)
    if at.kind != "steps":
        return places(at, prompts)
    answer = places(ANSWER, prompts)
    missing = answer.new_full((len(answer), max(at.values) + 1), -1)
    return torch.cat([answer, missing], 1)[:, list(at.values)]


def compared(
    before: Float[torch.Tensor, "row position vocabulary"],
    after: Float[torch.Tensor, "row position vocabulary"],
    ids: Int[torch.Tensor, "row position"],
) -> Float[torch.Tensor, "measure row previous"]:
    """MEASURES of each token but the first, one row at a time: logits of all rows in float32 would
    be large.
    """
    rows = []
    for old, new, own in zip(before, after, ids):
        old, new = old[:-1].float().log_softmax(-1), new[:-1].float().log_softmax(-1)
        token = own[1:, None].to(old.device)
        kl = (old.exp() * (old - new)).sum(-1)
        rows.append(torch.stack([new.gather(-1, token)[:, 0], old.gather(-1, token)[:, 0], kl]))
    return torch.stack(rows, 1)


def continuations(model, rows: list[list[int]], lengths: list[int]) -> xr.Dataset:
    """Token ids of whole texts, of which the first `lengths` are the prompt, as `compare` takes
    them.
    """
    token, mask, _ = pad_left(rows, model.tokenizer.pad_token_id or 0)
    place = ("batch", "position")
    coordinates = {"batch": range(len(rows)), "prompt_length": ("batch", np.asarray(lengths))}
    return xr.Dataset({"token": (place, token), "mask": (place, mask)}, coordinates)


def in_halves(model, texts: Sequence[str]) -> xr.Dataset:
    """Texts of which the first half of the tokens is the prompt and the rest is what follows."""
    rows = [model.tokenizer(text)["input_ids"] for text in texts]
    short = [number for number, row in enumerate(rows) if len(row) < 2]
    if short:
        raise BadInput(
            f"{texts[short[0]]!r} has fewer than two tokens; expected a text that can be split in"
            " halves"
        )
    return continuations(model, rows, [len(row) // 2 for row in rows])
