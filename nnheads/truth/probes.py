"""A probe on every head: can what it puts out at the end of a statement tell true from false, on
questions that the probe has not seen?

A logistic regression on each head's standardised output, fitted on the training questions of each
fold (`folds`).
Source: Li et al. 2023, arXiv 2306.03341. Other than there, outputs are standardised, every number
    is about all folds,
and comes with an interval over questions and with what shuffled labels would give (`chance`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput
from nnheads.stats.logistic import fit
from nnheads.truth.chance import judge
from nnheads.truth.folds import PARTS, Fold, parts_of

SOURCE = "Li et al. 2023, arXiv 2306.03341"
CELL = ("layer", "head")
ROUNDING = 1e-6
DOUBLE_BYTES = 2**27  # of head outputs in double precision at a time
FITTED = {
    "weight": "weights of the probe on head outputs",
    "intercept": "intercept of the probe on head outputs",
    "weight_standardised": "weights of the probe on standardised head outputs",
}


def probe(
    z: xr.DataArray,
    prompts: xr.Dataset,
    cut: Sequence[Fold],
    *,
    penalty: float = 1.0,
    seed: int = 0,
) -> xr.Dataset:
    """Fit and judge the probes of all heads in all folds.

    Args:
        z: head outputs (batch, layer, head, dim), see `activations.last_outputs`; read a layer at a
            time.
        prompts: `label` and `question` (batch), see `prompts.truth.statements`.
        penalty: of the squared weights on standardised outputs; 1 / C of scikit-learn.
        seed: of the bootstrap.

    Returns:
        What `chance.judge` returns: (fold, layer, head) `accuracy`, `auc` and their intervals on
            test questions,
        `validation` (accuracy on validation questions); (layer, head) `correct`, `flag` and more,
        over all folds. And
        the fitted probes as in `scores_of`, (fold, layer, head): `weight`, `weight_standardised`
            (also dim) and
        `intercept`.

    Raises:
        BadInput: folds that name other questions, or a part of a fold without a true or without a
            false answer.
    """
    scores = scores_of(z, prompts, cut, penalty=penalty)
    return judge(scores, seed=seed).assign({name: scores[name] for name in FITTED})


def scores_of(
    z: xr.DataArray, prompts: xr.Dataset, cut: Sequence[Fold], *, penalty: float = 1.0
) -> xr.Dataset:
    """Fit the probes; what they say of each statement.

    Returns:
        float32 (batch, layer, head): `correct`, 1 where the probe of the fold in whose test part
            the statement is gives
        the right label; `null`, what it would be right by, were the labels of its question
        shuffled; `score`, its decision value, positive where it is right; `decision` (also fold),
        what each fold's probe says, positive for true. NaN for statements in no test part.
        `weight` (fold, layer, head, dim) and `intercept` (fold, layer, head): decision = z weight +
        intercept;
        `weight_standardised`: the same in standard deviations of z among the training statements.
        Coordinates: `label`, `question` (batch), `part` (batch, fold), see `folds.parts_of`.
    """
    label = np.asarray(prompts["label"].values)
    part = parts_of(prompts["question"].values, cut)
    check_parts(label, part)
    decision, fitted = [], []
    for layer in range(z.sizes["layer"]):
        x = torch.from_numpy(
            np.ascontiguousarray(z.isel(layer=layer).transpose("head", "batch", "dim").values)
        )
        each = [
            _fit(x, torch.from_numpy(label), torch.from_numpy(own == 0), penalty) for own in part.T
        ]
        decision.append(np.stack([one.pop("decision") for one in each], -1))
        fitted.append({name: np.stack([one[name] for one in each]) for name in each[0]})
    rows = _rows(np.stack(decision, 1), label, prompts["question"].values, part)
    for name, meaning in FITTED.items():
        values = np.stack([one[name] for one in fitted], 1).astype(np.float32)
        dims = ("fold", *CELL, "dim")[: values.ndim]
        rows[name] = (dims, values, {"long_name": meaning, "units": "1", "source": SOURCE})
    own = {name: one for name, one in prompts.coords.items() if one.dims == ("batch",)}
    own |= {name: ("batch", np.asarray(prompts[name].values)) for name in ("label", "question")}
    index = {name: np.arange(z.sizes[name]) for name in CELL} | {"fold": np.arange(len(cut))}
    return rows.assign_coords(
        {**own, **index, "part": (("batch", "fold"), part, {"long_name": PARTS})}
    )


def check_parts(label: np.ndarray, part: np.ndarray) -> None:
    """Refuse a part without both labels: no probe can be fitted or judged there."""
    for fold in range(part.shape[1]):
        for number, name in enumerate(("training", "validation", "test")):
            if len(set(label[part[:, fold] == number].tolist())) < 2:
                raise BadInput(
                    f"the {name} part of fold {fold} lacks true or false statements; use more"
                    " questions"
                )


def _fit(
    x: torch.Tensor, label: torch.Tensor, train: torch.Tensor, penalty: float
) -> dict[str, np.ndarray]:
    """Probes of one layer in one fold, as many heads at a time as there is room for.

    x: [head, row, dim].
    """
    together = x.split(max(1, DOUBLE_BYTES // (8 * x.shape[1] * x.shape[2])))
    each = [_fit_some(some.double(), label, train, penalty) for some in together]
    found = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
    return found | {"decision": found["decision"].T}


def _fit_some(
    x: torch.Tensor, label: torch.Tensor, train: torch.Tensor, penalty: float
) -> dict[str, np.ndarray]:
    own = x[:, train]
    mean, spread = own.mean(1, keepdim=True), own.std(1, keepdim=True, correction=0)
    # what varies by no more than rounding in single precision does not vary
    spread = torch.where(spread > ROUNDING * mean.abs(), spread, 1.0)
    weight, intercept = fit((own - mean) / spread, label[train], penalty)
    raw = weight / spread[:, 0]
    shift = intercept - (raw * mean[:, 0]).sum(-1)
    says = (x @ raw.unsqueeze(-1))[..., 0] + shift.unsqueeze(1)
    return {
        "decision": says.numpy(),
        "weight": raw.numpy(),
        "intercept": shift.numpy(),
        "weight_standardised": weight.numpy(),
    }


def _rows(
    decision: np.ndarray, label: np.ndarray, question: np.ndarray, part: np.ndarray
) -> xr.Dataset:
    """What the probes say of each statement; decision: [batch, layer, head, fold]."""
    tested = part == 2
    own = np.where(tested[:, None, None], decision, 0).sum(-1)
    known = tested.any(1)[:, None, None]
    says = own > 0
    correct = says == (label == 1)[:, None, None]
    _, number, answers = np.unique(question, return_inverse=True, return_counts=True)
    share = (np.bincount(number, label) / answers)[number][
        :, None, None
    ]  # of the question's answers that are true
    values = {
        "correct": (correct, "share of held-out statements that the probe judges right", 0.0),
        "null": (
            np.where(says, share, 1 - share),
            "the same, mean over all shuffles of a question's labels",
            0.0,
        ),
        "score": (
            np.where(label[:, None, None] == 1, own, -own),
            "decision value, positive where it is right",
            None,
        ),
    }
    rows = xr.Dataset()
    for name, (each, meaning, low) in values.items():
        bounds = {} if low is None else {"valid_min": 0.0, "valid_max": 1.0}
        about = {"long_name": meaning, "units": "1", "source": SOURCE, **bounds}
        rows[name] = (("batch", *CELL), np.where(known, each, np.nan).astype(np.float32), about)
    about = {
        "long_name": "what the probe of each fold says, positive for true",
        "units": "1",
        "source": SOURCE,
    }
    rows["decision"] = (("batch", *CELL, "fold"), decision.astype(np.float32), about)
    return rows
