"""The shipped model keeps what its card promises, and the check that says so can fail."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from nnheads.models.shipped import FOLDER as PATH
from nnheads.prompts import world
from nnheads.prompts import world_words as words
from nnheads.prompts.ioi_words import HELD_OUT_NAMES, HELD_OUT_TEMPLATES, NAMES, TEMPLATES
from nnheads.reference import check, documents, untrained
from nnheads.reference.check import measure
from nnheads.reference.scaffold import INDUCTION, PLANTED

SEEDS = st.integers(0, 2**32 - 1)
GENERATORS = {
    "indirect_object": documents.indirect_object,
    "quiz": documents.quiz,
    "testimony": documents.testimony,
    "iteration": documents.iteration,
    "mirror": documents.mirror,
    "seen_list": documents.seen_list,
    "repeats": lambda rng: documents.repeats(rng, 96),
    "needle": lambda rng: documents.needle(rng, 128),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(PATH)


def load() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(PATH)


def test_folder_is_complete_and_small():
    names = {file.name for file in PATH.iterdir()}
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert wanted | {"generation_config.json", "heads.json", "README.md"} <= names
    assert (PATH / "model.safetensors").stat().st_size < 6e6
    assert sum(file.stat().st_size for file in PATH.iterdir()) < 12e6


def test_config_is_what_generic_code_needs():
    config = load().config
    assert config.head_dim != config.hidden_size // config.num_attention_heads
    assert config.num_key_value_heads < config.num_attention_heads
    assert None not in (config.bos_token_id, config.eos_token_id, config.pad_token_id)
    assert config.vocab_size == len(world.vocabulary())


def test_tokenizer_reads_ordinary_text_with_offsets(tokenizer):
    text = "When Mary and John went to the market, John gave the book to"
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert tokenizer.unk_token_id not in encoded.input_ids
    assert encoded.input_ids[0] == tokenizer.bos_token_id
    pieces = [text[start:stop] for start, stop in encoded.offset_mapping]
    assert pieces[1:] == tokenizer.convert_ids_to_tokens(encoded.input_ids)[1:]
    assert tokenizer.decode(encoded.input_ids, skip_special_tokens=True) == text


def test_unknown_words_are_unknown_and_marks_stand_alone(tokenizer):
    assert tokenizer.tokenize("the zyzzyva?!") == ["the", "<unk>", "?", "!"]


def test_saved_tokenizer_is_the_one_of_the_world(tokenizer):
    assert tokenizer.get_vocab() == world.build_tokenizer().get_vocab() == world.token_ids()


@given(st.lists(st.sampled_from(range(len(words.SPECIAL), len(world.vocabulary()))), min_size=1))
@settings(max_examples=50, deadline=None)
def test_tokens_survive_decoding(ids):
    tokenizer = world.build_tokenizer()
    assert tokenizer(tokenizer.decode(ids)).input_ids == [tokenizer.bos_token_id, *ids]


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_facts_are_a_full_table_with_four_different_choices(seed):
    found = world.questions(seed)
    assert len(found) == 200
    assert len({(question.relation, question.subject) for question in found}) == 200
    for question in found:
        assert len(set(question.choices)) == 4
        assert set(question.choices) <= set(words.RELATIONS[question.relation])
        assert question.text.split() == world.question_words(question.relation, question.subject)
    assert 20 <= sum(question.truth_is_popular for question in found) <= 75


@given(SEEDS, st.integers(0, 300))
@settings(max_examples=50, deadline=None)
def test_filler_has_the_length_asked_for_and_only_known_words(seed, length):
    text = world.filler(random.Random(seed), length)
    assert len(text) == length
    assert set(text) <= set(world.vocabulary())
    assert not text or text[-1] == "."


@given(SEEDS, st.integers(80, 500), st.floats(0, 1), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_needle_document_holds_its_answer(seed, length, depth, needles):
    text, question, answer = world.needle_document(random.Random(seed), length, depth, needles)
    assert 1 + len(text) + len(question) + len(answer) == length
    start = world.needle_start(text, question[-2])
    assert text[start : start + len(answer)] == answer


def test_needle_document_says_how_much_room_it_needs():
    with pytest.raises(ValueError, match="4 needles need 52 tokens, got length=40"):
        world.needle_document(random.Random(0), 40, 0.5, 4)


@pytest.mark.parametrize("name", GENERATORS)
@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_documents_are_decided_by_their_seed(name, seed):
    one, other = (GENERATORS[name](random.Random(seed)) for _ in range(2))
    assert one == other
    assert len(one.tokens) == len(one.weights)
    assert all(0 <= key <= query < len(one.tokens) - 1 for _, query, key in one.spans)


def test_held_out_words_never_occur_in_the_indirect_object_task():
    rng = random.Random(0)
    held_out = {world.token_ids()[NAMES[index]] for index in HELD_OUT_NAMES}
    for _ in range(300):
        document = documents.indirect_object(rng)
        receiver = next(
            t for t, weight in zip(document.tokens, document.weights, strict=True) if weight == 1
        )
        assert receiver not in held_out
    assert len(documents.TRAINED_FRAMES) == len(TEMPLATES) - len(HELD_OUT_TEMPLATES)


def test_every_claim_of_the_card_holds():
    failed = [claim for claim in measure(PATH, quick=True) if not claim.passed]
    assert not failed


def test_check_fails_on_a_model_without_its_induction_layer(monkeypatch):
    for name in ("_retrieval", "_iteration", "_truth", "_probes", "_negatives", "_indirect_object"):
        monkeypatch.setattr(check, name, lambda *_: [])
    model = load()
    with torch.no_grad():
        model.model.layers[INDUCTION[0][0]].self_attn.o_proj.weight.zero_()
    before = model.config._attn_implementation
    failed = {claim.name.split(",")[0] for claim in measure(model, quick=True) if not claim.passed}
    assert "copying 50 random tokens" in failed
    # The patterns of the layers before are untouched.
    assert "previous-token head L0H0" not in failed
    assert model.config._attn_implementation == before


def test_list_of_heads_names_every_planted_head():
    listed = json.loads((PATH / "heads.json").read_text())
    planted = {
        (entry["layer"], entry["head"]): entry["job"] for entry in listed if entry["planted"]
    }
    assert planted == PLANTED


def test_generation_answers_a_needle_question(tokenizer):
    text, question, answer = world.needle_document(random.Random(1), 150, 0.5)
    inputs = tokenizer(" ".join(text + question), return_tensors="pt")
    output = load().generate(**inputs, max_new_tokens=len(answer))
    assert tokenizer.decode(output[0, inputs.input_ids.shape[1] :]) == " ".join(answer)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_model_is_written_without_a_word(kind, tmp_path, capfd):
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        untrained.write(untrained.initial_model(0), kind(tmp_path / "new"))
        assert logging.is_progress_bar_enabled(), "the caller's own bars stay"
    finally:
        (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
    assert capfd.readouterr() == ("", "")
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    torch.testing.assert_close(fresh.state_dict(), untrained.initial_model(0).state_dict())
