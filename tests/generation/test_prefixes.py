"""Shared prefixes give what reading every prompt afresh gives, and compute every different prefix
once.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from random_models import APART, byte_tokenizer, placed, tiny, words_tokenizer

from nnheads.detectors._scores import raw_scores
from nnheads.detectors._stimulus import prepare
from nnheads.errors import BadInput
from nnheads.generation.caches import prefill
from nnheads.generation.greedy import generate
from nnheads.generation.needle_answers import answer_needles, without_answers
from nnheads.generation.prefix_tree import Segment, prefix_tree
from nnheads.generation.prefixes import SHARED, _decode, answer_and_measure
from nnheads.models.families import FAMILIES
from nnheads.models.load import load
from nnheads.prompts.needle import needle, needle_grid
from nnheads.prompts.needle_cells import shared_places
from nnheads.spans.measure import measure
from nnheads.spans.nulls import NULL

GRID: dict = {"lengths": [60, 100], "depths": [0.0, 0.5, 1.0], "needles": 2, "seed": 1}
ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=12)


def grid(**changes) -> xr.Dataset:
    return needle_grid(words_tokenizer(), **{**GRID, **changes})


def rows_of(prompts: xr.Dataset) -> list[list[int]]:
    asked, _ = without_answers(prompts, 0)
    return [
        row[mask > 0].tolist() for row, mask in zip(asked["token"].values, asked["mask"].values)
    ]


def plainly(model, prompts: xr.Dataset) -> xr.Dataset:
    return measure(model, answer_needles(model, prompts))


def test_a_tree_by_hand():
    assert prefix_tree([[1, 2, 3, 4], [1, 2, 5], [1, 2], [7], [1, 2, 5]]) == [
        Segment(-1, 0, (1, 2), (2,)),
        Segment(0, 2, (3, 4), (0,)),
        Segment(0, 2, (5,), (1, 4)),
        Segment(-1, 0, (7,), (3,)),
    ]
    assert prefix_tree([]) == prefix_tree([[]]) == []


@given(ROWS)
def test_a_tree_holds_every_row_and_every_prefix_once(rows):
    tree = prefix_tree(rows)
    found = {}
    text: list[list[int]] = []
    for segment in tree:
        before = text[segment.parent] if segment.parent >= 0 else []
        assert len(before) == segment.start and segment.tokens
        text.append([*before, *segment.tokens])
        found |= dict.fromkeys(segment.ends, text[-1])
    assert [found[row] for row in range(len(rows))] == rows
    different = {tuple(row[:stop]) for row in rows for stop in range(1, len(row) + 1)}
    assert sum(len(segment.tokens) for segment in tree) == len(different)


@given(ROWS)
def test_each_segment_continues_a_part_of_what_ran_before_it(rows):
    tree, last = prefix_tree(rows), -1
    for number, segment in enumerate(tree):
        above = last
        while above != segment.parent:
            assert above >= 0, "the cache of the parent is gone by now"
            above = tree[above].parent
        last = number


@pytest.mark.parametrize("model_type", APART)
def test_scores_equal_the_plain_way_on_models_that_attend_differently(model_type):
    model, _ = tiny(model_type)
    shared, prompts = FAMILIES[model_type].interface, grid()
    scores = answer_and_measure(model, prompts)
    xr.testing.assert_allclose(scores.drop_attrs(), plainly(model, prompts).drop_attrs(), atol=1e-4)
    assert scores.attrs["reading"] == (
        SHARED if shared else f"plain: {model_type} shows no queries"
    )
    assert (scores.attrs["token_layers"] < scores.attrs["token_layers_plain"] / 2) == shared


@pytest.mark.parametrize("model_type", ["llama", "mistral", "gpt2", "gpt_oss"])
def test_scores_equal_the_plain_way_under_eager_attention(model_type):
    model, _ = tiny(model_type, "eager")
    scores = answer_and_measure(model, grid())
    xr.testing.assert_allclose(scores.drop_attrs(), plainly(model, grid()).drop_attrs(), atol=1e-4)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox", "qwen3", "mistral"])
def test_the_same_tokens_are_written(model_type):
    model, _ = tiny(model_type)
    prompts = grid()
    rows, asked = rows_of(prompts), without_answers(prompts, 0)[0]
    leaves = dict(prefill(model, prefix_tree([row[:-1] for row in rows])))
    written, _ = _decode(model, rows, [leaves[row] for row in range(len(rows))], 8)
    np.testing.assert_array_equal(written, generate(model, asked, 8))


def test_a_trained_model_copies_the_same_tokens():
    model = load("reference")
    prompts = needle_grid(model.tokenizer, lengths=[80, 120], depths=[0.0, 0.5, 1.0], seed=2)
    scores, plain = answer_and_measure(model, prompts), plainly(model, prompts)
    assert (
        scores.attrs["reading"] == SHARED
        and scores["copies"].sum() > 0
        and scores["answered"].any()
    )
    xr.testing.assert_allclose(scores.drop_attrs(), plain.drop_attrs(), atol=1e-4)


@pytest.mark.parametrize("cache_bytes", [1, 1 << 30])
def test_memory_decides_what_is_decoded_together_and_nothing_else(cache_bytes):
    model, _ = tiny("llama")
    prompts = grid().isel(batch=[4, 0, 9, 9])
    one, plain = (
        answer_and_measure(model, prompts, cache_bytes=cache_bytes),
        plainly(model, prompts),
    )
    # how many random keys are drawn, and so which, depends on the other prompts that are read
    # together
    drawn = [kind for kind in plain["kind"].values if not kind.endswith(NULL)]
    xr.testing.assert_allclose(
        one.sel(kind=drawn).drop_attrs(), plain.sel(kind=drawn).drop_attrs(), atol=1e-4
    )
    np.testing.assert_array_equal(one["needle_number"], prompts["needle_number"])


def test_prompts_that_share_little_are_answered_in_one_batch():
    model, _ = tiny("llama")
    prompts = needle(words_tokenizer(), 4, lengths=[60, 80])
    scores = answer_and_measure(model, prompts)
    xr.testing.assert_allclose(scores.drop_attrs(), plainly(model, prompts).drop_attrs(), atol=1e-4)
    assert scores.attrs["reading"] == "plain: the prompts have little in common"


def test_on_a_server_the_plain_way_is_taken():
    model, _ = tiny("llama")
    scores = placed("local", answer_and_measure)(model, grid(needles=1))
    assert scores.attrs["reading"] == "plain: caches stay on the server"
    xr.testing.assert_allclose(
        scores.drop_attrs(), plainly(model, grid(needles=1)).drop_attrs(), atol=1e-4
    )


def test_settings_that_change_what_is_written_are_kept(monkeypatch):
    model, module = tiny("llama")
    monkeypatch.setattr(module.generation_config, "repetition_penalty", 1.1)
    reading = answer_and_measure(model, grid(needles=1)).attrs["reading"]
    assert reading == "plain: the model's generation settings ask for repetition_penalty"


def test_an_answer_ends_where_the_settings_say(monkeypatch):
    model, module = tiny("llama")
    prompts = grid(needles=1)
    asked = without_answers(prompts, 0)[0]
    monkeypatch.setattr(
        module.generation_config, "eos_token_id", generate(model, asked, 8)[0, :3].tolist()
    )
    assert (generate(model, asked, 8) == -1).any()
    scores = answer_and_measure(model, prompts)
    xr.testing.assert_allclose(scores.drop_attrs(), plainly(model, prompts).drop_attrs(), atol=1e-4)


@pytest.mark.parametrize("step", [0, 2])
def test_an_answer_ends_with_its_line_in_both_ways(step, breaking):
    model, _ = tiny("llama")
    prompts = grid(needles=1)
    free = plainly(model, prompts)
    asked = without_answers(prompts, 0)[0]
    token = int(generate(model, asked, 8)[0, step])
    scores = answer_and_measure(breaking(model, token), prompts)
    assert scores.attrs["reading"] == SHARED
    plain = plainly(model, prompts)
    xr.testing.assert_allclose(scores.drop_attrs(), plain.drop_attrs(), atol=1e-4)
    assert not np.allclose(
        plain["mass"].sel(kind="answer_span"), free["mass"].sel(kind="answer_span")
    )


def test_decoding_stops_once_every_line_has_ended(breaking):
    model, _ = tiny("llama")
    prompts = grid(needles=1).isel(batch=[0, 0, 0])
    token = int(generate(model, without_answers(prompts, 0)[0], 8)[0, 0])
    layers, prefix = len(model.layers), len(rows_of(prompts)[0]) - 1
    scores = answer_and_measure(breaking(model, token), prompts)
    assert scores.attrs["token_layers"] == (prefix + 3) * layers


class Counter:
    """Tokens times layers that a plain model computes, whoever calls it."""

    def __init__(self, module) -> None:
        self.tokens = 0
        self.hooks = [
            layer.register_forward_pre_hook(lambda _, given: self.add(given[0]))
            for layer in module.model.layers
        ]

    def add(self, hidden) -> None:
        self.tokens += hidden.shape[0] * hidden.shape[1]


@pytest.fixture
def counted():
    """Run something on a plain model and count."""
    counters = []

    def count(module, function):
        counters.append(Counter(module))
        result = function()
        while counters[-1].hooks:
            counters[-1].hooks.pop().remove()
        return result, counters[-1].tokens

    yield count
    for hook in (hook for counter in counters for hook in counter.hooks):
        hook.remove()


DETECT: dict = {"n": 40, "seed": 0, "quiet": True, "lengths": [60, 110]}


def test_detection_answers_what_shares_a_haystack_together_and_computes_less(counted, tmp_path):
    model, module = tiny("llama")
    name = "generated_retrieval"
    found, spent = counted(
        module, lambda: raw_scores(model, [name], batch_size=8, parts=tmp_path, **DETECT)[name]
    )
    prompts = prepare(model, [name], **{key: DETECT[key] for key in ("n", "seed", "lengths")})[
        0
    ].prompts
    parts = [prompts.isel(batch=slice(first, first + 8)) for first in range(0, 40, 8)]
    plain, before = counted(
        module, lambda: xr.concat([plainly(model, part) for part in parts], "batch")
    )
    assert 2 * spent < before, (spent, before)
    assert len(list(tmp_path.glob("*.nc"))) == 2, "a part for each haystack"
    np.testing.assert_allclose(found["hit"], plain["hit"].sel(kind="copied").fillna(0), atol=1e-5)
    np.testing.assert_array_equal(found["recall"], plain["recall"])
    assert found["batch"].values.tolist() == list(range(40)) and found.attrs["reading"] == SHARED


def test_a_haystack_that_was_finished_is_not_read_again(counted, tmp_path):
    model, module = tiny("llama")
    names = ["generated_retrieval"]
    again = functools.partial(raw_scores, model, names, batch_size=8, parts=tmp_path, **DETECT)
    first, whole = counted(module, again)
    sorted(tmp_path.glob("*.nc"))[0].unlink()
    second, half = counted(module, again)
    third, none = counted(module, again)
    assert 0 < half < whole and none == 0
    for taken_up in (second, third):
        xr.testing.assert_equal(taken_up[names[0]], first[names[0]])


def test_types_about_what_the_model_writes_share_the_writing(counted, tmp_path):
    model, module = tiny("llama")
    names = ["generated_retrieval", "hallucination"]
    of = functools.partial(raw_scores, model, batch_size=8, **DETECT)
    alone, once = zip(
        *(counted(module, lambda name=name: of([name], parts=None)[name]) for name in names)
    )
    both, spent = counted(module, lambda: of(names, parts=tmp_path))
    again, none = counted(module, lambda: of(names, parts=tmp_path))
    assert spent == once[0] == once[1] > 0 and none == 0
    for name, expected in zip(names, alone):
        for found in (both[name], again[name]):
            xr.testing.assert_identical(
                found.drop_attrs(deep=False), expected.drop_attrs(deep=False)
            )
            assert found.attrs == expected.attrs


@pytest.mark.parametrize(("tokens", "jobs"), [(1, 3), (1 << 16, 1)])
def test_what_cannot_be_shared_goes_on_in_batches(tokens, jobs, tmp_path, monkeypatch):
    monkeypatch.setattr("nnheads.runs.batches.JOB_TOKENS", tokens)
    model, _ = tiny("llama")
    found = placed("local", raw_scores)(
        model, ["hallucination"], batch_size=16, parts=tmp_path, **DETECT
    )
    assert len(list(tmp_path.glob("*.nc"))) == jobs, (
        "40 prompts of two haystacks, 16 at a time, or all in one job"
    )
    assert found["hallucination"].attrs["reading"] == "plain: caches stay on the server"


def test_positions_by_the_whole_length_are_not_shared(monkeypatch):
    model, module = tiny("llama")
    monkeypatch.setattr(module.config, "rope_parameters", {"rope_type": "dynamic", "factor": 2.0})
    assert "length of the whole text" in answer_and_measure(model, grid(needles=1)).attrs["reading"]


@functools.cache
def splitting_tokenizer():
    """Bytes, with the code words that a grid needs whole."""
    return byte_tokenizer(
        (
            "Mary",
            "book",
            "letter",
            "ticket",
            "camera",
            "basket",
            "apple",
            "garden",
            "market",
            "beach",
        )
    )


@pytest.mark.parametrize(
    ("tokenizer", "tokens"), [(words_tokenizer, 60), (splitting_tokenizer, 500)]
)
def test_a_grid_has_every_cell_in_one_text(tokenizer, tokens, monkeypatch):
    monkeypatch.setattr("nnheads.prompts.needles.CODE_LENGTH", 3)
    lengths, depths = [tokens, 2 * tokens, 3 * tokens], [0.0, 0.25, 0.5, 0.75, 1.0]
    prompts = needle_grid(tokenizer(), lengths=lengths, depths=depths, needles=2)
    cells = set(
        zip(*(prompts[name].values.tolist() for name in ("length", "depth_asked", "needle_number")))
    )
    assert len(cells) == prompts.sizes["batch"] == len(lengths) * len(depths) * 2
    assert (prompts["mask"].sum("position") <= prompts["length"] + 4).all()
    assert len({text[-25:] for text in prompts["text"].values}) <= 2, "a question per needle"
    moved = abs(prompts["depth"] - prompts["depth_asked"])
    assert (moved.where(prompts["length"] == max(lengths), 0) <= 0.125).all(), (
        "a needle moves by half a step"
    )
    rows = rows_of(prompts)
    assert 2 * sum(len(segment.tokens) for segment in prefix_tree(rows)) < sum(map(len, rows))
    for case, needle_at in enumerate(prompts["key_start"].values[:, 0]):
        assert prompts["token"].values[case, needle_at] == prompts["target"].values[case, 0]


def test_a_grid_is_the_same_for_the_same_seed_and_layout_is_that_of_needle():
    xr.testing.assert_identical(grid(), grid())
    assert not np.array_equal(grid()["token"], grid(seed=2)["token"])
    plain = needle(words_tokenizer(), 2, lengths=[60])
    assert set(grid().data_vars) == set(plain.data_vars) and set(grid().coords) > set(plain.coords)
    assert set(grid()["kind"].values) == set(plain["kind"].values)


def test_a_large_grid_needs_far_fewer_tokens():
    prompts = grid(
        lengths=list(range(100, 1001, 100)), depths=np.linspace(0, 1, 10).tolist(), needles=1
    )
    rows = rows_of(prompts)
    assert 4 * sum(len(segment.tokens) for segment in prefix_tree(rows)) < sum(map(len, rows))


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 40), st.floats(0, 1)), min_size=1, max_size=20),
    st.floats(0, 0.5),
)
def test_needles_move_by_less_than_half_a_step_or_to_the_nearest_end(sizes, cells, step):
    ends = np.cumsum([0, *sizes])
    stops = np.array([min(stop, len(sizes)) for stop, _ in cells])
    depths = np.array([depth for _, depth in cells])
    for place, stop, depth in zip(shared_places(ends, stops, depths, step), stops, depths):
        assert 0 <= place <= stop
        moved = abs(ends[place] - depth * ends[stop])
        assert (
            moved
            <= max(step / 2 * ends[stop], abs(ends[: stop + 1] - depth * ends[stop]).min()) + 1e-9
        )


def test_cells_share_a_place_where_they_can():
    ends = np.arange(0, 101, 5)
    # 50 of 100 tokens and half of 90: 45 to 50 serves both
    assert len(set(shared_places(ends, np.array([20, 18]), np.array([0.5, 0.5]), 0.2))) == 1
    assert len(set(shared_places(ends, np.array([20, 10]), np.array([0.5, 0.5]), 0.2))) == 2
    assert len(set(shared_places(ends, np.array([20, 10]), np.array([0.25, 0.5]), 0.0))) == 1


def test_a_text_longer_than_the_model_reads_is_refused():
    with pytest.raises(BadInput, match="this model reads at most 128"):
        answer_and_measure(tiny("gpt2")[0], grid(lengths=[128], needles=1))


@pytest.mark.parametrize("missing", [{"lengths": []}, {"depths": []}, {"needles": 0}])
def test_an_empty_grid_is_refused(missing):
    with pytest.raises(BadInput, match="at least one length, one depth and one needle"):
        grid(**missing)


def test_a_depth_that_is_none_and_a_length_too_short_are_refused():
    with pytest.raises(BadInput, match="depth"):
        grid(depths=[2.0])
    with pytest.raises(BadInput, match="10 tokens"):
        grid(lengths=[10])
