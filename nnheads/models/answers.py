"""Read what a model answers at the end of each prompt.

    says = answers(model, prompts)  # logit_difference, answer_rank, choice, ... (batch)

The logits of the whole vocabulary never leave the trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from nnsight import save

from nnheads.models.inputs import inputs
from nnheads.models.labels import check_finite, label
from nnheads.trace.readout import read_answers
from nnheads.trace.session import remote_of

if TYPE_CHECKING:
    from nnsight import TransformersModel

Candidates = Sequence[int] | np.ndarray | torch.Tensor


class _Reading(NamedTuple):
    """What is read of the last logits of each prompt."""

    logits: Float[torch.Tensor, "batch answer"]  # of the answer and the wrong answer
    rank: Int[torch.Tensor, "batch answer"]
    log_sum_exp: Float[torch.Tensor, " batch"]
    top: Int[torch.Tensor, " batch"]
    choice: Int[torch.Tensor, " batch"]


def answers(
    model: TransformersModel,
    prompts: xr.Dataset,
    *,
    token: str = "token",
    candidates: Candidates | None = None,
) -> xr.Dataset:
    """Return what the model answers at the end of each prompt.

    Args:
        prompts: `token`, `mask` (batch, position) and `answer`, `wrong` (batch).
        token: which prompt to run, "token" (clean) or "corrupted".
        candidates: token ids among which `choice` is the best; default: all answers and wrong
            answers.

    Returns:
        (batch): `logit_difference` (answer minus wrong), `answer_logit`, `wrong_logit` in logits,
        `answer_rank` (0 is the highest), `answer_probability`, `choice` (best candidate) and `top`
        (best token of the vocabulary).

    Raises:
        BadInput: tokens outside the vocabulary, or a prompt that is longer than the model reads.
        RunError: if the model returns logits that are not finite.

    Source: Wang et al. 2022, arXiv 2211.00593 (the logit difference).

    Example:
        >>> model = nnheads.load()
        >>> prompts = nnheads.ioi(model.tokenizer, n=2)
        >>> says = nnheads.answers(model, prompts)
        >>> says["logit_difference"].dims
        ('batch',)
        >>> bool((says["top"] == prompts["answer"]).all())
        True
    """
    pair = np.stack([prompts["answer"].values, prompts["wrong"].values], 1)
    read = _read(model, prompts, token, torch.from_numpy(pair).long(), candidates)
    check_finite(read.logits, "the model's logits")
    answer, wrong = read.logits.unbind(1)
    probability = (answer - read.log_sum_exp).exp()
    meaning = {
        "logit_difference": (answer - wrong, "logit(answer) - logit(wrong)", "logit"),
        "answer_logit": (answer, "logit of the answer", "logit"),
        "wrong_logit": (wrong, "logit of the wrong answer", "logit"),
        "answer_rank": (read.rank[:, 0], "rank of the answer, 0 is the highest", "1"),
        "answer_probability": (probability, "probability of the answer", "1"),
        "choice": (read.choice, "best token among the candidates", "1"),
        "top": (read.top, "best token of the vocabulary", "1"),
    }
    data = {
        name: label(values, ("batch",), long_name=text, units=units)
        for name, (values, text, units) in meaning.items()
    }
    kept = {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}
    return xr.Dataset(data, coords=kept)


def _read(
    model: TransformersModel,
    prompts: xr.Dataset,
    token: str,
    pair: Int[torch.Tensor, "batch answer"],
    candidates: Candidates | None,
) -> _Reading:
    """Run prompts once and read the end of each."""
    fed = inputs(model, prompts, token)
    pool = torch.unique(pair) if candidates is None else torch.as_tensor(candidates).long()
    with (
        torch.no_grad(),
        model.trace(**fed, use_cache=False, logits_to_keep=1, remote=remote_of(model)),
    ):
        own, rank, total, top, choice = read_answers(model.output.logits[:, -1], pair, pool)
        own, rank, total = save(own.clone()), save(rank.clone()), save(total.clone())
        top, choice = save(top.clone()), save(choice.clone())
    return _Reading(own, rank, total, top, choice)


def correct(
    model: TransformersModel, prompts: xr.Dataset, *, candidates: Candidates, strict: bool = False
) -> xr.Dataset:
    """Return whether the model answers the clean and the corrupted prompts right.

    Args:
        prompts: as for `answers`, with `corrupted` (batch, position) and `corrupted_answer`
            (batch), -1 where there is no right answer.
        candidates: token ids among which the answer has to be the best.
        strict: the answer has to be the best of the whole vocabulary.

    Returns:
        `correct_clean`, `correct_corrupted` (batch), 1 or 0; the latter is 1 where the corrupted
        prompt has no right answer.

    Raises:
        BadInput, RunError: as `answers`.

    Example:
        >>> model = nnheads.load()
        >>> prompts = nnheads.ioi(model.tokenizer, n=4)
        >>> right = nnheads.correct(model, prompts, candidates=prompts["answer"].values)
        >>> right["correct_clean"].values.tolist()
        [1, 1, 1, 1]
    """
    best = "top" if strict else "choice"
    clean = answers(model, prompts, candidates=candidates)
    corrupted = answers(model, prompts, token="corrupted", candidates=candidates)
    wanted = prompts["corrupted_answer"]
    right = {
        "correct_clean": (clean[best] == prompts["answer"], "clean is right"),
        "correct_corrupted": (
            (corrupted[best] == wanted) | (wanted < 0),
            "corrupted is right, or has no right answer",
        ),
    }
    return xr.Dataset(
        {
            name: values.astype("int8").assign_attrs(long_name=text)
            for name, (values, text) in right.items()
        }
    )
