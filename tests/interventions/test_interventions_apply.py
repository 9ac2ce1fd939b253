"""run: sources in parallel and one after the other, shared tensors, gradients, collections, roles,
padding.
"""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from random_models import build, placed, tiny
from swaps import pairs

from nnheads import interventions as iv
from nnheads.errors import BadInput
from nnheads.interventions.apply import run
from nnheads.interventions.module import as_module


@pytest.fixture
def prompts(padded):
    return pairs(padded)


@pytest.fixture
def other(prompts):
    return prompts.assign(token=prompts["corrupted"])


def third(prompts: xr.Dataset) -> xr.Dataset:
    return prompts.assign(token=(prompts["token"] + 37) % 490 + 4)


def inputs(prompts: xr.Dataset) -> dict:
    ids, mask = (torch.from_numpy(prompts[name].values).long() for name in ("token", "mask"))
    return oracle.fed("llama", ids, mask)


def real(prompts: xr.Dataset, logits: torch.Tensor) -> torch.Tensor:
    return logits[prompts["mask"].values.astype(bool)]


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)


def interchanged(
    module, base: xr.Dataset, changes: list[tuple[int, str, torch.Tensor]]
) -> tuple[torch.Tensor, dict]:
    """Logits of a plain run with values in place, and those that were there with them."""
    import contextlib

    seen = {}
    with torch.no_grad(), contextlib.ExitStack() as stack:
        for layer, site, given in changes:
            stack.enter_context(
                oracle.hooked(module, "llama", layer, site, lambda value, given=given: given)
            )
        for layer in range(3):
            look = oracle.hooked(
                module,
                "llama",
                layer,
                "attn_out",
                lambda value, layer=layer: seen.setdefault(layer, value.clone()),
            )
            stack.enter_context(look)
        return module(**inputs(base), use_cache=False).logits, seen


def test_several_sources_in_parallel_and_in_series(prompts, other):
    model, module = tiny("llama")
    last = third(prompts)
    edits = (
        iv.Edit("attn_out", iv.Interchange(source=0), layer=0),
        iv.Edit("attn_out", iv.Interchange(source=1), layer=1),
        iv.Edit("attn_out", iv.Scale(1.0), layer=2),
    )
    first = oracle.value_at(module, "llama", inputs(other), 0, "attn_out")
    second = oracle.value_at(module, "llama", inputs(last), 1, "attn_out")
    parallel, _ = interchanged(module, prompts, [(0, "attn_out", first), (1, "attn_out", second)])
    close(
        real(prompts, run(model, iv.Intervention(*edits), prompts, [other, last]).edited),
        real(prompts, parallel),
    )
    _, seen = interchanged(module, last, [(0, "attn_out", first)])
    series, _ = interchanged(module, prompts, [(1, "attn_out", seen[1])])
    result = run(model, iv.Intervention(*edits, mode="serial"), prompts, [other, last])
    close(real(prompts, result.edited), real(prompts, series))
    assert float((series - parallel).abs().max()) > 1e-2


def test_linked_tensors_are_one_tensor(prompts):
    model, _ = tiny("llama")
    vector = torch.zeros(48, requires_grad=True)
    edits = [iv.Edit("resid_post", iv.Add("v"), layer=layer, at=iv.index(-1)) for layer in (0, 1)]
    run(model, iv.Intervention(*edits, tensors={"v": vector}), prompts, original=False).edited[
        :, -1
    ].square().sum().backward()
    together = vector.grad.clone()
    parts = []
    for number in (0, 1):
        pair = [torch.zeros(48, requires_grad=True) for _ in range(2)]
        own = [
            iv.Edit("resid_post", iv.Add(f"v{layer}"), layer=layer, at=iv.index(-1))
            for layer in (0, 1)
        ]
        tensors = {"v0": pair[0], "v1": pair[1]}
        run(model, iv.Intervention(*own, tensors=tensors), prompts, original=False).edited[
            :, -1
        ].square().sum().backward()
        parts.append(pair[number].grad)
    torch.testing.assert_close(together, parts[0] + parts[1])


def test_a_rotation_of_z_trains_in_every_family(model_type, prompts, other):
    """One step through a traced run, and the same through hooks: same loss, same gradient, lower
    loss after it.
    """
    model, _ = tiny(model_type)
    features = (
        oracle.value_at(tiny(model_type)[1], model_type, given(model_type, prompts), 1, "z").shape[
            -1
        ]
        // 4
    )
    start = torch.linalg.qr(torch.randn(features, 2, generator=torch.Generator().manual_seed(0)))[0]
    edit = iv.Edit("z", iv.LowRank(), layer=1, units=(2,), at=iv.index(-1, -2))
    answers = torch.tensor([5, 7])

    def loss_of(logits: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits[:, -1], answers)

    rotation = start.clone().requires_grad_()
    loss = loss_of(
        run(
            model,
            iv.Intervention(edit, tensors={"rotation": rotation}),
            prompts,
            [other],
            original=False,
        ).edited
    )
    loss.backward()
    module = as_module(model, iv.Intervention(edit, tensors={"rotation": start}))
    options = {"sources": [{**given(model_type, other), "use_cache": False}], "use_cache": False}
    same = loss_of(module(**given(model_type, prompts), **options).logits)
    same.backward()
    torch.testing.assert_close(same, loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(module.tensors["rotation"].grad, rotation.grad, atol=1e-5, rtol=1e-3)
    step = 1e-3 / float(rotation.grad.norm())
    moved = iv.Intervention(edit, tensors={"rotation": (rotation - step * rotation.grad).detach()})
    assert float(loss_of(run(model, moved, prompts, [other], original=False).edited)) < float(
        loss.detach()
    )


def given(model_type: str, prompts: xr.Dataset) -> dict:
    ids, mask = (torch.from_numpy(prompts[name].values).long() for name in ("token", "mask"))
    return oracle.fed(model_type, ids, mask)


@pytest.mark.parametrize(
    "site", ["resid_pre", "attn_in", "q", "k", "v", "attn_out", "mlp_in", "mlp_hidden", "mlp_out"]
)
def test_gradients_flow_through_every_site(site, prompts, other):
    model, _ = tiny("qwen3")
    tensors = {"strength": torch.tensor([0.3], requires_grad=True)}
    edits = iv.Intervention(
        iv.Edit(site, iv.Add("strength"), layer=1, at=iv.index(-2)), tensors=tensors
    )
    run(model, edits, prompts, original=False).edited[:, -1].square().sum().backward()
    gradient = float(tensors["strength"].grad)

    def value(strength: float) -> float:
        moved = iv.Intervention(*edits.edits, tensors={"strength": torch.tensor([strength])})
        return float(
            run(model, moved, prompts, original=False).edited[:, -1].double().square().sum()
        )

    assert gradient == pytest.approx((value(0.31) - value(0.29)) / 0.02, rel=0.05)
    assert gradient != 0


def test_a_pattern_of_one_row_trains(prompts, other):
    model, _ = tiny("llama")
    factor = torch.tensor([1.0], requires_grad=True)
    edits = iv.Intervention(
        iv.Edit("pattern", iv.Mask(), layer=1, units=(0,), at=iv.index(-1)),
        tensors={"mask": factor},
    )
    run(model, edits, prompts, [other], original=False).edited[:, -1].square().sum().backward()
    assert float(factor.grad.abs()) > 0


def test_collections_are_the_values_that_are_there(prompts):
    model, module = tiny("llama")
    edits = iv.Intervention(
        iv.Edit("z", iv.Zero(), layer=0, units=(1,)),
        iv.Edit("z", iv.Collect("zeroed"), layer=0, at=iv.index(-1)),
        iv.Edit("resid_pre", iv.Collect("later"), layer=2, at=iv.span(1, 3)),
        iv.Edit("attn_out", iv.Collect("two"), layer=2, neurons=(4, 40), at=iv.index(0)),
    )
    result = run(model, edits, prompts)
    assert {key: tuple(value.shape) for key, value in result.collected.items()} == {
        "zeroed": (2, 1, 64),
        "later": (2, 2, 48),
        "two": (2, 1, 2),
    }
    heads = result.collected["zeroed"].view(2, 4, 16)
    plain = oracle.value_at(module, "llama", inputs(prompts), 0, "z")[:, -1].view(2, 4, 16)
    assert float(heads[:, 1].abs().max()) == 0
    close(heads[:, [0, 2, 3]], plain[:, [0, 2, 3]])

    def zeroed(value):
        value = value.clone()
        value[..., 16:32] = 0
        return value

    with oracle.hooked(module, "llama", 0, "z", zeroed):
        later = oracle.value_at(module, "llama", inputs(prompts), 2, "resid_pre")
    close(result.collected["later"], torch.stack([later[0, 1:3], later[1, 5:7]]))
    close(
        real(prompts, result.original),
        real(prompts, module(**inputs(prompts), use_cache=False).logits),
    )


def test_noise_is_the_same_for_the_same_seed(prompts):
    model, _ = tiny("llama")

    def logits(seed: int, rows: slice = slice(None)) -> torch.Tensor:
        edit = iv.Edit("resid_pre", iv.Noise(level=0.5, seed=seed), layer=0, at=iv.span(0, 3))
        return run(
            model, iv.Intervention(edit), prompts.isel(batch=rows), original=False, keep=1
        ).edited

    assert torch.equal(logits(0), logits(0))
    assert float((logits(0) - logits(1)).abs().max()) > 1e-3
    close(logits(0)[:1], logits(0, slice(0, 1)))


def test_roles_are_read_from_the_prompts(prompts, other):
    model, _ = tiny("llama")
    ends = {"role_END": ("batch", [8, 6]), "role_S2": ("batch", [3, -1])}
    base, source = prompts.assign_coords(ends), other.assign_coords(ends)
    named = run(
        model,
        iv.Intervention(iv.Edit("z", iv.Interchange(), layer=1, at=iv.role("END"))),
        base,
        [source],
    ).edited
    for row, place in enumerate((8, 2)):
        one = run(
            model,
            iv.Intervention(iv.Edit("z", iv.Interchange(), layer=1, at=iv.index(place))),
            base.isel(batch=[row]),
            [source.isel(batch=[row])],
        )
        close(real(base.isel(batch=[row]), named[[row]]), real(base.isel(batch=[row]), one.edited))
    result = run(model, iv.Intervention(iv.Edit("z", iv.Zero(), layer=1, at=iv.role("S2"))), base)
    assert torch.equal(result.edited[1], result.original[1])  # it has no such position
    assert not torch.equal(result.edited[0], result.original[0])


def test_answers_begin_after_the_prompt(prompts):
    model, _ = tiny("llama")
    base = prompts.assign_coords(prompt_length=("batch", [7, 3]))
    answered = run(
        model, iv.Intervention(iv.Edit("resid_post", iv.Scale(2.0), layer=1, at=iv.ANSWER)), base
    )
    last = run(
        model,
        iv.Intervention(iv.Edit("resid_post", iv.Scale(2.0), layer=1, at=iv.index(-1, -2))),
        base,
    )
    assert torch.equal(answered.edited, last.edited)
    assert torch.equal(answered.edited[:, :7], answered.original[:, :7])
    answering = run(
        model, iv.Intervention(iv.Edit("resid_post", iv.Scale(2.0), layer=1, at=iv.ANSWERING)), base
    )
    assert torch.equal(
        answering.edited,
        run(
            model,
            iv.Intervention(iv.Edit("resid_post", iv.Scale(2.0), layer=1, at=iv.index(-1, -2, -3))),
            base,
        ).edited,
    )


def test_a_row_does_not_depend_on_the_padding_beside_it(prompts, other):
    model, _ = tiny("llama")
    edits = iv.Intervention(
        iv.Edit("z", iv.Interchange(source_at=iv.index(1)), layer=0, units=(1, 3), at=iv.index(-2)),
        iv.Edit("resid_post", iv.Noise(level=0.3), layer=1),
        iv.Edit("k", iv.Scale(0.5), layer=2, at=iv.span(1, None)),
    )
    # noise is drawn by row, so the short prompt is the first in both
    short = [data.isel(batch=[1]).isel(position=slice(4, None)) for data in (prompts, other)]
    alone = run(model, edits, short[0], [short[1]])
    both = [data.isel(batch=[1, 0]) for data in (prompts, other)]
    close(run(model, edits, both[0], [both[1]]).edited[0, 4:], alone.edited[0])


def test_functions_of_ones_own(prompts, other):
    model, _ = tiny("llama")
    place = {"layer": 1, "at": iv.index(-1)}
    own = iv.Edit(
        "z", iv.Combine(function=lambda base, source: base + 0.5 * (source - base)), **place
    )
    mixed = run(model, iv.Intervention(own), prompts, [other]).edited
    half = iv.Edit("z", iv.Mask(), **place)
    close(
        mixed,
        run(
            model, iv.Intervention(half, tensors={"mask": torch.zeros(1)}), prompts, [other]
        ).edited,
    )
    doubled = run(
        model, iv.Intervention(iv.Edit("z", iv.Function(lambda base: 2 * base), **place)), prompts
    ).edited
    close(
        doubled, run(model, iv.Intervention(iv.Edit("z", iv.Scale(2.0), **place)), prompts).edited
    )


def test_paths_and_sites_mix_in_any_order(prompts, other):
    model, _ = tiny("qwen3")
    block = "model.layers.1"
    edits = (
        iv.Edit("output", iv.Scale(0.5), path=f"{block}.mlp.up_proj"),
        iv.Edit("z", iv.Interchange(), layer=1, units=(0,)),
        iv.Edit("output", iv.Interchange(), path=f"{block}.self_attn.q_proj", at=iv.index(-1)),
        iv.Edit(
            "output",
            iv.Scale(1.5),
            path=f"{block}.self_attn.q_norm",
            at=iv.index(0, -1),
            neurons=(17, 40),
        ),
        iv.Edit("input", iv.Scale(2.0), path=f"{block}.mlp"),
        iv.Edit("output", iv.Zero(), path=f"{block}.mlp.act_fn", neurons=(3,)),
        iv.Edit("resid_pre", iv.Zero(), layer=1, neurons=(0,)),
    )
    result = run(model, iv.Intervention(*edits), prompts, [other])
    options = {"use_cache": False, "sources": [{**given("qwen3", other), "use_cache": False}]}
    with torch.no_grad():
        hooked = as_module(model, iv.Intervention(*edits))(
            **given("qwen3", prompts), **options
        ).logits
    close(real(prompts, result.edited), real(prompts, hooked))


@pytest.mark.parametrize("do", [iv.Rotate(), iv.Boundless(), iv.Mask()], ids=lambda do: do.name)
def test_whole_rotations_and_open_masks_are_interchanges(do, prompts, other):
    model, _ = tiny("llama")
    tensors = {
        "rotation": torch.linalg.qr(torch.randn(32, 32))[0],
        "boundary": torch.tensor(1.0),
        "mask": torch.full((32,), 50.0),
    }
    if isinstance(do, iv.Boundless):
        do = iv.Boundless(temperature=1e-4)
    place = {"layer": 1, "units": (0, 2), "at": iv.index(-1)}
    swapped = run(
        model, iv.Intervention(iv.Edit("z", iv.Interchange(), **place)), prompts, [other]
    ).edited
    close(
        run(
            model, iv.Intervention(iv.Edit("z", do, **place), tensors=tensors), prompts, [other]
        ).edited,
        swapped,
    )


def test_what_does_not_match_is_refused(prompts, other):
    model, _ = tiny("llama")
    swap = iv.Intervention(
        iv.Edit("z", iv.Interchange(source_at=iv.index(0)), layer=1, at=iv.index(-1, -2))
    )
    with pytest.raises(BadInput, match=r"this intervention takes 1 sources, got 0"):
        run(model, swap, prompts)
    with pytest.raises(
        BadInput,
        match=r"^z takes 1 positions of the source for 2 of the base in prompt 0",
    ):
        run(model, swap, prompts, [other])
    with pytest.raises(BadInput, match=r"a source has 1 prompts and the base 2"):
        run(model, swap, prompts, [other.isel(batch=[0])])
    with pytest.raises(BadInput, match=r"position 7 lies outside a prompt of 5 tokens"):
        run(model, iv.Intervention(iv.Edit("z", iv.Zero(), layer=1, at=iv.index(7))), prompts)
    with pytest.raises(BadInput, match=r"role 'END' is not known in these prompts"):
        run(model, iv.Intervention(iv.Edit("z", iv.Zero(), layer=1, at=iv.role("END"))), prompts)


def test_other_modules_are_for_as_module():
    from nnsight import NNsight

    for network in (NNsight(torch.nn.Linear(3, 3)), torch.nn.Linear(3, 3), build("llama")):
        with pytest.raises(
            BadInput,
            match=r"^run takes a language model from nnheads.load",
        ):
            run(network, iv.Intervention(), xr.Dataset())


def test_the_last_logits_alone_and_no_original(prompts):
    model, _ = tiny("llama")
    edits = iv.Intervention(iv.Edit("z", iv.Zero(), layer=1))
    result = run(model, edits, prompts, original=False, keep=1)
    assert result.original is None
    assert result.edited.shape == (2, 1, 500)
    assert np.allclose(result.edited[:, 0], run(model, edits, prompts).edited[:, -1], atol=2e-6)


def test_a_rehearsed_remote_run_is_the_same(prompts, other):
    model, _ = tiny("llama")
    edits = iv.Intervention(
        iv.Edit("z", iv.LowRank(), layer=0, units=(1,), at=iv.index(-1)),
        iv.Edit("v", iv.Interchange(source=1), layer=1),
        iv.Edit("resid_post", iv.Collect(), layer=1, at=iv.index(0)),
        tensors={"rotation": torch.eye(16)[:, :3]},
    )
    here = run(model, edits, prompts, [other, third(prompts)])
    there = placed("local", run)(model, edits, prompts, [other, third(prompts)])
    assert torch.equal(here.edited, there.edited)
    assert torch.equal(here.original, there.original)
    assert torch.equal(here.collected["collected"], there.collected["collected"])


def test_heads_on_an_axis_of_their_own_are_features_side_by_side(prompts):
    """Qwen's normed queries are [row, position, head, dim]."""
    model, module = tiny("qwen3")
    edit = iv.Edit(
        "output",
        iv.Zero(),
        path="model.layers.1.self_attn.q_norm",
        at=iv.index(-1),
        neurons=tuple(range(16, 32)),
    )

    def zeroed(_, inputs, output):
        output = output.clone()
        output[:, -1, 1] = 0
        return output

    with module.model.layers[1].self_attn.q_norm.register_forward_hook(zeroed), torch.no_grad():
        expected = module(**given("qwen3", prompts), use_cache=False).logits
    result = run(model, iv.Intervention(edit), prompts)
    close(real(prompts, result.edited), real(prompts, expected))
    assert not torch.equal(result.edited, result.original)
