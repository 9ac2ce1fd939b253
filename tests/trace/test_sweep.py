"""The sweep against one full forward per cell with plain hooks, on every family and site."""

from __future__ import annotations

import contextlib

import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from random_models import APART, placed, tiny
from swaps import ANSWERS, WIDTH, pairs, runs

from nnheads.patching import cells as which
from nnheads.patching.prepared import prepare, units
from nnheads.patching.readings import measure
from nnheads.trace import sweep as engine
from nnheads.trace.sites import SWEPT


def sweep(model_type: str, prompts: xr.Dataset, cells, site: str, **options):
    model, _ = tiny(model_type)
    return measure(
        model,
        prepare(model, prompts, cells, site=site, text="corrupted", source="token", **options),
    )


def plain(model_type: str, prompts: xr.Dataset, layer: int, site: str, swaps) -> torch.Tensor:
    """Answers' logits [swap, case, answer] of the corrupted run with a unit's clean value at
    positions [case, position]; each of `swaps`, (unit, positions), in rows of its own.
    """
    base, source = (
        {name: value.repeat(len(swaps), 1) for name, value in given.items()}
        for given in runs(model_type, prompts)
    )
    count = units(tiny(model_type)[0], site)
    mask = torch.zeros(len(swaps), *prompts["token"].shape, count, dtype=torch.bool)
    for number, (unit, positions) in enumerate(swaps):
        mask[number, ..., unit] = torch.from_numpy(positions)
    mask = mask.flatten(0, 1)
    if site in ("z", "resid_pre", "attn_out", "mlp_out"):
        _, module = tiny(model_type)
        logits = oracle.patched_logits(module, model_type, base, source, layer, site, mask)
    else:
        logits = at_kernel(model_type, base, source, layer, site, mask.transpose(1, 2))
    return logits.unflatten(0, (len(swaps), -1))[:, [[0], [1]], ANSWERS]


def at_kernel(model_type, base, source, layer: int, site: str, mask: torch.Tensor) -> torch.Tensor:
    """Logits of the base run with values of the source run in what the kernel computes with, where
    `mask` [case, unit, position] is set.
    """
    _, module = tiny(model_type, "eager")
    seen = {}

    def look(q, k, v):
        seen.update(q=q.clone(), k=k.clone(), v=v.clone())
        return q, k, v

    def look_at_weights(weights):
        seen["pattern"] = weights.clone()
        return weights

    def exchange(name, value):
        copies = value.shape[1] // mask.shape[1]  # Falcon's kernel sees one for every head
        where = mask.repeat_interleave(copies, 1).unsqueeze(-1)
        return torch.where(where, seen[name], value)

    def change(q, k, v):
        given = {"q": q, "k": k, "v": v}
        return tuple(
            exchange(name, value) if name == site else value for name, value in given.items()
        )

    with torch.no_grad(), oracle.kernel(module, model_type, layer, look, look_at_weights):
        module(**source, use_cache=False)
    reweigh = (lambda weights: exchange("pattern", weights)) if site == "pattern" else None
    with oracle.kernel(module, model_type, layer, change, reweigh):
        return oracle.end_logits(module, base)


SHARED = slice(5, 8)  # where the two texts differ, if they share what is before


@pytest.mark.parametrize(
    ("site", "differ"),
    [*((site, SHARED) for site in SWEPT), ("z", slice(4, 9))],
    ids=[*SWEPT, "z, nothing shared"],
)
def test_every_cell_equals_a_plain_hook(model_type, site, differ, padded):
    prompts = pairs(padded, differ)
    if differ.start == 4:
        prompts = prompts.isel(position=slice(4, None))  # both start with a token that differs
    count = units(tiny(model_type)[0], site)
    places = which.each_position(prompts["mask"].values)
    cells = which.grid([0, 2], count, places)
    readings = sweep(model_type, prompts, cells, site)
    logits = readings.swapped.reshape(2, count, len(places), 2, 2)
    moved = 0.0
    chosen = [(unit, at) for unit in {0, count - 1} for at in (len(places) - 4, len(places) - 1)]
    for index, layer in enumerate([0, 2]):
        swaps = [(unit, places[at]) for unit, at in chosen]
        for (unit, at), expected in zip(chosen, plain(model_type, prompts, layer, site, swaps)):
            torch.testing.assert_close(logits[index, unit, at], expected, atol=2e-5, rtol=0)
            moved = max(moved, float((expected - readings.unchanged[:, 0]).abs().max()))
    assert moved > 1e-4, "a swap must move something, or the comparison says nothing"


@pytest.mark.parametrize("model_type", APART)
@pytest.mark.parametrize("site", SWEPT)
def test_all_positions_equal_a_plain_hook(model_type, site, padded):
    prompts = pairs(padded)
    count = units(tiny(model_type)[0], site)
    places = which.everywhere(prompts["mask"].values)
    readings = sweep(model_type, prompts, which.grid([0, 1, 2], count, places), site)
    chosen = sorted({0, count - 1})
    for layer in range(3):
        swaps = [(unit, places[0]) for unit in chosen]
        for unit, expected in zip(chosen, plain(model_type, prompts, layer, site, swaps)):
            torch.testing.assert_close(
                readings.swapped[layer * count + unit, :, 0], expected, atol=2e-5, rtol=0
            )


def test_both_plain_runs_are_the_models_own(model_type, padded):
    prompts = pairs(padded)
    _, module = tiny(model_type)
    base, source = runs(model_type, prompts)
    readings = sweep(
        model_type, prompts, which.grid([1], 4, which.everywhere(prompts["mask"].values)), "z"
    )
    for found, given in ((readings.unchanged, base), (readings.source, source)):
        expected = oracle.end_logits(module, given).gather(-1, ANSWERS)
        torch.testing.assert_close(found[:, 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("model_type", APART)
@pytest.mark.parametrize("site", SWEPT)
def test_a_run_swapped_into_itself_changes_nothing(model_type, site, padded):
    prompts = pairs(padded)
    model, _ = tiny(model_type)
    cells = which.grid([0, 1, 2], units(model, site), which.everywhere(prompts["mask"].values))
    same = prompts.assign(token=prompts["corrupted"].copy())
    same["token"][0, 0] += (
        1  # so that nothing is shared and all is run; only the values are asked of position 5 on
    )
    late = which.grid(
        [0, 1, 2], units(model, site), which.each_position(prompts["mask"].values)[8:]
    )
    assert (
        measure(model, prepare(model, prompts, cells, site=site, source="token"))
        .swapped.isfinite()
        .all()
    )
    readings = measure(
        model, prepare(model, prompts, late, site=site, text="token", source="token")
    )
    torch.testing.assert_close(
        readings.swapped, readings.unchanged.expand_as(readings.swapped), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("model_type", APART)
def test_groups_over_several_layers_equal_plain_hooks(model_type, padded):
    prompts = pairs(padded)
    _, module = tiny(model_type)
    base, source = runs(model_type, prompts)
    members = [[(0, 1), (1, 2), (2, 3)], [(1, 0), (1, 3)]]
    places = which.everywhere(prompts["mask"].values)
    readings = sweep(model_type, prompts, which.groups(members, places), "z")
    for number, group in enumerate(members):
        given = {
            layer: oracle.value_at(module, model_type, source, layer, "z") for layer, _ in group
        }
        with contextlib.ExitStack() as stack:
            for layer, _ in group:
                heads = [head for own, head in group if own == layer]

                def exchange(value, new=given[layer], heads=heads):
                    value = value.clone()
                    shape = (*value.shape[:2], 4, -1)
                    value.view(shape)[:, :, heads] = new.view(shape)[:, :, heads]
                    return value

                stack.enter_context(oracle.hooked(module, model_type, layer, "z", exchange))
            expected = oracle.end_logits(module, base).gather(-1, ANSWERS)
        torch.testing.assert_close(readings.swapped[number, :, 0], expected, atol=2e-5, rtol=0)


def rows_run(monkeypatch) -> list[tuple[int, int]]:
    """(rows, positions) of every swapped forward."""
    seen, real = [], engine.swap
    monkeypatch.setattr(
        engine,
        "swap",
        lambda *given: seen.append(tuple(given[1]["inputs"]["input_ids"].shape)) or real(*given),
    )
    return seen


def test_only_what_can_change_is_run(padded, monkeypatch):
    prompts, seen = pairs(padded), rows_run(monkeypatch)
    cells = which.grid([0, 2], 4, which.each_position(prompts["mask"].values))
    readings = sweep("llama", prompts, cells, "z", tokens=10_000)
    # 4 heads x 2 cases at positions 5 to 8, each from its own position on; in the last layer
    # position 8 alone counts
    assert sorted(seen) == [(8, 1), (8, 1), (8, 2), (8, 3), (8, 4)]
    logits = readings.swapped.reshape(2, 4, WIDTH, 2, 1, 2)
    assert torch.equal(logits[:, :, :5], readings.unchanged.expand(2, 4, 5, 2, 1, 2))


def test_small_forwards_give_the_same_numbers(padded, monkeypatch):
    prompts = pairs(padded)
    cells = which.grid([1], 4, which.everywhere(prompts["mask"].values))
    whole = sweep("llama", prompts, cells, "z").swapped
    seen = rows_run(monkeypatch)
    pieces = sweep("llama", prompts, cells, "z", tokens=12).swapped
    assert sorted(seen) == [(2, 4), (3, 4), (3, 4)]
    torch.testing.assert_close(whole, pieces, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "message", ["CUDA out of memory. Tried", "DefaultCPUAllocator: can't allocate memory"]
)
@pytest.mark.parametrize("remote", [False, "local"])
def test_a_forward_that_does_not_fit_is_halved(padded, monkeypatch, message, remote):
    prompts, real, failed = pairs(padded), engine.swap, []
    cells = which.grid([0, 1], 4, which.everywhere(prompts["mask"].values))
    whole = sweep("llama", prompts, cells, "z").swapped
    kind = torch.OutOfMemoryError if "CUDA" in message else RuntimeError

    def small_machine(model, begin, *rest):
        rows = begin["inputs"]["input_ids"].shape[0]
        if rows > 2:
            failed.append(rows)
            raise kind(message)
        return real(model, begin, *rest)

    monkeypatch.setattr(engine, "swap", small_machine)
    pieces = placed(remote, sweep)("llama", prompts, cells, "z").swapped
    assert failed[:2] == [8, 4]
    torch.testing.assert_close(whole, pieces, atol=1e-5, rtol=0)


def test_other_failures_are_not_retried(padded, monkeypatch):
    prompts, calls = pairs(padded), []

    def broken(*_):
        calls.append(1)
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(engine, "swap", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        sweep("llama", prompts, which.grid([0], 4, which.everywhere(prompts["mask"].values)), "z")
    assert calls == [1]


@pytest.mark.parametrize("site", SWEPT)
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom", "gptj", "falcon"])
def test_rehearsed_remotely_gives_the_same_numbers(model_type, site, padded):
    prompts = pairs(padded)
    cells = which.grid(
        [0, 2], units(tiny(model_type)[0], site), which.everywhere(prompts["mask"].values)
    )
    here, there = (
        placed(remote, sweep)(model_type, prompts, cells, site) for remote in (False, "local")
    )
    for name in ("swapped", "unchanged", "source"):
        torch.testing.assert_close(getattr(here, name), getattr(there, name), atol=1e-5, rtol=0)


def test_questions_inside_the_prompt_are_read_where_they_are_asked(model_type, padded):
    prompts = pairs(padded).drop_vars(["answer", "wrong"])
    ask, target = np.array([[6, 8], [7, -1]]), np.array([[5, 6], [7, -1]])
    prompts = prompts.assign(ask=(("batch", "step"), ask), target=(("batch", "step"), target))
    cells = which.grid([0, 2], 4, which.everywhere(prompts["mask"].values))
    readings = sweep(model_type, prompts, cells, "z", full=2)
    _, module = tiny(model_type)
    base, source = runs(model_type, prompts)
    where = torch.zeros(2, WIDTH, 4, dtype=torch.bool)
    where[..., 3] = True
    given = oracle.value_at(module, model_type, source, 2, "z")
    exchange = lambda value: torch.where(  # noqa: E731
        where.unsqueeze(-1), given.view(2, WIDTH, 4, -1), value.view(2, WIDTH, 4, -1)
    ).view_as(value)
    with torch.no_grad():
        before = module(**base, use_cache=False).logits.float().log_softmax(-1)
        with oracle.hooked(module, model_type, 2, "z", exchange):
            logits = module(**base, use_cache=False).logits.float()
    read = {name: value[7] for name, value in readings.named(readings.swapped).items()}
    for case, question in ((0, 0), (0, 1), (1, 0)):
        own, token = logits[case, ask[case, question]], target[case, question]
        after, reference = own.log_softmax(-1), before[case, ask[case, question]]
        expected = [
            own[token],
            (own > own[token]).sum().float(),
            own.logsumexp(-1),
            (reference.exp() * (reference - after)).sum(),
        ]
        got = [read["logit"][..., 0], read["rank"][..., 0], read["total"], read["divergence"]]
        for mine, theirs in zip(got, expected):
            torch.testing.assert_close(mine[case, question], theirs, atol=3e-5, rtol=0)


def test_nothing_is_left_of_a_sweep_in_the_model(padded):
    prompts = pairs(padded)
    _, module = tiny("llama")
    base, _ = runs("llama", prompts)
    before = oracle.end_logits(module, base)
    sweep("llama", prompts, which.grid([0, 1, 2], 2, which.everywhere(prompts["mask"].values)), "v")
    assert torch.equal(before, oracle.end_logits(module, base))


@pytest.mark.parametrize("remote", [False, "local"])
def test_nothing_but_readings_leaves_the_server(padded, monkeypatch, remote):
    """Residual streams, caches and head outputs of a large model would be gigabytes."""
    prompts, sent, real = pairs(padded), [], engine.save
    monkeypatch.setattr(engine, "save", lambda value: sent.append(value) or real(value))
    cells = which.grid([0, 1, 2], 4, which.everywhere(prompts["mask"].values))
    readings = placed(remote, sweep)("llama", prompts, cells, "z")
    assert sorted(tuple(value.shape) for value in sent) == [(2, 1, 2), (2, 1, 2), (12, 2, 1, 2)]
    assert readings.swapped.shape == (12, 2, 1, 2)
