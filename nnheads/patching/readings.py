"""Cells in, readings out: what a sweep needs, made from a labelled prompt dataset.

Values come from another run of the same prompts ("source"), or are zero, uniform attention, means
over a prompt set, another prompt's (resample), or given tensors. What is read are the logits of the
prompts' answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry, model_spec
from nnheads.models.inputs import inputs
from nnheads.models.labels import check_finite
from nnheads.patching.cells import Cells, Schedule, schedule
from nnheads.trace.readout import answer_columns
from nnheads.trace.session import remote_of
from nnheads.trace.sites import SITES, UNITS
from nnheads.trace.sweep import sweep

GPU_TOKENS = 16384  # rows x positions in one forward
# numbers in the widest activation of one forward: enough to keep the arithmetic busy; more leave
# the caches
CPU_NUMBERS = 2**21


@dataclass(frozen=True)
class Readings:
    """Readings [..., case, question, reading] after each swap (first axis: cell), of the base run
    and of the source. See `named` for what they are. `asked` [case, question] is False where a case
    has fewer questions than others."""

    swapped: torch.Tensor
    base: torch.Tensor
    source: torch.Tensor | None
    asked: np.ndarray
    answers: int

    def named(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Readings by name: `logit` and, read from the whole vocabulary, `rank` [..., question,
        answer], `total` (log-sum-exp) and `divergence` from the base run [..., question]."""
        n = self.answers
        named = {"logit": values[..., :n]}
        if values.shape[-1] > n:
            named |= {
                "rank": values[..., n : 2 * n],
                "total": values[..., 2 * n],
                "divergence": values[..., 2 * n + 1],
            }
        return named


@dataclass(frozen=True)
class Job:
    """Everything that a sweep is called with; nothing has run yet."""

    base: dict[str, torch.Tensor]
    source: dict[str, torch.Tensor] | None
    mix: torch.Tensor | None
    given: dict[int, torch.Tensor] | None
    cells: Cells
    order: Schedule
    ask: dict
    how: dict
    asked: np.ndarray


def units(model, site: str) -> int:
    """How many units a site has at each layer."""
    if site not in SITES:
        raise BadInput(f"site {site!r} is not known; use one of {', '.join(SITES)}")
    sizes = geometry(model)
    return {"head": sizes.heads, "kv_head": sizes.kv_heads}.get(UNITS.get(site, ""), 1)


def questions(prompts: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Where prompts ask, and for which tokens: positions [case, question], -1 for none, and ids
    [case, question, answer]. Pairs ask for answer and wrong answer at their end; other prompts for
    `target` (batch, step) at `ask` (batch, step)."""
    if "answer" in prompts and "wrong" in prompts:
        place = np.full((prompts.sizes["batch"], 1), prompts.sizes["position"] - 1)
        return place, np.stack([prompts["answer"].values, prompts["wrong"].values], 1)[
            :, None
        ].astype(int)
    if "ask" in prompts and "target" in prompts:
        target = np.maximum(
            prompts["target"].values, 0
        )  # where nothing is asked nothing is answered
        return prompts["ask"].values.astype(int), target.astype(int)[..., None]
    raise BadInput(
        "these prompts ask nothing: they need answer and wrong (batch), or ask and target (batch,"
        " step)"
    )


def prepare(
    model,
    prompts: xr.Dataset,
    cells: Cells,
    *,
    site: str = "z",
    base: str = "token",
    source: str | xr.Dataset | None = None,
    mix: np.ndarray | None = None,
    fill: str | None = None,
    given: dict[int, torch.Tensor] | None = None,
    of: np.ndarray | None = None,
    add: bool = False,
    full: bool = False,
    tokens: int | None = None,
) -> Job:
    """Check everything and order the cells.

    Args:
        base: which text of the prompts is run, "token" or "corrupted".
        source: where values come from: the other text of the same prompts, or other prompts.
        mix: [case, source row], see `sweep.mixed`.
        fill: "zero", or "uniform" for patterns. given: layer -> values [case, unit, ..., position,
            width].
        of: [case], which row of `given` is a case's, where several share one. add: to what is
            there, not instead of it.
        full: also read ranks, log-sum-exp and KL, which needs the logits of the whole vocabulary.
        tokens: most rows x positions in one forward.
    """
    if sum(what is not None for what in (source, fill, given)) != 1:
        raise BadInput("say once what is put in: a source, a fill, or values of your own")
    if fill == "uniform" and site != "pattern":
        raise BadInput(f"uniform attention is a pattern, not a value of {site}; use site pattern")
    fed = inputs(model, prompts, base)
    other = inputs(model, prompts, source) if isinstance(source, str) else None
    other = inputs(model, source) if isinstance(source, xr.Dataset) else other
    if other is not None and other["input_ids"].shape[1] != fed["input_ids"].shape[1]:
        raise BadInput(
            f"values come from prompts of {other['input_ids'].shape[1]} positions, the prompts have"
            f" {fed['input_ids'].shape[1]}; they must line up"
        )
    missing = sorted(set(cells.entries[:, 1].tolist()) - set(given)) if given is not None else []
    if missing:
        raise BadInput(
            f"there are no values for layer {missing[0]}; values are there for layers"
            f" {sorted(given or {})}"
        )
    place, answers = questions(prompts)
    width = prompts.sizes["position"]
    end = bool((place == width - 1).all())
    same = (other is not None and mix is None) and (fed["input_ids"] == other["input_ids"]).all(
        0
    ).numpy()
    shared = 0 if same is False else int(width if same.all() else same.argmin())
    last, first_asked = geometry(model).layers - 1, int(place[place >= 0].min())
    order = schedule(
        cells,
        shared=min(shared, width - 1),
        first_asked=first_asked,
        last_layer=last if end and site not in ("k", "v", "resid_pre") else None,
        tokens=tokens or suitable_tokens(model),
    )
    ask = {
        "place": None if end else torch.from_numpy(place),
        "answers": torch.from_numpy(answers),
        "full": full,
        "end": end,
        "keep": 1 if end else 0,
        **({} if full or remote_of(model) else answer_columns(model, torch.from_numpy(answers))),
    }
    how: dict = {
        "site": site,
        "form": model_spec(model),
        "fill": fill,
        "offset": min(shared, first_asked),
        "add": add,
    }
    how["of"] = None if of is None else torch.from_numpy(np.asarray(of, np.int64))
    mixing = None if mix is None else torch.from_numpy(np.asarray(mix, np.float32))
    return Job(fed, other, mixing, given, cells, order, ask, how, place >= 0)


def measure(model, job: Job) -> Readings:
    """Run a job: one session, so one job on a server too."""
    order = job.order
    cells = {
        "entries": torch.from_numpy(order.entries),
        "bounds": [int(bound) for bound in order.bounds],
        "places": torch.from_numpy(job.cells.places),
        "chunks": order.chunks,
    }
    found, base, source = sweep(
        model, job.base, job.source, job.mix, job.given, cells, job.ask, job.how
    )
    for values in (base, source, found):
        if values is not None:
            check_finite(values, "the model's logits")
    swapped = base.cpu().repeat(
        job.cells.count, 1, 1, 1
    )  # what no cell can change is the base run's
    swapped[torch.from_numpy(order.kept)] = found.cpu()
    answers = job.ask["answers"].shape[-1]
    return Readings(
        swapped, base.cpu(), None if source is None else source.cpu(), job.asked, answers
    )


def suitable_tokens(model) -> int:
    """Rows x positions that one forward should have where it runs.

    One that does not fit is halved.
    """
    on_cpu = not remote_of(model) and next(model._module.parameters()).device.type == "cpu"
    return (
        min(max(CPU_NUMBERS // (4 * geometry(model).d_model), 512), GPU_TOKENS)
        if on_cpu
        else GPU_TOKENS
    )
