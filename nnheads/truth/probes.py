"""A probe on every head: can its output at the end of a statement tell true from false?

    heads = probe(last_outputs(model, prompts), prompts, folds(prompts.attrs["questions"]))

A logistic regression on each head's standardised output, fitted on the training questions of each
fold (`folds`) and asked about questions that it has not seen.
Source: Li et al. 2023, arXiv 2306.03341. Other than there, outputs are standardised, every number
is about all folds, and comes with an interval over questions and with what shuffled labels would
give (`accuracy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int

from nnheads.errors import BadInput
from nnheads.stats import ROUNDING
from nnheads.stats.logistic import fit
from nnheads.truth.accuracy import CELL, TEST, judge
from nnheads.truth.folds import PARTS, Fold, parts_of
from nnheads.truth.groups import groups_of
from nnheads.truth.shuffled_labels import expected

SOURCE = "Li et al. 2023, arXiv 2306.03341"
DOUBLE_BYTES = 2**27  # of head outputs in double precision at a time
FITTED = {
    "weight": "weights of the probe on head outputs",
    "intercept": "intercept of the probe on head outputs",
    "weight_standardised": "weights of the probe on standardised head outputs",
}
MEANING = {
    "correct": "share of held-out statements that the probe judges right",
    "null": "the same, mean over all shuffles of a question's labels",
    "score": "decision value, positive where it is right",
    "decision": "what the probe of each fold says, positive for true",
}
SHARES = ("correct", "null")
SHARE_RANGE = {"valid_min": 0.0, "valid_max": 1.0}
Outputs = Float[torch.Tensor, "head row dim"]
Labels = Int[np.ndarray, " row"]


class Probes(TypedDict):
    """Probes of some heads: [head, dim] and [head]; decision [head, row], positive for true."""

    decision: np.ndarray
    weight: np.ndarray
    intercept: np.ndarray
    weight_standardised: np.ndarray


def probe(
    z: xr.DataArray,
    prompts: xr.Dataset,
    cut: Sequence[Fold],
    *,
    penalty: float = 1.0,
    seed: int = 0,
) -> xr.Dataset:
    """Fit the probes of all heads in all folds, and say how good they are.

    Args:
        z: head outputs (batch, layer, head, dim), see `activations.last_outputs`; read a layer at a
            time.
        prompts: `label` and `question` (batch), see `prompts.statements.statements`.
        cut: the folds.
        penalty: of the squared weights on standardised outputs; 1 / C of scikit-learn.
        seed: of the bootstrap.

    Returns:
        What `accuracy.judge` returns: (fold, layer, head) `accuracy`, `auc` and their intervals on
        test questions, `validation` (accuracy on validation questions); (layer, head) `correct`,
        `flag` and more, over all folds. And the fitted probes as in `scores_of`: (fold, layer,
        head) `intercept`, also dim `weight` and `weight_standardised`.

    Raises:
        BadInput: folds that name other questions, or a part of a fold without a true or without a
            false answer.

    Source: Li et al. 2023, arXiv 2306.03341.
    """
    scores = scores_of(z, prompts, cut, penalty=penalty)
    return judge(scores, seed=seed).assign({name: scores[name] for name in FITTED})


def scores_of(
    z: xr.DataArray, prompts: xr.Dataset, cut: Sequence[Fold], *, penalty: float = 1.0
) -> xr.Dataset:
    """Fit the probes of all heads in all folds, and say what they say of each statement.

    Arguments and errors are those of `probe`.

    Returns:
        float32 (batch, layer, head): `correct`, 1 where the probe of the fold in whose test part
        the statement is gives the right label; `null`, what it would be right by, were the labels
        of its question shuffled; `score`, its decision value, positive where it is right;
        `decision` (also fold), what each fold's probe says, positive for true. NaN for statements
        in no test part.
        `weight` (fold, layer, head, dim) and `intercept` (fold, layer, head): decision = z weight +
        intercept; `weight_standardised`: the same in standard deviations of z among the training
        statements.
        Coordinates: `label`, `question` (batch), `part` (batch, fold), see `folds.parts_of`.
    """
    label = np.asarray(prompts["label"].values)
    question = np.asarray(prompts["question"].values)
    part = parts_of(question, cut)
    check_parts(label, part)
    layers = [
        _of_layer(z.isel(layer=layer), label, part, penalty) for layer in range(z.sizes["layer"])
    ]
    decision = np.stack([np.stack([one["decision"].T for one in folds], -1) for folds in layers], 1)
    rows = _rows(decision, label, question, part)
    for name in FITTED:
        rows[name] = _fitted(layers, name)
    known = {name: one for name, one in prompts.coords.items() if one.dims == ("batch",)}
    known |= {"label": ("batch", label), "question": ("batch", question)}
    index = {name: np.arange(z.sizes[name]) for name in CELL} | {"fold": np.arange(len(cut))}
    parts = (("batch", "fold"), part, {"long_name": PARTS})
    return rows.assign_coords({**known, **index, "part": parts})


def check_parts(label: Labels, part: Int[np.ndarray, "row fold"]) -> None:
    """Refuse a part without both labels: no probe can be fitted or tested there."""
    for fold in range(part.shape[1]):
        for number, name in enumerate(("training", "validation", "test")):
            if len(set(label[part[:, fold] == number].tolist())) < 2:
                raise BadInput(
                    f"the {name} part of fold {fold} lacks true or false statements; use more"
                    " questions"
                )


def _of_layer(
    z: xr.DataArray, label: Labels, part: Int[np.ndarray, "row fold"], penalty: float
) -> list[Probes]:
    """Return the probes of one layer in each fold."""
    values = np.ascontiguousarray(z.transpose("head", "batch", "dim").values)
    x, y = torch.from_numpy(values), torch.from_numpy(label)
    return [_fit(x, y, torch.from_numpy(own == 0), penalty) for own in part.T]


def _fit(
    x: Outputs, label: torch.Tensor, train: Bool[torch.Tensor, " row"], penalty: float
) -> Probes:
    """Return the probes of one layer in one fold, as many heads at a time as there is room for."""
    together = x.split(max(1, DOUBLE_BYTES // (8 * x.shape[1] * x.shape[2])))
    each = [_fit_some(some.double(), label, train, penalty) for some in together]
    return Probes(
        decision=np.concatenate([one["decision"] for one in each]),
        weight=np.concatenate([one["weight"] for one in each]),
        intercept=np.concatenate([one["intercept"] for one in each]),
        weight_standardised=np.concatenate([one["weight_standardised"] for one in each]),
    )


def _fit_some(
    x: Outputs, label: torch.Tensor, train: Bool[torch.Tensor, " row"], penalty: float
) -> Probes:
    known = x[:, train]
    mean, spread = known.mean(1, keepdim=True), known.std(1, keepdim=True, correction=0)
    # what varies by no more than rounding in single precision does not vary
    spread = torch.where(spread > ROUNDING * mean.abs(), spread, 1.0)
    weight, intercept = fit((known - mean) / spread, label[train], penalty)
    raw = weight / spread[:, 0]
    shift = intercept - (raw * mean[:, 0]).sum(-1)
    says = (x @ raw.unsqueeze(-1))[..., 0] + shift.unsqueeze(1)
    return Probes(
        decision=says.numpy(),
        weight=raw.numpy(),
        intercept=shift.numpy(),
        weight_standardised=weight.numpy(),
    )


def _fitted(layers: list[list[Probes]], name: str) -> xr.Variable:
    """Return one number of the probes as (fold, layer, head[, dim])."""
    each = [np.stack([one[name] for one in folds]) for folds in layers]  # type: ignore[literal-required]
    values = np.stack(each, 1).astype(np.float32)
    dims = ("fold", *CELL, "dim")[: values.ndim]
    return xr.Variable(dims, values, {"long_name": FITTED[name], "units": "1", "source": SOURCE})


def _rows(
    decision: Float[np.ndarray, "row layer head fold"],
    label: Labels,
    question: np.ndarray,
    part: Int[np.ndarray, "row fold"],
) -> xr.Dataset:
    """Return what the probes say of each statement, NaN for those in no test part."""
    tested = part == TEST
    own = np.where(tested[:, None, None], decision, 0).sum(-1)
    true = (label == 1)[:, None, None]
    says_true = own > 0
    values = {
        "correct": says_true == true,
        "null": expected(says_true, label, groups_of(question)),
        "score": np.where(true, own, -own),
    }
    known = tested.any(1)[:, None, None]
    rows = xr.Dataset()
    for name, each in values.items():
        rows[name] = _row(name, ("batch", *CELL), np.where(known, each, np.nan))
    rows["decision"] = _row("decision", ("batch", *CELL, "fold"), decision)
    return rows


def _row(name: str, dims: tuple[str, ...], values: np.ndarray) -> xr.Variable:
    bounds = SHARE_RANGE if name in SHARES else {}
    attrs = {"long_name": MEANING[name], "units": "1", "source": SOURCE, **bounds}
    return xr.Variable(dims, values.astype(np.float32), attrs)
