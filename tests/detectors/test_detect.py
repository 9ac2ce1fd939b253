"""Finding heads by type: known heads of the shipped model, false alarms on random ones, the
interfaces.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from nnsight import TransformersModel
from random_models import byte_tokenizer, config, tiny, words_tokenizer

from nnheads.detectors._catalog import canonical, head_types, types
from nnheads.detectors._detect import calibrated, detect, detect_heads, ranking
from nnheads.detectors._scores import raw_scores
from nnheads.errors import BadInput
from nnheads.models.families import FAMILIES
from nnheads.models.shipped import FOLDER as PATH

MODELS = 8  # that are drawn with random weights


def planted(job: str) -> set[tuple[int, int]]:
    entries = json.loads((PATH / "heads.json").read_text())
    return {(one["layer"], one["head"]) for one in entries if one["job"] == job and one["planted"]}


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("previous_token", "previous"),
        ("duplicate_token", "duplicate"),
        ("induction", "induction"),
        ("iteration", "iteration"),
        ("retrieval", "retrieval"),
    ],
)
def test_planted_heads_are_found_first(name, job, reference):
    heads = detect(reference, name)
    found = ranking(heads, flagged=True)
    assert planted(job), "the card names no such head"
    assert planted(job) <= set(found[: len(planted(job)) + 2]), found[:5]


@pytest.mark.parametrize("task", ["parity", "copy"])
def test_the_iteration_head_is_at_the_right_input_whatever_the_number_of_steps(task, reference):
    options = {"n": 28, "seed": 0, "batch_size": 8, "quiet": True, "parts": None}
    scores = raw_scores(reference, ["iteration"], task=task, **options)["iteration"]
    assert set(scores["by_step"].notnull().any(("layer", "head")).sum("step").values) == set(
        range(3, 17)
    )
    by_step = scores["by_step"].sel(layer=2, head=0).mean("batch")
    assert float(by_step.min()) > 0.95 and float(scores["accuracy"].min()) == 1
    heads = calibrated(scores)
    assert float(heads["mass"].sel(layer=2, head=0)) > 0.995 and ranking(heads, flagged=True) == [
        (2, 0)
    ]


def test_one_forward_per_batch_serves_all_types_of_a_stimulus(reference, monkeypatch):
    from nnheads.spans import measure as attention

    calls = []
    real = attention.measure_spans
    monkeypatch.setattr(
        attention, "measure_spans", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    names = [one.name for one in head_types("all") if one.stimulus == "repeated"]
    assert len(names) >= 5
    raw_scores(reference, names, n=8, seed=0, batch_size=4, quiet=True, parts=None, length=20)
    assert len(calls) == 2


@pytest.mark.parametrize(("model_type", "sharp"), [("llama", 1), ("gpt2", 1), ("llama", 100)])
def test_random_weights_raise_few_alarms(model_type, sharp):
    """Untrained models, also with queries and keys so large that each row has one strong key: at
    most 5% of heads are flagged, for each type."""
    from transformers import AutoModelForCausalLM

    # the others read what a model wrote, and untrained ones answer nothing
    names = [one.name for one in head_types("all") if one.of_answers is None]
    alarms: dict[str, list[float]] = {}
    for seed in range(MODELS):
        torch.manual_seed(seed)
        module = AutoModelForCausalLM.from_config(config(model_type)).eval().requires_grad_(False)
        for name, parameter in module.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(sharp)
        rename = FAMILIES[model_type].rename()
        model = TransformersModel(module, tokenizer=words_tokenizer(), rename=rename)
        small = {"n": 8, "batch_size": 8, "length": 25, "lengths": [60]}
        for name, scores in raw_scores(
            model, names, seed=seed, quiet=True, parts=None, **small
        ).items():
            alarms.setdefault(name, []).append(float(calibrated(scores, seed=seed)["flag"].mean()))
    assert {len(shares) for shares in alarms.values()} == {MODELS}
    assert all(np.mean(shares) <= 0.05 for shares in alarms.values()), alarms


def test_a_pure_sink_is_only_a_sink():
    """Keys that grow towards the first token: every head rests there."""
    module = tiny("gpt2")[1]
    import copy

    sink = copy.deepcopy(module)
    for block in sink.transformer.h:
        width = block.attn.embed_dim
        block.attn.c_attn.weight[:, : 2 * width] = 0
        block.attn.c_attn.bias[: 2 * width] = 0
        # queries are constant; keys read one direction that only the first position has
        block.attn.c_attn.bias[:width] = 10.0
        block.attn.c_attn.weight[0, width : 2 * width] = 5.0
    sink.transformer.wpe.weight[:] = 0
    sink.transformer.wpe.weight[0, 0] = 50.0
    sink.transformer.wte.weight[:, 0] = 0
    for block in sink.transformer.h:
        block.attn.c_proj.weight[:] = 0
        block.mlp.c_proj.weight[:] = 0
        block.attn.c_proj.bias[:] = 0
        block.mlp.c_proj.bias[:] = 0
        block.ln_1.weight[:] = 1
        block.ln_1.bias[:] = 0
    model = TransformersModel(sink, tokenizer=words_tokenizer(), rename=FAMILIES["gpt2"].rename())
    found = detect(model, "all", n=8, length=20, lengths=[60])
    assert float(found["attention_sink"]["mass"].min()) > 0.99
    assert bool(found.pop("attention_sink")["flag"].all())
    for name, heads in found.items():
        assert not heads["flag"].any(), name


def test_detect_heads_ranks_and_saves(tmp_path):
    ranked = detect_heads("reference", "duplicate", tmp_path, n=4, length=20)
    assert len(ranked) == 32 and len(set(ranked)) == 32 and isinstance(ranked[0][0], int)
    assert (tmp_path / "duplicate_token.nc").exists()
    every = detect_heads("reference", "all", n=4)
    assert set(every) == set(types())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("zigzag", {}), "'zigzag'.*attention_sink"),
        (("induction", {"steps": 3}), "induction: 'steps'.*length"),
        (("induction", {"n": 0}), "0 prompts were asked for"),
        (("induction", {"length": 1}), "1 tokens are too short to repeat"),
        (
            ("induction", {"length": 10**6}),
            "ordinary tokens; 1000000 different ones cannot be drawn",
        ),
        (("iteration", {"task": "sorting"}), "'sorting'.*copy"),
        (("iteration", {"steps": 2}), "2 steps are too few"),
        (
            ("retrieval", {"lengths": [10]}),
            "10 tokens cannot hold needle, question and answer",
        ),
        (("retrieval", {"haystack": "/no/such"}), "no folder '/no/such'"),
    ],
)
def test_what_cannot_be_detected_is_refused(arguments, message, reference):
    name, options = arguments
    with pytest.raises(BadInput, match=message):
        detect(reference, name, **options)


def test_aliases():
    assert (
        canonical("duplicate") == "duplicate_token"
        and canonical("Previous-Token") == "previous_token"
    )


def test_raw_scores_are_asked_for_as_detect_is(reference):
    """What `detect` calibrates, with nothing but a type given."""
    raw = raw_scores(reference, ["induction"])["induction"]
    assert raw.sizes["batch"] == 32
    np.testing.assert_array_equal(calibrated(raw)["mass"], detect(reference, "induction")["mass"])


def test_types_whose_words_a_tokenizer_lacks_are_left_out_of_several(monkeypatch):
    """A tokenizer that splits every name and every code word still shows the other types."""
    from nnheads.detectors._stimulus import left_out, prepare
    from nnheads.errors import Untypable

    model, _ = tiny("llama")
    monkeypatch.setattr(model, "tokenizer", byte_tokenizer(("a",)))
    names = ["induction", "indirect_object", "retrieval"]
    measured = [one.name for each in prepare(model, names, n=2, seed=0) for one in each.head_types]
    assert measured == ["induction"]
    why = left_out(model, names, measured)
    assert set(why) == {"indirect_object", "retrieval"}
    assert all("single tokens of this tokenizer" in reason for reason in why.values())
    with pytest.raises(Untypable, match="single tokens of this tokenizer"):
        prepare(model, ["retrieval"], n=2, seed=0)


def test_types_that_are_longer_than_the_model_reads_are_left_out_of_several():
    from nnheads.detectors._stimulus import left_out, prepare

    model, _ = tiny("llama")  # reads 128 tokens
    names = ["induction", "retrieval"]
    measured = [one.name for each in prepare(model, names, n=2, seed=0) for one in each.head_types]
    assert measured == ["induction"]
    assert "this model reads" in left_out(model, names, measured)["retrieval"]
    with pytest.raises(BadInput, match="reads at most 128"):
        prepare(model, ["retrieval"], n=2, seed=0)
