"""What positions mean, in which order sites are reached, and what a model does not have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_models import build, tiny, words_tokenizer

from nnheads import interventions as iv
from nnheads.errors import BadInput
from nnheads.interventions.functions import functions_of
from nnheads.interventions.model_checks import check_model
from nnheads.interventions.ordering import ordered
from nnheads.interventions.positions import resolved
from nnheads.models.families import FAMILIES
from nnheads.models.geometry import model_spec


@st.composite
def batches(draw):
    """Masks of rows of 1 to 8 tokens, padded on either side, and their prompt lengths."""
    lengths = draw(st.lists(st.integers(1, 8), min_size=1, max_size=4))
    left = draw(st.booleans())
    mask = np.zeros((len(lengths), 8), "int8")
    for row, length in enumerate(lengths):
        mask[row, 8 - length if left else 0 : 8 if left else length] = 1
    return mask, np.array([draw(st.integers(0, length)) for length in lengths])


def rows_of(places: torch.Tensor) -> list[list[int]]:
    assert all(
        sorted(row, key=lambda place: place < 0) == row for row in places.tolist()
    )  # none comes last
    return [[place for place in row if place >= 0] for row in places.tolist()]


@given(batches())
def test_prompts_and_answers_share_out_the_real_tokens(batch):
    mask, prompt = batch
    every, first, rest = (
        rows_of(resolved(at, mask, {}, prompt)) for at in (iv.ALL, iv.PROMPT, iv.ANSWER)
    )
    assert every == [np.flatnonzero(row).tolist() for row in mask]
    assert [one + two for one, two in zip(first, rest)] == every
    assert [len(one) for one in first] == prompt.tolist()
    assert rows_of(resolved(iv.PROMPT, mask, {})) == every
    assert rows_of(resolved(iv.ANSWER, mask, {})) == [[]] * len(mask)
    for at in (iv.DECODE, iv.steps(0, 3)):
        assert rows_of(resolved(at, mask, {})) == [[]] * len(mask)


@given(batches(), st.none() | st.integers(-9, 9), st.none() | st.integers(-9, 9))
def test_slices_are_those_of_a_list(batch, start, stop):
    mask, _ = batch
    expected = [np.flatnonzero(row).tolist()[start:stop] for row in mask]
    assert rows_of(resolved(iv.span(start, stop), mask, {})) == expected


@given(batches(), st.lists(st.integers(-8, 7), min_size=1, max_size=3))
def test_indices_count_from_the_first_token_or_the_end(batch, places):
    mask, _ = batch
    shortest = int(mask.sum(1).min())
    outside = [place for place in places if not -shortest <= place < shortest]
    if outside:
        with pytest.raises(
            BadInput, match=r"position -?[0-9] lies outside a prompt of [0-9] tokens"
        ):
            resolved(iv.index(*places), mask, {})
        return
    expected = [[np.flatnonzero(row).tolist()[place] for place in places] for row in mask]
    assert rows_of(resolved(iv.index(*places), mask, {})) == expected


@given(batches(), st.data())
def test_roles_name_a_position_of_each_row_or_none(batch, data):
    mask, _ = batch
    ends = np.array(
        [data.draw(st.sampled_from([-1, *np.flatnonzero(row).tolist()])) for row in mask]
    )
    expected = [[] if place < 0 else [int(place)] for place in ends]
    assert rows_of(resolved(iv.role("END"), mask, {"END": ends, "S1": ends})) == expected
    with pytest.raises(BadInput, match=r"role 'IO' is not known in these prompts"):
        resolved(iv.role("IO"), mask, {"END": ends, "S1": ends})
    with pytest.raises(BadInput, match=r"known: none$"):
        resolved(iv.role("IO"), mask, {})


def test_sites_come_in_the_order_of_a_forward():
    model, _ = tiny("qwen3")
    block = "model.layers.1"
    reached = [
        iv.Edit("output", iv.Zero(), path="model.embed_tokens"),
        iv.Edit("resid_post", iv.Zero(), layer=0),
        iv.Edit("resid_pre", iv.Zero(), layer=1),
        iv.Edit("output", iv.Zero(), path=f"{block}.input_layernorm"),
        iv.Edit("attn_in", iv.Zero(), layer=1),
        iv.Edit("output", iv.Zero(), path=f"{block}.self_attn.q_proj"),
        iv.Edit("output", iv.Zero(), path=f"{block}.self_attn.q_norm"),  # registered after o_proj
        iv.Edit("q", iv.Zero(), layer=1),
        iv.Edit("k", iv.Zero(), layer=1),
        iv.Edit("pattern", iv.Zero(), layer=1),
        iv.Edit("z", iv.Zero(), layer=1),
        iv.Edit("attn_out", iv.Zero(), layer=1),
        iv.Edit("mlp_in", iv.Zero(), layer=1),
        iv.Edit("output", iv.Zero(), path=f"{block}.mlp.act_fn"),  # registered after down_proj
        iv.Edit("output", iv.Zero(), path=f"{block}.mlp.up_proj"),
        iv.Edit("mlp_hidden", iv.Zero(), layer=1),
        iv.Edit("mlp_out", iv.Zero(), layer=1),
        iv.Edit("resid_post", iv.Zero(), layer=1),
        iv.Edit("input", iv.Zero(), path="model.norm"),
        iv.Edit("output", iv.Zero(), path="lm_head"),
    ]
    order = np.random.default_rng(0).permutation(len(reached))
    shuffled = iv.Intervention(*(reached[i] for i in order))
    assert [shuffled.edits[i] for i in ordered(model, shuffled)] == reached
    named = iv.Intervention(*(edit for edit in shuffled.edits if edit.path is None))
    assert [named.edits[i] for i in ordered(model, named)] == [
        edit for edit in reached if edit.path is None
    ]


def lazy(model_type: str, folder):
    """A model that is to be run on a server: it has no weights here."""
    from nnsight import TransformersModel

    build(model_type).save_pretrained(folder)
    rename = FAMILIES[model_type].rename()
    task = "text-generation"
    model = TransformersModel(
        str(folder), task=task, tokenizer=words_tokenizer(), rename=rename, dispatch=False
    )
    assert model.device.type == "meta"
    return model


def test_the_order_is_known_without_weights(model_type, tmp_path):
    row = FAMILIES[model_type]
    edits = (
        iv.Edit("resid_post", iv.Zero(), layer=1),
        iv.Edit("output", iv.Zero(), path=f"{row.layers}.1.{row.projection}"),
        iv.Edit("z", iv.Zero(), layer=1),
        iv.Edit("input", iv.Zero(), path=f"{row.layers}.1.{row.attention}"),
    )
    model = lazy(model_type, tmp_path)
    if row.neurons is None:  # experts need their weights
        with pytest.raises(
            BadInput,
            match=r"^when the modules by path are reached cannot be measured on this model \(",
        ):
            ordered(model, iv.Intervention(*edits))
        return
    assert ordered(model, iv.Intervention(*edits)) == [3, 2, 1, 0]


VECTOR = {"v": torch.ones(5)}


@pytest.mark.parametrize(
    ("edit", "tensors", "says"),
    [
        (
            iv.Edit("z", iv.Zero(), layer=3),
            {},
            "layer 3 does not exist; this model has layers 0 to 2",
        ),
        (
            iv.Edit("z", iv.Zero(), layer=0, units=(1, 4)),
            {},
            "head 4 does not exist; this model has heads 0 to 3",
        ),
        (
            iv.Edit("k", iv.Zero(), layer=0, units=(2,)),
            {},
            "key/value head 2 does not exist",
        ),
        (
            iv.Edit("z", iv.Zero(), layer=0, neurons=(16,)),
            {},
            "neuron 16 of z does not exist; it has 0 to 15",
        ),
        (
            iv.Edit("mlp_hidden", iv.Zero(), layer=0, neurons=(40,)),
            {},
            "neuron 40 of mlp_hidden does not exist; it has 0",
        ),
        (
            iv.Edit("resid_pre", iv.Zero(), layer=0, neurons=(48,)),
            {},
            "neuron 48 of resid_pre does not exist; it has 0",
        ),
        (
            iv.Edit("z", iv.Add("v"), layer=0, units=(1,)),
            VECTOR,
            "tensor 'v' is for 5 features; z has 16",
        ),
        (iv.Edit("z", iv.Add("v"), layer=0), VECTOR, "tensor 'v' is for 5 features; z has 64"),
        (iv.Edit("k", iv.Add("v"), layer=0), VECTOR, "tensor 'v' is for 5 features; k has 32"),
        (
            iv.Edit("mlp_out", iv.Mask(mask="v"), layer=0),
            VECTOR,
            "tensor 'v' is for 5 features; mlp_out has 48",
        ),
        (
            iv.Edit("z", iv.LowRank(rotation="v"), layer=0, units=(1, 2)),
            {"v": torch.eye(5)[:, :2]},
            "rotation 'v' is for 5 features; z has 32",
        ),
        (
            iv.Edit("input", iv.Zero(), path="down_proj"),
            {},
            (
                "no module 'down_proj' in this model; did you mean model.layers.0.mlp.down_proj,"
                " model.layers.1"
            ),
        ),
        (iv.Edit("input", iv.Zero(), path="nothing"), {}, "no module 'nothing' in this model$"),
    ],
)
def test_what_a_model_does_not_have(edit, tensors, says):
    model, _ = tiny("llama")
    with pytest.raises(BadInput, match=f"^{says}"):
        check_model(model, iv.Intervention(edit, tensors=tensors), model_spec(model))


def test_experts_have_no_neurons_of_their_own():
    model, _ = tiny("mixtral")
    with pytest.raises(BadInput, match=r"shared by experts"):
        check_model(
            model, iv.Intervention(iv.Edit("mlp_hidden", iv.Zero(), layer=0)), model_spec(model)
        )


def test_a_module_that_never_runs_is_refused():
    model, _ = tiny("mixtral")
    idle = next(name for name, _ in model._module.named_modules() if name.endswith("layers"))
    with pytest.raises(
        BadInput, match=f"^module '{idle}' is not called when this model runs; name one that is$"
    ):
        ordered(model, iv.Intervention(iv.Edit("output", iv.Zero(), path=idle)))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (
            "no_such_module:f",
            (
                "function 'no_such_module:f' cannot be found by its path: No module named"
                " 'no_such_module'"
            ),
        ),
        (
            "math:no_such_function",
            "function 'math:no_such_function' cannot be found by its path: module 'math' has no",
        ),
        ("math:pi", "'math:pi' is a float and no function"),
    ],
)
def test_functions_that_are_not_there(path, says):
    with pytest.raises(BadInput, match=f"^{says}"):
        functions_of([iv.Edit("z", iv.Function(path), layer=0)])


def test_functions_are_found_by_path_or_given():
    edits = iv.Intervention(
        iv.Edit("z", iv.Function("math:sqrt"), layer=0), iv.Edit("z", iv.Function(abs), layer=1)
    )
    import math

    assert functions_of(edits.edits) == {"function 0": math.sqrt, "function 1": abs}
