"""The plain dicts that cross into traces: what the model looks like, what is read, what is swapped.

    spec = nnheads.models.geometry.spec(model)        # ModelSpec
    spec["heads"], spec["kernel"]                     # 12, "interface"

They are plain dicts at run time, so they travel to a server as data; the classes here are for
readers and type checkers alone. No function that is shipped may call them.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

import torch

Inputs = dict[str, torch.Tensor]  # ids, mask and positions, as the model's forward takes them


class ModelSpec(TypedDict):
    """What traces have to know of a model's shape.

    kernel: where attention is computed, a key of `kernels`.
    tuple_block: a block returns (hidden states, attention weights).
    attention_adds, mlp_adds: modules of a block whose output joins the residual stream.
    mlp_reads: the module of a block whose input the MLP reads.
    neurons: the module whose input are the MLP's neurons; None where experts share the MLP.
    windows: reach of each layer's local attention that no mask shows; None for all keys.
    post_norm: the norm between attention and the residual stream, where somebody asks for it.
    """

    heads: int
    kv_heads: int
    tuple_block: bool
    kernel: str
    attention_adds: str
    mlp_adds: str
    mlp_reads: str
    neurons: str | None
    windows: list[int | None]
    post_norm: NotRequired[str | None]


class Request(TypedDict):
    """What is read of a run's logits.

    positions: [case, question]; None for the last position alone.
    answers: [case, question, answer].
    full: how much of the vocabulary is read: 0 the answers alone, 1 also their ranks and the
        log-sum-exp, 2 also KL from the unchanged run.
    end: only the last position is read. keep: so many last positions have logits; 0 for all.
    weight, bias: the unembedding's columns [case, question, answer, d_model], where at hand.
    reference: log-probabilities of the unchanged run [case, question, vocabulary].
    """

    positions: torch.Tensor | None
    answers: torch.Tensor
    full: int
    end: bool
    keep: int
    weight: NotRequired[torch.Tensor | None]
    bias: NotRequired[torch.Tensor | None]
    reference: NotRequired[torch.Tensor | None]


Chunk = tuple[int, int, int, int]  # first position, first layer, first row, last row


class Cells(TypedDict):
    """The swaps of a sweep, in the order in which they run.

    entries: [entry, 4]: cell, layer, unit, region. bounds: first entry of each cell, and the end.
    regions: [region, case, position], which positions each region holds.
    chunks: one forward each, over rows (cell, case).
    positions: [region, case, position] that the first changed run of a path has; None for all.
    """

    entries: torch.Tensor
    bounds: list[int]
    regions: torch.Tensor
    chunks: list[Chunk]
    positions: NotRequired[torch.Tensor | None]


class Write(TypedDict):
    """New values for some units of a site, in one layer.

    row, unit: [entry]. where: [entry, position], which positions are written.
    values: [entry, ..., position, width]; else fill: "zero", or "uniform" for patterns.
    add: the values are added to what is there.
    """

    row: torch.Tensor
    unit: torch.Tensor
    where: torch.Tensor
    values: NotRequired[torch.Tensor]
    fill: NotRequired[str]
    add: NotRequired[bool]


class SwapOptions(TypedDict):
    """What a sweep puts where.

    fill: "zero", "uniform" or None. offset: so many first positions are the same in both texts.
    add: values are added to what is there. owner: [case], the row of given values that is a case's.
    """

    site: str
    spec: ModelSpec
    fill: str | None
    offset: int
    add: bool
    owner: torch.Tensor | None


class Scored(TypedDict):
    """The tokens of which log probabilities are wanted, and the texts that they are summed for.

    keep: so many last positions of each row have logits. before: [row, scored], which of these
    predicts a token. token: its id. text: [row, scored], the number of its text, -1 for none.
    texts: how many there are.
    """

    keep: int
    before: torch.Tensor
    token: torch.Tensor
    text: torch.Tensor
    texts: int


class PathOptions(TypedDict):
    """The receivers of a path, and what is frozen.

    via: "q", "k" or "v"; None for the final residual stream. receivers: layer -> units.
    freeze: MLPs are frozen as well as heads.
    """

    spec: ModelSpec
    via: str | None
    receivers: dict[int, list[int]]
    freeze: bool


class GradientOptions(TypedDict):
    """What is estimated from gradients.

    fix: attention is computed again for q and k. drop: layers are cut off in turn.
    each: one estimate for each position instead of one for all.
    """

    site: str
    spec: ModelSpec
    layers: list[int]
    fix: bool
    drop: bool
    each: bool


class SweepTask(TypedDict):
    """What a sweep swaps and reads. given: layer -> values [case, unit, ..., position, width]."""

    cells: Cells
    request: Request
    options: SwapOptions
    given: dict[int, torch.Tensor] | None


class PathTask(TypedDict):
    """What path patching changes and reads. given: layer -> the senders' z on the other text."""

    cells: Cells
    request: Request
    options: PathOptions
    given: dict[int, torch.Tensor]


class Known(TypedDict):
    """A run that was recorded: [case, ...] by layer, and what was read of its logits.

    values: site -> layer -> value. residuals: layer -> the stream that enters it.
    reference: log-probabilities where all of the vocabulary counts. cache: its keys and values.
    """

    inputs: Inputs
    values: dict[str, dict[int, torch.Tensor]]
    residuals: dict[int, torch.Tensor]
    read: torch.Tensor | None
    reference: torch.Tensor | None
    cache: Any


class Start(TypedDict):
    """Where a changed run begins: its inputs, its cache, and what enters its first layer.

    z: the first layer's head outputs where its attention need not run again, else None.
    """

    inputs: Inputs
    cache: Any
    layer: int
    residual: torch.Tensor
    z: torch.Tensor | None
