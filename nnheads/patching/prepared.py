"""A sweep made ready: cells and labelled prompts in, plain data that a trace takes out.

    plan = prepare(model, prompts, cells, site="z", text="corrupted", source="token")

Values come from another text of the same prompts, from other prompts (weighted by `mix`), are a
fill (zero, uniform attention), or given tensors. What is read are the logits of the prompts'
answers. Nothing has run when `prepare` returns; it raises BadInput for what cannot run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry, model_spec
from nnheads.models.inputs import inputs
from nnheads.models.names import check_site
from nnheads.patching.cells import CellSet, Schedule, schedule
from nnheads.patching.forward_size import logit_numbers, suitable_rows, suitable_tokens
from nnheads.trace.plain import Cells, Inputs, Request, SwapOptions, SweepTask
from nnheads.trace.readout import answer_columns
from nnheads.trace.session import remote_of
from nnheads.trace.sites import SITES, SWEPT

Positions = Int[np.ndarray, "case question"]


@dataclass(frozen=True)
class PreparedSweep:
    """Everything that a sweep is called with.

    inputs, source: the text that is run, and the one that values come from. mix: see `sweep`.
    questions: False where a case has fewer questions than others.
    """

    inputs: Inputs
    source: Inputs | None
    mix: Float[torch.Tensor, "case source_row"] | None
    cells: CellSet
    order: Schedule
    task: SweepTask
    questions: Bool[np.ndarray, "case question"]

    @property
    def answers(self) -> int:
        """Return how many answers each question has."""
        return int(self.task["request"]["answers"].shape[-1])


def prepare(
    model,
    prompts: xr.Dataset,
    cells: CellSet,
    *,
    site: str = "z",
    text: str = "token",
    source: str | xr.Dataset | None = None,
    mix: np.ndarray | None = None,
    fill: str | None = None,
    values: dict[int, torch.Tensor] | None = None,
    owner: np.ndarray | None = None,
    add: bool = False,
    full: int = 0,
    tokens: int | None = None,
) -> PreparedSweep:
    """Check everything and order the cells.

    Args:
        prompts: (batch, position), with the questions that `questions` reads.
        text: which text of the prompts is run, "token" or "corrupted".
        source: where values come from: the other text of the same prompts, or other prompts.
        mix: [case, source row], how the source's rows add up to each case's value.
        fill: "zero", or "uniform" for patterns.
        values: layer -> values [case, unit, ..., position, width].
        owner: [case], which row of `values` is a case's, where several share one.
        add: values are added to what is there, not put in its stead.
        full: how much of the vocabulary is read, see `trace.plain.Request`.
        tokens: most rows x positions in one forward.

    Raises:
        BadInput: unknown site, no value or several, texts that do not line up, no questions.
    """
    check_put_in(site, source, fill, values)
    run, other = texts_of(model, prompts, text, source)
    check_layers(cells, values)
    positions, answers = questions(prompts)
    shared = shared_prefix(run, other) if mix is None else 0
    request = request_of(model, positions, answers, prompts.sizes["position"], full)
    logits = logit_numbers(model, request)
    tokens = tokens or suitable_tokens(model, logits / prompts.sizes["position"])
    order = ordered(model, cells, site, shared, positions, tokens)
    options = SwapOptions(
        site=site,
        spec=model_spec(model),
        fill=fill,
        offset=min(shared, first_asked(positions)),
        add=add,
        owner=None if owner is None else torch.from_numpy(np.asarray(owner, np.int64)),
    )
    task = SweepTask(cells=as_plain(cells, order), request=request, options=options, given=values)
    mixing = None if mix is None else torch.from_numpy(np.asarray(mix, np.float32))
    return PreparedSweep(run, other, mixing, cells, order, task, positions >= 0)


def units(model, site: str) -> int:
    """Return how many units a site has at each layer.

    Raises BadInput for a site that cannot be swapped.
    """
    check_site(site, SWEPT)
    sizes = geometry(model)
    return {"head": sizes.heads, "kv_head": sizes.kv_heads}.get(SITES[site]["unit"] or "", 1)


def questions(prompts: xr.Dataset) -> tuple[Positions, Int[np.ndarray, "case question answer"]]:
    """Return where prompts ask, -1 for nowhere, and for which tokens.

    Pairs ask for answer and wrong answer at their end; other prompts for `target` (batch, step) at
    `ask` (batch, step).
    """
    if "answer" in prompts and "wrong" in prompts:
        ends = np.full((prompts.sizes["batch"], 1), prompts.sizes["position"] - 1)
        pair = np.stack([prompts["answer"].values, prompts["wrong"].values], 1)
        return ends, pair[:, None].astype(int)
    if "ask" in prompts and "target" in prompts:
        # where nothing is asked nothing is answered
        target = np.maximum(prompts["target"].values, 0)
        return prompts["ask"].values.astype(int), target.astype(int)[..., None]
    raise BadInput(
        "these prompts ask nothing: they need answer and wrong (batch), or ask and target (batch,"
        " step)"
    )


def check_put_in(site: str, source, fill: str | None, values: dict | None) -> None:
    """Refuse a sweep that puts in nothing, or two things at once."""
    if sum(one is not None for one in (source, fill, values)) != 1:
        raise BadInput("say once what is put in: a source, a fill, or values of your own")
    if fill == "uniform" and site != "pattern":
        raise BadInput(f"uniform attention is a pattern, not a value of {site}; use site pattern")


def texts_of(
    model, prompts: xr.Dataset, text: str, source: str | xr.Dataset | None
) -> tuple[Inputs, Inputs | None]:
    """Return the inputs of the text that is run, and of the source if there is one."""
    run = inputs(model, prompts, text)
    if source is None:
        return run, None
    if isinstance(source, str):
        other = inputs(model, prompts, source)
    else:
        other = inputs(model, source)
    widths = [one["input_ids"].shape[1] for one in (other, run)]
    if widths[0] != widths[1]:
        raise BadInput(
            f"values come from prompts of {widths[0]} positions, the prompts have {widths[1]}; they"
            " must line up"
        )
    return run, other


def check_layers(cells: CellSet, values: dict[int, torch.Tensor] | None) -> None:
    """Refuse layers that one's own values do not have."""
    missing = sorted(set(cells.entries[:, 1].tolist()) - set(values or {}))
    if values is not None and missing:
        raise BadInput(
            f"there are no values for layer {missing[0]}; values are there for layers"
            f" {sorted(values)}"
        )


def shared_prefix(run: Inputs, other: Inputs | None) -> int:
    """Return how many first positions hold the same tokens in both texts of every case."""
    if other is None:
        return 0
    same = (run["input_ids"] == other["input_ids"]).all(0).numpy()
    return len(same) if same.all() else int(same.argmin())


def first_asked(positions: Positions) -> int:
    """Return the first position whose logits are read."""
    return int(positions[positions >= 0].min())


def ordered(
    model, cells: CellSet, site: str, shared: int, positions: Positions, tokens: int
) -> Schedule:
    """Return the cells in the order in which they run."""
    width = cells.regions.shape[2]
    at_end = bool((positions == width - 1).all())
    confined = at_end and site not in ("k", "v", "resid_pre")
    return schedule(
        cells,
        shared=min(shared, width - 1),
        first_asked=first_asked(positions),
        last_layer=geometry(model).layers - 1 if confined else None,
        tokens=tokens,
        rows=suitable_rows(model, width),
    )


def request_of(
    model,
    positions: Positions,
    answers: Int[np.ndarray, "case question answer"],
    width: int,
    full: int,
) -> Request:
    """Return what is read of each run; the unembedding's columns go with it where they help."""
    end, ids = bool((positions == width - 1).all()), torch.from_numpy(answers)
    request = Request(
        positions=None if end else torch.from_numpy(positions),
        answers=ids,
        full=full,
        end=end,
        keep=1 if end else 0,
    )
    if not full and not remote_of(model):
        request.update(answer_columns(model, ids))  # type: ignore[typeddict-item]
    return request


def as_plain(cells: CellSet, order: Schedule) -> Cells:
    """Return scheduled cells as a trace takes them."""
    return Cells(
        entries=torch.from_numpy(order.entries),
        bounds=[int(bound) for bound in order.bounds],
        regions=torch.from_numpy(cells.regions),
        chunks=order.chunks,
    )
