"""What a model answers at the end of each prompt, without holding the logits of the whole
vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from nnsight import save

from nnheads.models.inputs import inputs
from nnheads.models.labels import check_finite, label
from nnheads.trace.readout import read_answers
from nnheads.trace.session import remote_of


def answers(model, prompts: xr.Dataset, *, token: str = "token", candidates=None) -> xr.Dataset:
    """Run prompts (batch, position) once and read the end of each.

    Args:
        token: which prompt to run, "token" (clean) or "corrupted".
        candidates: token ids among which `choice` is the best; default: all answers and wrong
            answers.

    Returns:
        (batch): `logit_difference` (answer minus wrong), `answer_logit`, `wrong_logit`,
        `answer_rank`, `answer_probability`, `choice` (best candidate) and `top` (best token of the
        vocabulary).

    Raises:
        RunError: if the model returns logits that are not finite.
    """
    fed = inputs(model, prompts, token)
    pair = torch.from_numpy(np.stack([prompts["answer"].values, prompts["wrong"].values], 1)).long()
    pool = torch.unique(pair) if candidates is None else torch.as_tensor(candidates).long()
    with (
        torch.no_grad(),
        model.trace(**fed, use_cache=False, logits_to_keep=1, remote=remote_of(model)),
    ):
        own, rank, total, top, choice = read_answers(model.output.logits[:, -1], pair, pool)
        own, rank, total = save(own.clone()), save(rank.clone()), save(total.clone())
        top, choice = save(top.clone()), save(choice.clone())
    check_finite(own, "the model's logits")
    dims = ("batch",)
    data = {
        "logit_difference": label(
            own[:, 0] - own[:, 1], dims, long_name="logit(answer) - logit(wrong)", units="logit"
        ),
        "answer_logit": label(own[:, 0], dims, long_name="logit of the answer", units="logit"),
        "wrong_logit": label(own[:, 1], dims, long_name="logit of the wrong answer", units="logit"),
        "answer_rank": label(
            rank[:, 0], dims, long_name="rank of the answer, 0 is the highest", units="1"
        ),
        "answer_probability": label(
            (own[:, 0] - total).exp(), dims, long_name="probability of the answer", units="1"
        ),
        "choice": label(choice, dims, long_name="best token among the candidates", units="1"),
        "top": label(top, dims, long_name="best token of the vocabulary", units="1"),
    }
    return xr.Dataset(
        data, coords={name: prompts[name] for name in prompts.coords if prompts[name].dims == dims}
    )


def correct(model, prompts: xr.Dataset, *, candidates, strict: bool = False) -> xr.Dataset:
    """Does the model answer both runs right?

    Args:
        candidates: token ids among which the answer has to be the best.
        strict: the answer has to be the best of the whole vocabulary.

    Returns:
        `correct_clean`, `correct_corrupted` (batch) as 0/1; the latter is 1 where the corrupted
        prompt has no right answer.
    """
    best = "top" if strict else "choice"
    clean = answers(model, prompts, candidates=candidates)
    corrupted = answers(model, prompts, token="corrupted", candidates=candidates)
    wanted = prompts["corrupted_answer"]
    return xr.Dataset(
        {
            "correct_clean": (clean[best] == prompts["answer"])
            .astype("int8")
            .assign_attrs(long_name="clean is right"),
            "correct_corrupted": ((corrupted[best] == wanted) | (wanted < 0))
            .astype("int8")
            .assign_attrs(long_name="corrupted is right, or has no right answer"),
        }
    )


def predicted(model, prompts: xr.Dataset) -> np.ndarray:
    """The model's best token [batch, step] at the positions `ask` (batch, step) of the prompts; -1
    where an example asks for fewer tokens than others."""
    ask = torch.from_numpy(prompts["ask"].values).long()
    first = int(ask[ask >= 0].min())
    keep = prompts.sizes["position"] - first  # logits from the first asked position on
    fed, place = inputs(model, prompts), (ask - first).clamp(min=0)
    with (
        torch.no_grad(),
        model.trace(**fed, use_cache=False, logits_to_keep=keep, remote=remote_of(model)),
    ):
        best = save(
            model.output.logits.argmax(-1).gather(1, place.to(model.output.logits.device)).clone()
        )
    return np.where(ask.numpy() < 0, -1, best.cpu().numpy())


def accuracy_map(scores: xr.Dataset) -> xr.DataArray | None:
    """Share of right answers (length, depth) of needle prompts, or None for prompts without such
    coordinates. NaN where no prompt has that length and depth; the depth is the one that was asked
    for, where the prompts say so, since a needle stands at the end of a sentence near it."""
    measured = [name for name in ("answered", "accuracy") if name in scores.coords]
    if not measured or not {"length", "depth"} <= set(scores.coords):
        return None
    depth = "depth_asked" if "depth_asked" in scores.coords else "depth"
    table = scores.coords.to_dataset()[["length", depth, measured[0]]].to_dataframe()
    cells = table.groupby(["length", depth])[measured[0]].mean().to_xarray().astype("float32")
    meaning = (
        "share of prompts answered"
        if measured[0] == "answered"
        else "share of answer tokens predicted"
    )
    return (
        cells.rename("accuracy").rename({depth: "depth"}).assign_attrs(long_name=meaning, units="1")
    )
