"""How likely a model finds each answer, with and without an edit.

    log_probability(model, intervention, statements)["log_probability"]    # (batch), nats

Each answer is read as part of its whole statement, and its log probability is the sum over its own
tokens. An edit that comes too late to change any of these sums is BadInput: such an evaluation
would give the unedited model's scores under the edit's name.
Source: Lin et al. 2022, arXiv 2109.07958.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool
from nnsight import save

from nnheads.errors import BadInput
from nnheads.interventions.likelihood import read_positions
from nnheads.interventions.model_checks import check_model
from nnheads.interventions.positions import POSITIONS, At
from nnheads.interventions.prepare import edits_at, tensors_of
from nnheads.interventions.schema import Intervention
from nnheads.models.geometry import model_spec
from nnheads.models.inputs import without_padding
from nnheads.models.labels import check_finite
from nnheads.runs import batches
from nnheads.trace.likelihood import log_probabilities
from nnheads.trace.plain import Scored
from nnheads.trace.session import remote_of
from nnheads.truth.branches import Branched, branched, longest_first, numbered
from nnheads.truth.iti import SCOPES

SOURCE = "Lin et al. 2022, arXiv 2109.07958"
ABOUT = {"long_name": "log probability of the answer", "units": "nat", "source": SOURCE}
Tokens = Bool[torch.Tensor, "row position"]


def log_probability(model, intervention: Intervention, prompts: xr.Dataset) -> xr.Dataset:
    """Return how likely each answer is behind its question.

    Args:
        intervention: takes no sources; one without edits leaves the model as it is.
        prompts: statements, `token`, `mask` (batch, position), as `prompts.statements.statements`
            lays them out; `answer_length` (batch) may be missing: all that stands behind
            `prompt_length` tokens is then the answer.

    Returns:
        (batch): `log_probability`, in nats, summed over the answer's tokens.

    Raises:
        BadInput: an edit that no scored token can feel, one that takes sources, what the model does
            not have.
        RunError: predictions that are no numbers.

    Source: Lin et al. 2022, arXiv 2109.07958.
    """
    check_reach(intervention, prompts)
    return read(model, intervention, prompts)


def read(model, intervention: Intervention, prompts: xr.Dataset) -> xr.Dataset:
    """Return `log_probability` (batch) of a slice of statements.

    An edit may reach none of them although it reaches others.
    """
    spec, prompts = model_spec(model), without_padding(prompts)
    check_model(model, intervention, spec)
    _check_question(prompts)
    edits, tensors = _plain_edits(model, intervention, prompts), tensors_of(intervention)
    run = branched(model, prompts, intervention, [edit["where"] for edit in edits])
    edits = [{**edit, "where": run.where(edit["where"])} for edit in edits]
    request, wanted = run.inputs, _scored(prompts, run)
    with torch.no_grad(), model.session(remote=remote_of(model)):
        sums = save(log_probabilities(model, request, edits, spec, tensors, wanted))
    check_finite(sums, "log probabilities of the answers")
    return xr.Dataset({"log_probability": ("batch", sums.float().numpy(), ABOUT)}, prompts.coords)


def _scored(prompts: xr.Dataset, run: Branched) -> Scored:
    """Return which tokens are scored, where they are read, and what predicts each."""
    text, position = answer_tokens(prompts).numpy().nonzero()
    own = position - run.start[text]
    row, before = run.row[text], run.place[text, own - 1]
    first, ids = int(before.min()), prompts["token"].values[text, position]
    number = numbered(row == np.arange(row.max() + 1)[:, None])

    def of_rows(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.where(number >= 0, values[number], -1))

    return Scored(
        keep=run.inputs["input_ids"].shape[1] - first,
        before=of_rows(before - first),
        token=of_rows(ids.astype(np.int64)),
        text=of_rows(text),
        texts=prompts.sizes["batch"],
    )


def _check_question(prompts: xr.Dataset) -> None:
    if int(prompts["prompt_length"].min()) < 1:
        raise BadInput(
            "an answer has nothing before it, so no token predicts it; put a question in front"
            " of it"
        )


def _plain_edits(model, intervention: Intervention, prompts: xr.Dataset) -> list[dict]:
    """Return the edits as the trace takes them, with the positions of these prompts."""
    return edits_at(model, intervention, lambda at: read_positions(at, prompts))


def answer_tokens(prompts: xr.Dataset) -> Tokens:
    """Return which tokens are scored: those of the answer, not what a template writes behind it.

    Raises:
        BadInput: a statement without an answer.
    """
    mask = np.asarray(prompts["mask"].values)
    index = mask.cumsum(1) - 1  # counted from each row's first token
    start = prompts["prompt_length"].values[:, None]
    length = mask.shape[1]
    if "answer_length" in prompts.coords:
        length = prompts["answer_length"].values[:, None]
    scored = (mask > 0) & (index >= start) & (index < start + length)
    empty = np.flatnonzero(~scored.any(1))
    if len(empty):
        number = prompts["batch"].values[empty[0]]
        raise BadInput(f"statement {number} has no answer; it cannot be scored")
    return torch.from_numpy(scored)


def reached(intervention: Intervention, prompts: xr.Dataset) -> Bool[np.ndarray, " batch"]:
    """Return whether some edit acts early enough to change a scored log probability.

    That is at the token before the last scored one, or sooner.
    """
    scored = answer_tokens(prompts)
    last = scored.shape[1] - 1 - scored.flip(1).int().argmax(1)
    felt = torch.zeros(len(scored), dtype=torch.bool)
    for edit in intervention.edits:
        where = read_positions(edit.at, prompts)
        felt |= ((where >= 0) & (where < last[:, None])).any(1)
    return felt.numpy()


def in_batches(
    read: Callable[..., xr.Dataset],
    model,
    intervention: Intervention,
    prompts: xr.Dataset,
    *,
    name: str,
    **options,
) -> xr.Dataset:
    """Run `read(model, intervention, prompts)` in batches, once it is sure that the edit is seen.

    Args:
        name: of the batches that are kept, and of the line that says how far it is.
        options: size, parts and quiet, as `runs.batches.run` takes them.

    Raises BadInput as `check_reach`.
    """
    check_reach(intervention, prompts)
    function = partial(read, model, intervention)
    about = {"name": name, "title": name, "model": model, "order": longest_first(prompts)}
    return batches.run(function, prompts, **about, **options)


def check_reach(intervention: Intervention, prompts: xr.Dataset) -> None:
    """Refuse to score what an edit cannot have changed.

    Raises:
        BadInput: an intervention that takes sources, or whose edits all come too late.
    """
    if intervention.sources:
        raise BadInput(
            f"this intervention takes {intervention.sources} source prompts; statements alone have"
            " none"
        )
    if not intervention.edits or reached(intervention, prompts).any():
        return
    names = ", ".join(sorted({_in_words(edit.at) for edit in intervention.edits}))
    raise BadInput(
        f"an edit {names} comes too late for every answer: the last scored token is predicted"
        " from the token before it, so the scores would be the unedited model's; use scope all"
    )


def _in_words(at: At) -> str:
    """Return positions as a reader would name them: by their scope, if they are one."""
    for name, positions in SCOPES.items():
        if positions == at:
            return f"of scope {name}"
    values = "".join(f" {value}" for value in at.values)
    return f"at {at.kind}{values} ({POSITIONS[at.kind]})"
