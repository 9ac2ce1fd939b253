"""Answers that a model writes itself: the same as transformers' own, and the spans that they give
rise to.
"""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
import xarray as xr
from random_models import VOCABULARY, byte_tokenizer, tiny, words_tokenizer

from nnheads.detectors._accuracy_map import accuracy_map
from nnheads.generation.greedy import first_line, generate, holds_line_break
from nnheads.generation.needle_answers import (
    EXTRA_TOKENS,
    answer_needles,
    tokens_while_answering,
    without_answers,
)
from nnheads.prompts.needle import needle
from nnheads.prompts.needles import CODE_LENGTH
from nnheads.spans.measure import measure_and_gate

PLACE = ("batch", "position")


def dataset(ids: torch.Tensor, mask: torch.Tensor) -> xr.Dataset:
    return xr.Dataset({"token": (PLACE, ids.numpy()), "mask": (PLACE, mask.numpy())})


def own_greedy(module, row: torch.Tensor, steps: int) -> list[int]:
    """The best token, again and again, with the whole text read anew each time."""
    ids = row[None]
    for _ in range(steps):
        ids = torch.cat([ids, module(ids).logits[:, -1:].argmax(-1)], 1)
    return ids[0, len(row) :].tolist()


@pytest.fixture
def never_ending(monkeypatch):
    """Random models whose texts do not end by chance."""

    def model(model_type: str):
        traced, module = tiny(model_type)
        monkeypatch.setattr(module.config, "eos_token_id", None)
        monkeypatch.setattr(module.generation_config, "eos_token_id", None)
        return traced, module

    return model


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "mistral", "gpt_neox", "opt"])
def test_generation_is_the_greedy_one_of_transformers_also_with_padding_on_the_left(
    model_type, padded, never_ending
):
    model, module = never_ending(model_type)
    ids, mask, length = padded
    written = generate(model, dataset(ids, mask), 6)
    whole = module.generate(
        ids, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0
    )
    assert written.tolist() == whole[:, ids.shape[1] :].tolist()
    assert written[0].tolist() == own_greedy(module, ids[0], 6)
    assert written[1].tolist() == own_greedy(module, ids[1, -length:], 6)


@pytest.mark.parametrize("where", ["config", "generation_config", "a list"])
def test_nothing_counts_after_the_end_of_a_text(where, padded, never_ending):
    model, module = never_ending("gpt_neox")
    ids, mask, _ = padded
    whole = generate(model, dataset(ids, mask), 6)
    case, step = next(
        (c, s) for c in range(2) for s in range(1, 6) if whole[c, s] not in whole[c, :s]
    )
    end = int(whole[case, step])
    place = module.config if where == "config" else module.generation_config
    place.eos_token_id = [VOCABULARY - 1, end] if where == "a list" else end
    written = generate(model, dataset(ids, mask), 6)
    for own, row in zip(written, whole):
        stop = row.tolist().index(end) if end in row else 6
        assert own.tolist() == [*row[:stop], *[-1] * (6 - stop)]


def llama_like_tokenizer():
    """Bytes that are tokens of their own, as in the first Llamas."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"a": 256}
    backend = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize("build", [byte_tokenizer, llama_like_tokenizer])
def test_tokens_with_a_line_break_are_known_by_their_text(build):
    model = types.SimpleNamespace(tokenizer=build())
    ids = model.tokenizer("a\na")["input_ids"]
    assert len(ids) == 3
    rows = np.array([[ids[0], ids[1], ids[2], ids[1]], [ids[0], -1, -1, -1]])
    assert holds_line_break(model, rows).tolist() == [[False, True, False, True], [False] * 4]
    assert first_line(model, rows).tolist() == [[*ids[:2], -1, -1], [ids[0], -1, -1, -1]]


def test_an_answer_ends_with_its_line(breaking, never_ending):
    model, _ = never_ending("llama")
    prompts = needle(words_tokenizer(), 4, lengths=[60, 80])
    asked, _ = without_answers(prompts, 0)
    whole = generate(model, asked, CODE_LENGTH + EXTRA_TOKENS)
    end = int(whole[0, 2])
    found = answer_needles(breaking(model, end), prompts)
    for case, row in enumerate(whole.tolist()):
        stop = row.index(end) + 1 if end in row else len(row)
        queries = found["query"].values[case, found["kind"].values == "answer_span"]
        assert (queries >= 0).sum() == stop, "the token with the line break is the last that counts"
        written = found["token"].values[case, asked.sizes["position"] :].tolist()
        assert written == [*row[:stop], *[0] * (len(row) - stop)]
    assert (whole[0, 3:] != 0).any()


def needles_file(folder):
    path = folder / "needles.jsonl"
    answers = {"Mary": "green", "John": "red blue black", "Anna": "white grey"}
    lines = [
        f'{{"needle": "the code of {name} is {answer} .", "question": "what is the code of {name}'
        f' ?", "answer": "{answer}"}}'
        for name, answer in answers.items()
    ]
    path.write_text("\n".join(lines))
    return path


def test_answers_are_cut_off_wherever_they_begin(reference, tmp_path):
    prompts = needle(
        reference.tokenizer, 6, lengths=[60], depths=[0.0, 1.0], needles=needles_file(tmp_path)
    )
    asked, moved = without_answers(prompts, 0)
    for case in range(6):
        own = asked["token"].values[case, asked["mask"].values[case] == 1]
        assert own.tolist() == reference.tokenizer(str(prompts["text"].values[case]))["input_ids"]
        low = int(prompts["key_start"].values[case, 0])
        assert asked["token"].values[case, low + moved[case]] == prompts["token"].values[case, low]
    assert (
        tokens_while_answering(prompts)
        == int(asked["mask"].sum("position").max()) + 3 + EXTRA_TOKENS
    )


def test_a_model_that_answers_copies_each_token_of_the_needle(reference, tmp_path):
    prompts = needle(
        reference.tokenizer, 6, lengths=[60], depths=[0.0, 1.0], needles=needles_file(tmp_path)
    )
    found = answer_needles(reference, prompts)
    assert sorted(found["needle_tokens"].values) == [1, 1, 2, 2, 3, 3]
    assert np.array_equal(found["needle_tokens"], (prompts["target"].values >= 0).sum(1))
    assert float(found["recall"].mean()) > 0.9 and found["answered"].values.all()
    copied = found.isel(span=found["kind"].values == "copied")
    token = found["token"].values
    for case in range(6):
        for query, key in zip(copied["query"].values[case], copied["key_start"].values[case]):
            if query >= 0:
                assert token[case, query + 1] == token[case, key] and key < query


def test_accuracy_counts_only_what_an_example_asks_for(reference, tmp_path):
    prompts = needle(
        reference.tokenizer, 6, lengths=[60], depths=[0.0, 1.0], needles=needles_file(tmp_path)
    )
    token, mask = (torch.from_numpy(prompts[name].values).long() for name in ("token", "mask"))
    places = (mask.cumsum(1) - 1).clamp(min=0)
    best = reference._module(token, attention_mask=mask, position_ids=places).logits.argmax(-1)
    expected = []
    for case in range(6):
        asked = [place for place in prompts["ask"].values[case] if place >= 0]
        expected.append(np.mean([best[case, place] == token[case, place + 1] for place in asked]))
    assert {len([place for place in row if place >= 0]) for row in prompts["ask"].values} == {
        1,
        2,
        3,
    }
    found = measure_and_gate(reference, prompts, ["retrieval"])
    np.testing.assert_allclose(found["accuracy"], expected, atol=1e-6)
    assert np.mean(expected) > 0.8
    assert found["right"].notnull().values.tolist() == (prompts["ask"].values >= 0).tolist()
    np.testing.assert_allclose(found["right"].mean("step"), expected, atol=1e-6)


def test_the_accuracy_map_is_the_mean_over_prompts_of_a_length_and_depth():
    about = {
        "length": [60, 60, 60, 80],
        "depth": [0.0, 0.0, 1.0, 0.0],
        "accuracy": [1.0, 0.0, 0.5, 0.25],
    }
    scores = xr.Dataset(
        {"mass": ("batch", np.zeros(4))},
        {name: ("batch", values) for name, values in about.items()},
    )
    cells = accuracy_map(scores)
    right = scores.assign_coords(right=(("batch", "step"), np.eye(4, 2)))
    first = accuracy_map(right)  # others follow from it
    assert first.attrs["long_name"] == "share of first answer tokens predicted"
    assert first.sel(length=60, depth=0.0) == 0.5 and first.sel(length=80, depth=0.0) == 0
    assert cells.sel(length=60, depth=0.0) == 0.5 and cells.sel(length=60, depth=1.0) == 0.5
    assert cells.sel(length=80, depth=0.0) == 0.25 and np.isnan(cells.sel(length=80, depth=1.0))
    assert accuracy_map(scores.drop_vars("depth")) is None
    asked = scores.assign_coords(depth=("batch", [0.1, 0.2, 0.9, 0.3]), depth_asked=scores["depth"])
    xr.testing.assert_identical(accuracy_map(asked), cells)
    assert (
        float(
            accuracy_map(scores.assign_coords(answered=("batch", [1, 1, 0, 0]))).sel(
                length=60, depth=0.0
            )
        )
        == 1
    )
