"""What an intervention does to texts: how likely it makes them, and how far predictions move."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from nnsight import save

from nnheads.errors import BadInput
from nnheads.interventions.forwards import forward
from nnheads.interventions.model_checks import check_model
from nnheads.interventions.positions import ANSWER, At, positions_of
from nnheads.interventions.prepare import edits_at, tensors_of
from nnheads.interventions.schema import Intervention
from nnheads.models.geometry import model_spec
from nnheads.models.inputs import inputs
from nnheads.models.labels import check_finite
from nnheads.trace.plain import ModelSpec
from nnheads.trace.session import remote_of

SOURCE = "teacher-forced reading with and without the edits"
MEASURES = {
    "log_probability": "log probability of a token with the edits",
    "original": "log probability of a token without the edits",
    "kl": "KL divergence of the next token, without from with the edits",
}
ABOUT = {"units": "nat", "source": SOURCE, "cell_methods": "position: mean"}


def compare(model: Any, intervention: Intervention, prompts: xr.Dataset) -> xr.Dataset:
    """Measure how likely an intervention makes texts, and how far it moves predictions on them.

    Args:
        intervention: takes no sources. Positions that mean written tokens mean those behind
            `prompt_length` here.
        prompts: token and mask (batch, position), and `prompt_length` (batch): what stands behind
            it is measured.

    Returns:
        (batch), in nats, means over the measured tokens: `log_probability`, `original`, `kl`. NaN
        where there are none.

    Raises:
        BadInput: an intervention with sources, and what the model does not have.
        RunError: predictions that are no numbers.
    """
    check_model(model, intervention, model_spec(model))
    if intervention.sources:
        raise BadInput(
            f"this intervention takes {intervention.sources} source prompts; texts alone have none"
        )
    tokens = _measures(model, intervention, prompts)
    measured = torch.where(_measured(prompts)[:, 1:], tokens, torch.nan)
    means = measured.nanmean(-1).numpy().astype("float32")
    data = {
        name: ("batch", values, {"long_name": text, **ABOUT})
        for (name, text), values in zip(MEASURES.items(), means)
    }
    return xr.Dataset(data, {"batch": prompts["batch"]})


def _measures(
    model: Any, intervention: Intervention, prompts: xr.Dataset
) -> Float[torch.Tensor, "measure row previous"]:
    """Return MEASURES of each token but the first."""

    def positions(at: At) -> Int[torch.Tensor, "row chosen"]:
        return read_positions(at, prompts)

    request, tensors, spec = inputs(model, prompts), tensors_of(intervention), model_spec(model)
    edits = edits_at(model, intervention, positions)
    with torch.no_grad(), model.session(remote=remote_of(model)):
        values = save(read_twice(model, request, edits, spec, tensors))
    real = request["attention_mask"].bool()
    check_finite(values.cpu()[:, real[:, 1:] & real[:, :-1]], "predictions")
    return values.cpu()


def _measured(prompts: xr.Dataset) -> Bool[torch.Tensor, "row position"]:
    """Return which tokens are measured: those of the answer that something predicts."""
    answer = positions_of(ANSWER, prompts)
    measured = torch.zeros(prompts["token"].shape, dtype=torch.bool)
    row, chosen = (answer >= 0).nonzero(as_tuple=True)
    measured[row, answer[row, chosen]] = True
    mask = torch.from_numpy(np.ascontiguousarray(prompts["mask"].values)).long()
    return measured & (mask.cumsum(1) > 1)  # nothing predicts a text's first token


def read_twice(
    model: Any, inputs: dict, edits: list[dict], spec: ModelSpec, tensors: dict
) -> Float[torch.Tensor, "measure row previous"]:
    """Read texts without and with edits; return MEASURES of each token but the first.

    Logits stay where they are computed: they are large, and what a session binds to a name is sent
    back.
    """
    before, _ = forward(model, inputs, [], {}, spec, {}, 0)
    after, _ = forward(model, inputs, edits, {}, spec, tensors, 0)
    return compared(before, after, inputs["input_ids"])


def read_positions(at: At, prompts: xr.Dataset) -> Int[torch.Tensor, "row chosen"]:
    """Return positions where the text is given as a whole: what follows the prompt is written."""
    if at.kind == "decode":
        return positions_of(ANSWER, prompts)
    if at.kind != "steps":
        return positions_of(at, prompts)
    answer = positions_of(ANSWER, prompts)
    missing = answer.new_full((len(answer), max(at.values) + 1), -1)
    return torch.cat([answer, missing], 1)[:, list(at.values)]


def compared(
    before: Float[torch.Tensor, "row position vocabulary"],
    after: Float[torch.Tensor, "row position vocabulary"],
    ids: Int[torch.Tensor, "row position"],
) -> Float[torch.Tensor, "measure row previous"]:
    """Return MEASURES of each token but the first.

    One row at a time: logits of all rows in float32 would be large.
    """
    rows = []
    for old, new, tokens in zip(before, after, ids):
        old, new = old[:-1].float().log_softmax(-1), new[:-1].float().log_softmax(-1)
        token = tokens[1:, None].to(old.device)
        kl = (old.exp() * (old - new)).sum(-1)
        rows.append(torch.stack([new.gather(-1, token)[:, 0], old.gather(-1, token)[:, 0], kl]))
    return torch.stack(rows, 1)
