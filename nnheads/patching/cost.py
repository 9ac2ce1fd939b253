"""What a sweep will cost, before it runs: forwards, tokens x layers, bytes, and an estimated time.

    print("\n".join(describe(cost(model, plan), None)))

The arithmetic counts multiplications and additions of the blocks' matrices, which is where the time
goes; the rate is that of one matrix product on this machine. Remote machines are not measured:
their estimate is left out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from nnheads.models.geometry import geometry
from nnheads.patching.memory import peak_bytes
from nnheads.patching.prepared import PreparedSweep

RATE_SECONDS = 0.1  # long enough for clocks and caches to be warm


@dataclass(frozen=True)
class Cost:
    """What a sweep runs and holds.

    token_layers: positions x blocks that are run; plain_token_layers: what one whole forward per
    cell would run. flops: of the blocks. peak_bytes: besides the weights, as `memory` counts them.
    read_bytes: what comes back.
    """

    cells: int
    forwards: int
    token_layers: int
    plain_forwards: int
    plain_token_layers: int
    flops: float
    peak_bytes: int
    read_bytes: int


def cost(model, plan: PreparedSweep) -> Cost:
    """Return the cost of a prepared sweep."""
    sizes, (cases, width) = geometry(model), plan.inputs["input_ids"].shape
    texts = 1 + (plan.source is not None)
    refilled = refilled_starts(model, plan)
    token_layers = plain_positions(plan, refilled) * sizes.layers + swapped_token_layers(
        plan, sizes.layers
    )
    answers = plan.task["request"]["answers"]
    return Cost(
        cells=plan.cells.count,
        forwards=len(plan.order.chunks) + texts + len(refilled),
        token_layers=token_layers,
        plain_forwards=plan.cells.count + texts,
        plain_token_layers=(plan.cells.count + texts) * cases * width * sizes.layers,
        flops=2.0 * token_layers * block_parameters(model),
        peak_bytes=peak_bytes(model, plan),
        read_bytes=4 * (plan.order.kept.size + 1) * cases * answers.shape[1] * answers.shape[2],
    )


def source_rows(plan: PreparedSweep) -> int:
    """Return how many prompts values come from."""
    return 0 if plan.source is None else int(plan.source["input_ids"].shape[0])


def source_offset(plan: PreparedSweep) -> int:
    """Return the first position that the source runs."""
    return plan.task["options"]["offset"] if plan.mix is None else 0


def refilled_starts(model, plan: PreparedSweep) -> list[int]:
    """Return the starts that fill a cache of their own.

    A cache that keeps a sliding window alone cannot be cut.
    """
    offset, width = source_offset(plan), plan.inputs["input_ids"].shape[1]
    starts = {start for start, *_ in plan.order.chunks if start}
    starts |= {offset} if source_rows(plan) and offset else set()
    return sorted(starts) if width > cache_width(model.config) else []


def plain_positions(plan: PreparedSweep, refilled: list[int]) -> int:
    """Return the positions of the runs in which nothing is swapped."""
    cases, width = plan.inputs["input_ids"].shape
    source = source_rows(plan) * (width - source_offset(plan))
    return int(cases * width + source + sum(cases * start for start in refilled))


def swapped_token_layers(plan: PreparedSweep, layers: int) -> int:
    """Return positions x blocks of the swapped runs."""
    width = plan.inputs["input_ids"].shape[1]
    return sum(
        (last - first) * (width - start) * (layers - layer)
        for start, layer, first, last in plan.order.chunks
    )


def cache_width(config) -> float:
    """Return how many positions the shortest cache of a layer holds."""
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None)
    slides = kinds is None or "sliding_attention" in kinds
    return window - 1 if window and slides else float("inf")


def block_parameters(model) -> float:
    """Return the parameters of a block's matrices, on average: what one token multiplies."""
    blocks = model.layers._module
    return sum(p.numel() for p in blocks.parameters() if p.dim() > 1) / len(blocks)


def rate(device: torch.device, rows: int, width: int) -> float:
    """Return floating-point operations a second of one float32 matrix product of this size.

    It is the best of several.
    """
    left = torch.randn(rows, width, device=device)
    right = torch.randn(width, 4 * width, device=device)
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < RATE_SECONDS:
        start = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * rows * width * 4 * width / best


def describe(spent: Cost, seconds: float | None) -> list[str]:
    """Return a cost in lines for a terminal."""
    lines = [
        f"{spent.cells} swaps in {spent.forwards} forwards ({spent.plain_forwards} one by one)",
        (
            f"{spent.token_layers:,} tokens x layers ({spent.plain_token_layers:,} one by one, "
            f"{spent.plain_token_layers / max(spent.token_layers, 1):.1f} times as many)"
        ),
        (
            f"about {spent.peak_bytes / 2**20:,.0f} MiB besides the weights;"
            f" {spent.read_bytes / 1000:,.1f} kB of results"
        ),
    ]
    if seconds is not None:
        lines.append(f"about {seconds:,.1f} s of arithmetic on this machine")
    return lines
