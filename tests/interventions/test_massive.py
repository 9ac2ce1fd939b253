"""Positions with massive activations are found, left out of means, and warned of as sources."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from random_models import build, words_tokenizer

from nnheads import interventions as iv
from nnheads.errors import BadInput
from nnheads.interventions import massive
from nnheads.interventions.positions import positions_of
from nnheads.interventions.steering_directions import activations_of, direction
from nnheads.models.families import FAMILIES

SINK = "input"  # a word whose embedding is a thousand times as long as others


@pytest.fixture(scope="module")
def model():
    from nnsight import TransformersModel

    module = build("llama")
    with torch.no_grad():
        module.model.embed_tokens.weight[words_tokenizer().get_vocab()[SINK]] *= 1000
    return TransformersModel(module, tokenizer=words_tokenizer(), rename=FAMILIES["llama"].rename())


def prompts(rows: list[list[int]]) -> xr.Dataset:
    width = max(map(len, rows))
    token = [[0] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    place = ("batch", "position")
    return xr.Dataset({"token": (place, token), "mask": (place, mask)})


def test_many_times_the_median_of_a_layer_is_massive():
    norms = np.ones((2, 2, 4))
    norms[1, 0, 1], norms[0, 1, 2] = 25.5, 24.5
    norms[:, 1, 0] = 1e6  # padding
    real = np.array([[1, 1, 1, 1], [0, 1, 1, 1]], bool)
    assert np.argwhere(massive.is_massive(norms, real)).tolist() == [[0, 1]]
    usual = np.array([1.0, 2.0])
    assert not massive.is_massive(norms, real, usual).any()


def test_stretches_leave_marked_positions_out_and_named_ones_do_not():
    given = prompts([[5, 6, 7], [8, 9]])
    given["massive"] = (("batch", "position"), [[1, 0, 0], [0, 1, 0]])
    assert positions_of(iv.ALL, given).tolist() == [[1, 2], [2, -1]]
    assert positions_of(iv.span(0, 2), given).tolist() == [[1], [2]]
    assert positions_of(iv.index(0), given).tolist() == [[0], [1]]


def test_means_over_positions_equal_plain_hooks_without_the_first(model):
    sink = words_tokenizer().get_vocab()[SINK]
    given = massive.without_massive(model, prompts([[sink, 9, 30, 41], [sink, 77, 8]]))
    assert given["massive"].values.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    found = activations_of(model, given, site="resid_post", layers=[1], at=iv.ALL)
    for row, ids in enumerate(([sink, 9, 30, 41], [sink, 77, 8])):
        one = torch.tensor([ids])
        inputs = oracle.fed("llama", one, torch.ones_like(one))
        own = oracle.value_at(model._module, "llama", inputs, 1, "resid_post")
        np.testing.assert_allclose(found[row, 0, 0], own[0, 1:].mean(0), rtol=1e-4, atol=1e-5)


def test_directions_say_how_many_were_left_out(model):
    texts = [f"{SINK} {word} to the {place}" for word in ("Mary", "John") for place in "12"]
    others = [f"{SINK} the {word} of {place}" for word in ("code", "copy") for place in "34"]
    assert direction(model, texts, others, at=iv.ALL).attrs["massive_left_out"] == 8
    assert direction(model, texts, others).attrs["massive_left_out"] == 0, "at the end, none is"


def test_a_text_of_nothing_else_is_refused(model):
    texts = [f"{SINK} Mary", f"{SINK} John", SINK, f"{SINK} 1"]
    others = [f"{SINK} {number}" for number in range(4)]
    with pytest.raises(BadInput, match=r"text 3 toward is nothing but .*'input'"):
        direction(model, texts, others, at=iv.ALL)


def test_a_source_that_is_read_at_such_a_position_is_warned_of(model):
    sink = words_tokenizer().get_vocab()[SINK]
    base = prompts([[9, 30, 41]])

    def write(source: list[int], position: int):
        add = iv.AddSource(source_at=iv.index(position))
        edit = iv.Edit("resid_post", add, layer=1, at=iv.DECODE)
        return iv.generate(model, iv.Intervention(edit), base, [prompts([source])], new_tokens=2)

    with pytest.warns(massive.MassiveSource, match="beginning-of-sequence"):
        write([sink], 0)
    with pytest.warns(massive.MassiveSource):  # whichever of two edits reads it
        first, last = (iv.AddSource(source_at=iv.index(at)) for at in (0, 1))
        edits = [iv.Edit("resid_post", do, layer=1, at=iv.DECODE) for do in (first, last)]
        iv.generate(model, iv.Intervention(*edits), base, [prompts([[sink, 9]])], new_tokens=2)
    write([sink, 9], 1)  # any warning is an error
    write([9, 30], 0)


def test_a_prompt_of_nothing_else_is_warned_of(model):
    sink = words_tokenizer().get_vocab()[SINK]
    others = prompts([[9, 30, 41], [9, 77, 8]])
    with pytest.warns(massive.MassivePrompt, match="prompt 'input' is nothing but a first token"):
        massive.warn_of_prompts(model, prompts([[9, 30], [sink]]), others)
    massive.warn_of_prompts(model, prompts([[sink, 9], [9]]), others)  # any warning is an error
