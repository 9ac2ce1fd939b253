"""Truthfulness heads: what they put out at the end of a statement tells whether it is true.

Is a head's output at the last token of question and answer enough to judge answers to unseen
questions?

A logistic probe on each head is fitted on the training questions of each fold and asked about its
test questions. Fewer than all statements are another question: probes learn from what they are
given.
"""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from nnheads.detectors._head_type import HeadType
from nnheads.truth.activations import last_outputs
from nnheads.truth.folded_statements import truth
from nnheads.truth.folds import folds_of
from nnheads.truth.probes import scores_of

KEPT = ("num_heads", "template", "questions", "dropped")


def probed(
    model, prompts: xr.Dataset, *, batch_size: int = 16, parts: Path | None = None, quiet=True
) -> xr.Dataset:
    """Return what probes on each head say of questions that they have not seen."""
    z = last_outputs(model, prompts, batch_size=batch_size, parts=parts, quiet=quiet)
    scores = scores_of(z, prompts, folds_of(prompts["question"].values, prompts["part"].values))
    scores = scores.drop_vars(["weight", "weight_standardised", "intercept"])
    about = {name: prompts.attrs[name] for name in KEPT}
    return scores.assign_attrs(kind="truthfulness", **about)


HEAD_TYPE = HeadType(
    name="truthfulness",
    prompts=truth,
    headline="correct",
    learn=probed,
    null="the same probes judged by shuffled labels, computed by `truth.probes.scores_of`.",
    returns=(
        "float32 (batch, layer, head): `correct` (headline; 1 where the probe that has not seen the"
        " question is right, else 0: the mean is held-out accuracy), `null` (the same for shuffled"
        " labels, in [0, 1]), `score` (decision value, positive where right); `decision` (also"
        " fold), what each fold's probe says. Coordinates: `label`, `question` (batch), `part`"
        " (batch, fold)."
    ),
    misleads=(
        "a probe finds whatever goes with truth in these answers: their length, negations, words"
        " that liars or experts use. Shuffled labels do not show that; an untrained model of the"
        " same shape does, and so do questions of another kind. That truth can be read from a head"
        " does not say that the model uses it: steer along it."
    ),
    source="Li et al. 2023, arXiv 2306.03341",
    source_details="on inference-time intervention",
)
