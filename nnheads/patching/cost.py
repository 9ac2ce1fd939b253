"""What a sweep will cost, before it runs: forwards, tokens x layers, bytes, and an estimate of the
time.

The arithmetic counts multiplications and additions of the blocks' matrices, which is where the time
goes; the rate is that of one matrix product on this machine. Remote machines are not measured:
their estimate is left out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from nnheads.models.geometry import geometry
from nnheads.patching.readings import Job

RATE_SECONDS = 0.1  # long enough for clocks and caches to be warm


@dataclass(frozen=True)
class Cost:
    """`token_layers`: positions x blocks that are run; `plain_token_layers`: what one whole forward
    per cell would run. `flops` of the blocks; `peak_bytes`: what the values and residual streams
    that are kept take, and the largest forward's activations; `read_bytes`: what comes back."""

    cells: int
    forwards: int
    token_layers: int
    plain_forwards: int
    plain_token_layers: int
    flops: float
    peak_bytes: int
    read_bytes: int


def cost(model, job: Job) -> Cost:
    """The cost of a job of `run.prepare`."""
    sizes, (cases, width) = geometry(model), job.base["input_ids"].shape
    sources = 0 if job.source is None else job.source["input_ids"].shape[0]
    offset = job.how["offset"] if job.mix is None else 0
    starts = sorted(
        {start for start, *_ in job.order.chunks if start}
        | ({offset} if sources and offset else set())
    )
    # a cache that keeps a sliding window alone cannot be cut, so each start fills its own
    refilled = starts if width > _window(model.config) else []
    plain = cases * width + sources * (width - offset) + sum(cases * start for start in refilled)
    plain *= sizes.layers
    swapped = sum(
        (last - first) * (width - start) * (sizes.layers - layer)
        for start, layer, first, last in job.order.chunks
    )
    largest = max(
        ((last - first) * (width - start) for start, _, first, last in job.order.chunks), default=0
    )
    layers = len({int(layer) for layer in job.order.entries[:, 1]})
    element = next(model._module.parameters()).element_size()
    kept = (cases + sources) * width * sizes.d_model * layers
    wide = (
        4 * sizes.d_model
        if job.ask.get("weight") is not None
        else 4 * sizes.d_model + sizes.vocabulary
    )
    answers = job.ask["answers"].shape[1] * job.ask["answers"].shape[2]
    return Cost(
        cells=job.cells.count,
        forwards=len(job.order.chunks) + 1 + (sources > 0) + len(refilled),
        token_layers=plain + swapped,
        plain_forwards=job.cells.count + 1 + (sources > 0),
        plain_token_layers=(job.cells.count + 1 + (sources > 0)) * cases * width * sizes.layers,
        flops=2.0 * (plain + swapped) * block_parameters(model),
        peak_bytes=element * (kept + largest * wide),
        read_bytes=4 * (job.order.kept.size + 1) * cases * answers,
    )


def _window(config) -> float:
    """How many positions the shortest cache of a layer holds."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    slides = kinds is None or "sliding_attention" in kinds
    return window - 1 if window and slides else float("inf")


def block_parameters(model) -> float:
    """Parameters of a block's matrices, on average: what one token multiplies."""
    blocks = model.layers._module
    return sum(p.numel() for p in blocks.parameters() if p.dim() > 1) / len(blocks)


def rate(device: torch.device, rows: int, width: int) -> float:
    """Floating-point operations a second of one float32 matrix product of this size, the best of
    several.
    """
    left, right = (
        torch.randn(rows, width, device=device),
        torch.randn(width, 4 * width, device=device),
    )
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < RATE_SECONDS:
        start = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * rows * width * 4 * width / best


def describe(found: Cost, seconds: float | None) -> list[str]:
    """Lines for a terminal."""
    lines = [
        f"{found.cells} swaps in {found.forwards} forwards ({found.plain_forwards} one by one)",
        (
            f"{found.token_layers:,} tokens x layers ({found.plain_token_layers:,} one by one, "
            f"{found.plain_token_layers / max(found.token_layers, 1):.1f} times as many)"
        ),
        (
            f"about {found.peak_bytes / 2**20:,.0f} MiB besides the weights;"
            f" {found.read_bytes / 1000:,.1f} kB of results"
        ),
    ]
    if seconds is not None:
        lines.append(f"about {seconds:,.1f} s of arithmetic on this machine")
    return lines
