"""The plan of a sweep is what the sweep then does."""

from __future__ import annotations

import pytest
import torch
from random_models import tiny
from swaps import pairs

from nnheads.patching import prepared
from nnheads.patching.cost import block_parameters, cost, describe, rate
from nnheads.patching.forward_size import logit_numbers, suitable_rows, suitable_tokens
from nnheads.patching.patch import plan_patch
from nnheads.patching.readings import measure
from nnheads.trace import sweep as engine


def job_of(model, padded, **options):
    return plan_patch(model, pairs(padded), **options)[0]


@pytest.mark.parametrize(
    "options", [{}, {"by_position": True}, {"site": "v"}, {"site": "resid_pre", "layers": [1]}]
)
def test_forwards_and_token_layers_are_those_that_run(options, padded, monkeypatch):
    model, module = tiny("gpt2")
    job = job_of(model, padded, **options)
    planned, seen, forwards = cost(model, job), [], []
    # inside the block: nnsight still calls the hooks of a block that it skips
    handles = [
        layer.ln_1.register_forward_hook(
            lambda _, given, __: seen.append(given[0].shape[0] * given[0].shape[1])
        )
        for layer in module.transformer.h
    ]

    def counted(name, real):
        def run(*arguments):
            forwards.append(name)
            return real(*arguments)

        return run

    for name in ("record", "swap"):
        monkeypatch.setattr(engine, name, counted(name, getattr(engine, name)))
    measure(model, job)
    for handle in handles:
        handle.remove()
    assert len(forwards) == planned.forwards
    assert sum(seen) == planned.token_layers
    assert planned.plain_forwards == planned.cells + 2


def test_bytes_read_are_those_of_the_answers(padded):
    model, _ = tiny("gpt2")
    job = job_of(model, padded)
    found = measure(model, job)
    assert cost(model, job).read_bytes == 4 * (found.swapped.numel() + found.unchanged.numel())


def test_block_parameters_are_the_matrices_of_a_block():
    _, module = tiny("gpt2")
    expected = sum(p.numel() for p in module.transformer.h[0].parameters() if p.dim() == 2)
    assert block_parameters(tiny("gpt2")[0]) == expected


def test_the_plan_reads_well_and_the_rate_is_one(padded):
    model, _ = tiny("gpt2")
    lines = describe(cost(model, job_of(model, padded)), 1.25)
    assert lines[0] == "12 swaps in 5 forwards (14 one by one)" and lines[-1].startswith(
        "about 1.2 s of arithmetic"
    )
    assert len(describe(cost(model, job_of(model, padded)), None)) == 3
    assert rate(torch.device("cpu"), 64, 32) > 1e6


@pytest.mark.parametrize(("full", "copies"), [(0, 1), (1, 3), (2, 5)])
def test_the_vocabulary_counts_where_it_is_read(full, copies, padded, monkeypatch):
    model, _ = tiny("bloom")
    monkeypatch.setattr(prepared, "answer_columns", lambda *_: {})
    plan, _ = plan_patch(model, pairs(padded), full=full)
    request = plan.task["request"]
    questions = request["answers"].shape[1]
    assert logit_numbers(model, request) == questions * 500 * copies
    most = max(last - first for _, _, first, last in plan.order.chunks)
    assert cost(model, plan).peak_bytes >= 4 * most * questions * 500 * copies
    wide = suitable_tokens(model, 1e6)
    assert wide < suitable_tokens(model), "fewer rows where each has many logits"


def test_many_rows_at_the_last_position_share_no_more_memory_than_allowed(padded, monkeypatch):
    """Rows that run one position each still have a whole cache each."""
    from nnheads.patching import forward_size

    model, _ = tiny("gpt2")
    at_end = {"site": "z", "at": "END"}
    plain = job_of(model, padded, **at_end)
    rows = max(last - first for _, _, first, last in plain.order.chunks)
    width = plain.inputs["input_ids"].shape[1]
    monkeypatch.setattr(forward_size, "CPU_CACHES", 4 * 2 * 48 * width * 3)
    assert suitable_rows(model, width) == 4 < rows
    short = job_of(model, padded, **at_end)
    assert max(last - first for _, _, first, last in short.order.chunks) <= 4
    assert cost(model, short).peak_bytes < cost(model, plain).peak_bytes
    torch.testing.assert_close(measure(model, short).swapped, measure(model, plain).swapped)
