"""Multiple-choice scores: which answers a model finds likely, with and without an edit.

Each answer is read as part of its whole statement, and its log probability is the sum over its own
tokens. An edit that
comes too late to change any of these sums is refused: such an evaluation would give the unedited
    model's scores under
the edit's name.
Sources: Lin et al. 2022, arXiv 2109.07958 (MC1, MC2, MC3); Li et al. 2023, arXiv 2306.03341
    (cross-entropy and KL).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from nnsight import save
from scipy.special import logsumexp

from nnheads.errors import BadInput
from nnheads.interventions import prepare as plan
from nnheads.interventions.likelihood import compare, continuations, read_places
from nnheads.interventions.schema import PLACES, At, Intervention
from nnheads.models.geometry import model_spec
from nnheads.models.inputs import inputs
from nnheads.models.labels import check_finite
from nnheads.runs import batches
from nnheads.trace.likelihood import log_probabilities
from nnheads.trace.session import remote_of

SOURCE = "Lin et al. 2022, arXiv 2109.07958"
COHERENCE = "Li et al. 2023, arXiv 2306.03341"
CHOICES = {
    "mc1": ("share of questions whose best answer is likelier than every false one", "1"),
    "mc2": ("probability of the true answers among all answers", "1"),
    "mc3": ("share of true answers that are likelier than every false one", "1"),
    "ratio": ("mean log probability of true answers minus that of false ones", "nat"),
}
LONGEST = 128  # tokens of a neutral text that are read


def log_probability(model, intervention: Intervention, prompts: xr.Dataset) -> xr.Dataset:
    """How likely each answer is behind its question.

    Args:
        intervention: takes no sources; one without edits leaves the model as it is.
        prompts: statements, as `prompts.truth.statements` lays them out; `answer_length` (batch)
            may be missing: all that stands behind `prompt_length` tokens is then the answer.

    Returns:
        (batch): `log_probability`, in nats, summed over the answer's tokens.

    Raises:
        BadInput: an edit that no scored token can feel, one that takes sources, what the model does
            not have.
        RunError: predictions that are no numbers.
    """
    check_reach(intervention, prompts)
    return read(model, intervention, prompts)


def read(model, intervention: Intervention, prompts: xr.Dataset) -> xr.Dataset:
    """`log_probability` of a slice of statements, of which an edit may reach none although it
    reaches others.
    """
    shape, prompts = model_spec(model), without_padding(prompts)
    plan.check_model(model, intervention, shape)
    fed, scored = inputs(model, prompts), answer_tokens(prompts)
    first = int(scored.any(0).nonzero()[0])
    if int(prompts["prompt_length"].min()) < 1:
        raise BadInput(
            "an answer has nothing before it, so no token predicts it; put a question in front"
            " of it"
        )
    edits = [
        {
            **plan.plain(intervention.edits[i], i),
            "where": read_places(intervention.edits[i].at, prompts),
        }
        for i in plan.ordered(model, intervention)
    ]
    tensors = {**intervention.tensors, **plan.functions(intervention)}
    wanted = scored[:, first:]
    with torch.no_grad(), model.session(remote=remote_of(model)):
        found = save(log_probabilities(model, fed, edits, shape, tensors, wanted))
    check_finite(found, "log probabilities of the answers")
    about = {"long_name": "log probability of the answer", "units": "nat", "source": SOURCE}
    return xr.Dataset({"log_probability": ("batch", found.float().numpy(), about)}, prompts.coords)


def answer_tokens(prompts: xr.Dataset) -> torch.Tensor:
    """Which tokens are scored [row, position]: those of the answer, and not what a template writes
    behind it.
    """
    mask = np.asarray(prompts["mask"].values)
    place = mask.cumsum(1) - 1  # counted from each row's first token
    start = prompts["prompt_length"].values[:, None]
    length = (
        prompts["answer_length"].values[:, None]
        if "answer_length" in prompts.coords
        else mask.shape[1]
    )
    scored = (mask > 0) & (place >= start) & (place < start + length)
    if not scored.any(1).all():
        raise BadInput(
            f"statement {int(np.flatnonzero(~scored.any(1))[0])} has no answer; it cannot be scored"
        )
    return torch.from_numpy(scored)


def without_padding(prompts: xr.Dataset) -> xr.Dataset:
    """Drop positions at which no row of this part has a token."""
    return prompts.isel(position=prompts["mask"].values.any(0))


def reached(intervention: Intervention, prompts: xr.Dataset) -> np.ndarray:
    """Whether some edit acts early enough to change a scored log probability (batch): at the token
    before the last scored one, or sooner."""
    scored = answer_tokens(prompts)
    last = scored.shape[1] - 1 - scored.flip(1).int().argmax(1)
    felt = torch.zeros(len(scored), dtype=torch.bool)
    for edit in intervention.edits:
        where = read_places(edit.at, prompts)
        felt |= ((where >= 0) & (where < last[:, None])).any(1)
    return felt.numpy()


def check_reach(intervention: Intervention, prompts: xr.Dataset) -> None:
    """Refuse to score what an edit cannot have changed."""
    if intervention.sources:
        raise BadInput(
            f"this intervention takes {intervention.sources} source prompts; statements alone have"
            " none"
        )
    if not intervention.edits or reached(intervention, prompts).any():
        return
    names = ", ".join(sorted({said(edit.at) for edit in intervention.edits}))
    raise BadInput(
        f"an edit at {names} comes too late for every answer: the last scored token is predicted"
        " from the token before it, so the scores would be the unedited model's; use scope all"
    )


def said(at: At) -> str:
    """Positions as a reader would name them."""
    values = "".join(f" {value}" for value in at.values)
    return f"{at.kind}{values} ({PLACES[at.kind]})"


def score(
    model,
    intervention: Intervention,
    prompts: xr.Dataset,
    *,
    batch_size: int = 32,
    parts: Path | None = None,
    name: str = "answers",
    quiet: bool = True,
) -> xr.Dataset:
    """CHOICES of each question (question), and the share of answers that the edit reaches in attrs."""
    check_reach(intervention, prompts)
    found = batches.run(
        partial(read, model, intervention),
        prompts,
        size=batch_size,
        parts=parts,
        name=name,
        quiet=quiet,
        title=name,
        model=model,
    )
    share = float(reached(intervention, prompts).mean()) if intervention.edits else 0.0
    return choices(found).assign_attrs(reached=share)


def choices(likely: xr.Dataset) -> xr.Dataset:
    """MC1, MC2, MC3 and the log-likelihood ratio of each question.

    Args:
        likely: `log_probability` (batch) with coordinates question, label and is_best.

    Returns:
        CHOICES (question). Equally likely answers count against the model.

    Raises:
        BadInput: a question without a best, a true or a false answer.
    """
    values = likely["log_probability"].values.astype(float)
    question, label, best = (likely[name].values for name in ("question", "label", "is_best"))
    numbers, rows = np.unique(question), []
    for number in numbers:
        own = question == number
        true, false, first = (values[own & kind] for kind in (label == 1, label == 0, best == 1))
        if not len(true) or not len(false) or len(first) != 1:
            raise BadInput(
                f"question {number} has {len(true)} true, {len(false)} false and {len(first)} best"
                " answers; expected at least one true and one false, and one best"
            )
        mass = logsumexp(true) - logsumexp(np.concatenate([true, false]))
        rows.append(
            (
                first[0] > false.max(),
                np.exp(mass),
                (true > false.max()).mean(),
                true.mean() - false.mean(),
            )
        )
    table = np.array(rows, float).T
    data = {
        name: (
            "question",
            column.astype("float32"),
            {"long_name": text, "units": units, "source": SOURCE},
        )
        for (name, (text, units)), column in zip(CHOICES.items(), table)
    }
    return xr.Dataset(data, {"question": numbers})


def neutral_texts(model, texts: Sequence[str], longest: int = LONGEST) -> xr.Dataset:
    """Texts on which an edit should change nothing, cut to so many tokens.

    All but the first token is predicted.
    """
    rows = [model.tokenizer(text)["input_ids"][:longest] for text in texts]
    short = [number for number, row in enumerate(rows) if len(row) < 2]
    if short or not rows:
        raise BadInput(
            f"neutral text {short[0] + 1} has fewer than two tokens; nothing in it can be predicted"
            if rows
            else "no neutral texts are given; expected at least one"
        )
    return continuations(model, rows, [1] * len(rows))


def coherence(
    model,
    intervention: Intervention,
    neutral: xr.Dataset,
    *,
    batch_size: int = 16,
    parts: Path | None = None,
    name: str = "neutral",
    quiet: bool = True,
) -> xr.Dataset:
    """What an edit costs on neutral texts: `cross_entropy` with the edit, `original` without, `kl`
    of the edited from the unedited predictions; (text), nats per token."""
    check_reach(intervention, neutral)
    found = batches.run(
        partial(compare, model, intervention),
        neutral,
        size=batch_size,
        parts=parts,
        name=name,
        quiet=quiet,
        title=name,
        model=model,
    )
    meaning = {
        "cross_entropy": (-found["log_probability"], "cross-entropy on neutral text"),
        "original": (-found["original"], "cross-entropy on neutral text without the edit"),
        "kl": (found["kl"], "KL divergence on neutral text, without from with the edit"),
    }
    data = {
        name: (
            "text",
            values.values.astype("float32"),
            {"long_name": text, "units": "nat", "source": COHERENCE},
        )
        for name, (values, text) in meaning.items()
    }
    return xr.Dataset(data)
