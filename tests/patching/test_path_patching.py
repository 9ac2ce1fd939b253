"""Path patching against the paper's four runs written out with plain hooks, on every family."""

from __future__ import annotations

import contextlib

import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from random_models import APART, placed, tiny
from swaps import ANSWERS, pairs, runs

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry
from nnheads.patching.path_patching import path_patch
from nnheads.trace import paths as carry

LAYERS, HEADS = 3, 4


def with_role(padded) -> xr.Dataset:
    return pairs(padded).assign_coords(role_S2=("batch", [5, 6]))


def everywhere(prompts: xr.Dataset) -> torch.Tensor:
    return torch.from_numpy(prompts["mask"].values).bool()


def at_role(prompts: xr.Dataset) -> torch.Tensor:
    return torch.arange(9) == torch.from_numpy(prompts["role_S2"].values)[:, None]


@contextlib.contextmanager
def step_c(
    module, model_type: str, base: dict, new: dict, sender: tuple[int, int], where, freeze: bool
):
    """Every head's output is the base run's, but for the sender's at `where` [case, position]."""
    places = [(layer, site) for layer in range(LAYERS) for site in ("z", "mlp_out")[: 1 + freeze]]
    frozen = oracle.values_at(module, model_type, base, places)
    other = oracle.value_at(module, model_type, new, sender[0], "z")
    view, said = (
        value.view(*where.shape, HEADS, -1)[:, :, sender[1]]
        for value in (frozen[sender[0], "z"], other)
    )
    view[:] = torch.where(where.unsqueeze(-1), said, view)
    with contextlib.ExitStack() as stack:
        for (layer, site), value in frozen.items():
            stack.enter_context(
                oracle.hooked(module, model_type, layer, site, lambda _, value=value: value)
            )
        yield


def to_logits(
    model_type: str, prompts: xr.Dataset, sender: tuple[int, int], where, freeze: bool
) -> torch.Tensor:
    """Answers' logits [case, answer] of step C."""
    _, module = tiny(model_type)
    new, base = runs(model_type, prompts)
    with step_c(module, model_type, base, new, sender, where, freeze):
        return oracle.end_logits(module, base).gather(-1, ANSWERS)


def to_receivers(
    model_type: str,
    prompts: xr.Dataset,
    sender: tuple[int, int],
    receivers: dict,
    via: str,
    where,
    freeze=False,
) -> torch.Tensor:
    """Answers' logits [case, answer] of step D."""
    model, _ = tiny(model_type)
    _, module = tiny(model_type, "eager")
    new, base = runs(model_type, prompts)
    place, units = "qkv".index(via), HEADS if via == "q" else geometry(model).kv_heads
    heard = {}

    def look(layer):
        def keep(*given):
            heard[layer] = given[place].clone()
            return given

        return keep

    def change(layer):
        def swap(*given):
            given = [value.clone() for value in given]
            group = given[place].shape[1] // units  # Falcon's kernel sees a copy for every head
            for unit in receivers[layer]:
                own = slice(unit * group, (unit + 1) * group)
                told = torch.where(
                    where[:, None, :, None], heard[layer][:, own], given[place][:, own]
                )
                given[place][:, own] = told
            return tuple(given)

        return swap

    with torch.no_grad(), contextlib.ExitStack() as stack:
        stack.enter_context(step_c(module, model_type, base, new, sender, where, freeze))
        for layer in receivers:
            stack.enter_context(oracle.kernel(module, model_type, layer, look(layer)))
        module(**base, use_cache=False)
    with contextlib.ExitStack() as stack:
        for layer in receivers:
            stack.enter_context(oracle.kernel(module, model_type, layer, change(layer)))
        return oracle.end_logits(module, base).gather(-1, ANSWERS)


def difference(logits: torch.Tensor) -> np.ndarray:
    return (logits[:, 0] - logits[:, 1]).numpy()


@pytest.mark.parametrize("model_type", APART)
@pytest.mark.parametrize("mlps", ["recompute", "freeze"])
def test_the_path_to_the_logits_equals_step_c(model_type, mlps, padded):
    prompts = with_role(padded)
    scores = path_patch(tiny(model_type)[0], prompts, mlps=mlps)
    for sender in ((0, 1), (1, 3), (2, 0)):
        expected = difference(
            to_logits(model_type, prompts, sender, everywhere(prompts), mlps == "freeze")
        )
        found = scores["logit_difference"].sel(layer=sender[0], head=sender[1])
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert float(abs(scores["change"]).max()) > 1e-3, (
        "a path must move something, or the comparison says nothing"
    )


@pytest.mark.parametrize("model_type", APART)
@pytest.mark.parametrize("via", ["q", "k", "v"])
def test_paths_to_receivers_equal_step_d(model_type, via, padded):
    prompts, (model, _) = with_role(padded), tiny(model_type)
    sizes = geometry(model)
    asked = [(1, 3), (2, 1), (2, 2)]
    units = {1: [3], 2: [1, 2]}
    if via != "q":
        shared = HEADS // sizes.kv_heads
        units = {1: [3 // shared], 2: sorted({1 // shared, 2 // shared})}
    moved = 0.0
    for at, where in ((None, everywhere(prompts)), ("S2", at_role(prompts))):
        scores = path_patch(model, prompts, receivers=asked, via=via, at=at)
        for sender in ((0, 1), (1, 2)):
            expected = difference(to_receivers(model_type, prompts, sender, units, via, where))
            found = scores["logit_difference"].sel(layer=sender[0], head=sender[1])
            np.testing.assert_allclose(found, expected, atol=1e-4)
        assert bool(scores["change"].sel(layer=2).isnull().all()), (
            "heads of the highest receivers' layer are no senders"
        )
        moved = max(moved, float(abs(scores["change"]).max()))
    assert moved > 1e-4


@pytest.mark.parametrize("model_type", ["llama", "bloom", "falcon", "gptj"])
def test_frozen_feed_forward_parts_leave_the_direct_path_to_receivers(model_type, padded):
    prompts, (model, _) = with_role(padded), tiny(model_type)
    scores = path_patch(model, prompts, receivers=[(2, 1)], mlps="freeze")
    expected = difference(
        to_receivers(model_type, prompts, (0, 2), {2: [1]}, "q", everywhere(prompts), freeze=True)
    )
    np.testing.assert_allclose(scores["logit_difference"].sel(layer=0, head=2), expected, atol=1e-4)
    through = path_patch(model, prompts, receivers=[(2, 1)])["logit_difference"].sel(
        layer=0, head=2
    )
    assert float(abs(through - expected).max()) > 1e-5, "feed-forward parts pass something on"


def test_positions_one_by_one_are_roles_one_by_one(padded):
    prompts, (model, _) = with_role(padded), tiny("llama")
    each = path_patch(model, prompts, receivers=[(1, 0), (2, 3)], via="k", by_position=True)
    assert each["change"].dims == ("batch", "layer", "head", "position")
    role = path_patch(model, prompts, receivers=[(1, 0), (2, 3)], via="k", at="S2")
    for case, position in ((0, 5), (1, 6)):
        found = each["logit_difference"][case].sel(position=position, layer=[0, 1])
        np.testing.assert_allclose(
            found, role["logit_difference"][case].sel(layer=[0, 1]), atol=1e-5
        )
    padding = each["change"].sel(layer=0, head=0).isnull()
    assert padding.values.tolist() == [[False] * 9, [True] * 4 + [False] * 5]
    assert float(abs(each["change"].sel(position=7)).max()) > 1e-4


def test_only_the_asked_position_reaches_the_logits(padded, monkeypatch):
    prompts, (model, _) = with_role(padded), tiny("llama")
    seen, real = [], carry.carry
    monkeypatch.setattr(
        carry, "carry", lambda *given: seen.append(tuple(given[5].shape)) or real(*given)
    )
    everywhere, end = path_patch(model, prompts), path_patch(model, prompts, at="END")
    assert set(seen) == {(8, 1)}, "four heads of a layer for two cases, at one position"
    np.testing.assert_allclose(everywhere["change"], end["change"], atol=1e-6)
    assert float(abs(end["change"]).max()) > 1e-3
    before = len(seen)
    assert (
        float(abs(path_patch(model, prompts, at="S2")["change"]).max()) == 0.0
        and len(seen) == before
    )


def test_queries_of_the_last_layer_are_heard_at_the_asked_position_alone(padded):
    prompts, (model, _) = with_role(padded), tiny("qwen2")
    whole = path_patch(model, prompts, receivers=[(2, 0), (2, 3)])
    end = path_patch(model, prompts, receivers=[(2, 0), (2, 3)], at="END")
    np.testing.assert_allclose(whole["change"], end["change"], atol=1e-6)
    assert float(abs(end["change"]).max()) > 1e-4


@pytest.mark.parametrize("model_type", APART)
@pytest.mark.parametrize("receivers", [None, [(1, 1), (2, 2)]])
def test_the_same_text_changes_nothing(model_type, receivers, padded):
    prompts, (model, _) = with_role(padded), tiny(model_type)
    scores = path_patch(
        model, prompts.assign(corrupted=prompts["token"].copy()), receivers=receivers, via="v"
    )
    np.testing.assert_allclose(scores["change"].sel(layer=0), 0.0, atol=2e-5)
    np.testing.assert_allclose(
        scores["base_logit_difference"], scores["new_logit_difference"], atol=1e-5
    )


def test_what_comes_out_is_labelled(padded):
    prompts, (model, module) = with_role(padded), tiny("llama")
    new, base = runs("llama", prompts)
    scores = path_patch(
        model, prompts, receivers=[(2, 3), (2, 2), (1, 0)], via="v", senders=[(1, 2), (0, 3)]
    )
    assert (
        scores["change"].dims == ("batch", "layer", "head") and scores["change"].dtype == np.float32
    )
    assert list(scores["batch"].values) == [3, 9] and "role_S2" in scores.coords
    asked = scores["change"].notnull().all("batch").values
    assert np.argwhere(asked).tolist() == [[0, 3], [1, 2]]
    assert (
        scores.attrs["receivers"] == "L1KV0+L2KV1"
        and scores.attrs["receivers_asked"] == "L2H3+L2H2+L1H0"
    )
    assert scores.attrs["via"] == "values" and scores.attrs["at"] == "all positions"
    for name, given in (("base", base), ("new", new)):
        expected = difference(oracle.end_logits(module, given).gather(-1, ANSWERS))
        np.testing.assert_allclose(scores[f"{name}_logit_difference"], expected, atol=1e-5)
    np.testing.assert_allclose(
        scores["relative"] * scores["base_logit_difference"], scores["change"], atol=1e-5
    )
    every = path_patch(model, prompts, receivers=[(2, 3), (1, 0)], via="v")
    np.testing.assert_allclose(
        every["change"].sel(layer=1, head=2), scores["change"].sel(layer=1, head=2), atol=1e-5
    )


def test_several_questions_a_prompt_and_other_metrics(padded):
    prompts, (model, module) = with_role(padded), tiny("gpt2")
    prompts["mask"][:] = 1
    asking = prompts.drop_vars(["answer", "wrong"]).assign(
        ask=(("batch", "step"), [[6, 8], [7, -1]]), target=(("batch", "step"), [[5, 9], [7, -1]])
    )
    new, base = runs("gpt2", prompts)
    places = torch.ones(2, 9, dtype=torch.bool)
    for metric in ("log_probability", "kl"):
        scores = path_patch(model, asking, metric=metric)
        assert scores.attrs["metric"] == metric and metric in scores
    found = path_patch(model, asking, metric="log_probability")["log_probability"].sel(
        layer=1, head=2
    )
    with torch.no_grad(), step_c(module, "gpt2", base, new, (1, 2), places, False):
        logits = module(**base, use_cache=False).logits.log_softmax(-1)
    expected = [(logits[0, 6, 5] + logits[0, 8, 9]) / 2, logits[1, 7, 7]]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("receivers", [None, [(2, 2)]])
def test_halves_and_rehearsals_give_the_same_numbers(receivers, padded, monkeypatch):
    prompts, (model, _) = with_role(padded), tiny("llama")
    whole = path_patch(model, prompts, receivers=receivers)["change"]
    np.testing.assert_allclose(
        path_patch(model, prompts, receivers=receivers, tokens=9)["change"], whole, atol=1e-5
    )
    rehearsed = placed("local", path_patch)(model, prompts, receivers=receivers)["change"]
    np.testing.assert_allclose(rehearsed, whole, atol=1e-5)
    real, seen = carry.follow, []

    def tight(*given):
        *_, (_, _, first, last) = given
        seen.append(last - first)
        if last - first > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*given)

    monkeypatch.setattr(carry, "follow", tight)
    np.testing.assert_allclose(
        path_patch(model, prompts, receivers=receivers)["change"], whole, atol=1e-5
    )
    assert max(seen) == 8 and min(seen) == 2

    def broken(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(carry, "follow", broken)
    with pytest.raises(Exception, match="out of memory"):
        path_patch(model, prompts, receivers=receivers)


def test_nothing_is_left_of_a_path_in_the_model(padded):
    prompts, (model, module) = with_role(padded), tiny("llama")
    _, base = runs("llama", prompts)
    before = oracle.end_logits(module, base)
    path_patch(model, prompts, receivers=[(2, 1)], via="k", mlps="freeze")
    assert torch.equal(before, oracle.end_logits(module, base))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"receivers": [(2, 1)], "senders": [(1, 0), (2, 0)]},
            r"receivers before senders: L2H0 stands in or above",
        ),
        (
            {"receivers": [(0, 1)]},
            r"no head stands before layer 0; choose receivers in higher layers",
        ),
        (
            {"receivers": [(3, 1)]},
            r"L3H1 does not exist; this model has layers 0 to 2 and heads 0 to 3",
        ),
        ({"receivers": [(2, 1), (2, 1)]}, r"L2H1 is named twice"),
        ({"receivers": []}, r"no receivers were named; name heads, or none at all for the logits"),
        ({"senders": [(0, 4)]}, r"L0H4 does not exist"),
        ({"senders": []}, r"no senders were named; name heads, or leave them out for all"),
        (
            {"receivers": [(2, 1)], "via": "z"},
            r"via 'z' is not known",
        ),
        ({"mlps": "skip"}, r"mlps 'skip' is not possible; use recompute or freeze"),
        ({"at": "S9"}, r"role 'S9' is not known in these prompts; use one of S2"),
        (
            {"at": "S2", "by_position": True},
            r"at each position or at one role, not both",
        ),
    ],
)
def test_paths_that_cannot_be_are_refused(options, message, padded):
    with pytest.raises(BadInput, match=message):
        path_patch(tiny("llama")[0], with_role(padded), **options)


def test_prompts_without_a_new_text_are_refused(padded):
    with pytest.raises(
        BadInput, match="path patching needs pairs: these prompts have no corrupted text"
    ):
        path_patch(tiny("llama")[0], with_role(padded).drop_vars("corrupted"))
