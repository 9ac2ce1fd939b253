"""Rows that are derived from models, and proofs that fail where a model is not what they say."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from random_models import words_tokenizer
from transformers import AutoConfig

from nnheads.errors import ModelError
from nnheads.models import proven
from nnheads.models.derive import Underivable, derived
from nnheads.models.families import FAMILIES, learn
from nnheads.models.proof import SAYS, proof
from nnheads.models.proven import built, examined, told_of, types, usual
from nnheads.models.small import HEADS, LAYERS, WINDOW, small

# of the table, one of each make: what is derived must be what is written there
WRITTEN = ("llama", "gpt2", "gemma2", "olmo2", "cohere", "gpt_neox", "mixtral", "phi")
NEW = ("olmo3", "glm4", "ministral3", "exaone4", "seed_oss", "arcee", "ernie4_5", "phimoe")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("NNHEADS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_row_is_derived_as_it_is_written(kind):
    row, written = derived(built(usual(kind))), FAMILIES[kind]
    for name in ("layers", "attention", "projection", "mlp", "embedding", "final_norm"):
        assert getattr(row, name) == getattr(written, name)
    for name in ("unembedding", "neurons", "post_norm", "tuple_block", "position_ids"):
        assert getattr(row, name) == getattr(written, name)
    assert (row.attention_adds or row.attention) == (written.attention_adds or written.attention)
    assert (row.mlp_adds or row.mlp) == (written.mlp_adds or written.mlp)


@pytest.mark.parametrize("kind", [*sorted(FAMILIES), *NEW])
def test_families_of_the_table_and_others_are_proven(kind):
    told = examined(usual(kind))
    assert told.refusal == "" and [line.check for line in told.lines] == list(SAYS)
    assert all(line.failure == "" for line in told.lines)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("mamba", "no attention goes through"),
        ("qwen3_next", "only 2 of 8 blocks attend"),
        ("bert", "whose sum is a block's step"),
        ("hrm_text", "in several lists of blocks"),
        ("diffllama", "attends more than once"),
        ("granite_swa", "attention rows computed again are its eager weights"),
        ("mimo_v2_flash", "has 4 key/value heads, not 2"),
        ("blt", "its small copy still has"),
        ("whisper", "its small copy cannot be built and run"),
    ],
)
def test_what_cannot_be_used_is_said_why(kind, reason):
    assert reason in examined(usual(kind)).refusal


def test_a_type_whose_usual_configuration_contradicts_itself_is_named():
    with pytest.raises(ModelError, match="no usual configuration"):
        usual("gemma4_assistant")
    assert {"llama", "mamba", "gemma4_assistant"} <= set(types())


def test_a_residual_multiplier_is_not_taken_for_a_sum():
    config = AutoConfig.for_model("granite", residual_multiplier=0.22)
    assert "whose sum is a block's step" in examined(config).refusal
    assert examined(AutoConfig.for_model("granite")).refusal == "", "it multiplies by 1"


def changed(kind: str, change) -> dict[str, str]:
    """How the proof of a family fails whose small model was changed by hand: check -> how."""
    module, row = built(usual(kind)), FAMILIES[kind]
    for block in module.get_submodule(row.layers):
        change(block)
    return {line.check: line.failure for line in proof(module, row, words_tokenizer())}


def scaled(part, by: float):
    """The module with another output."""
    part.register_forward_hook(lambda _, given, output: output * by)


def test_a_doubled_residual_fails_where_the_stream_adds_up():
    def doubled(block):
        block.register_forward_hook(lambda _, given, output: output + given[0])

    failed = changed("llama", doubled)
    assert failed["adds_up"].startswith("block 0: the stream") and not failed["through_slices"]


def test_a_scale_behind_the_projection_fails_at_its_slices():
    failed = changed("llama", lambda block: scaled(block.self_attn.o_proj, 0.5))
    assert failed["through_slices"].startswith("block 0: heads through W_O")
    assert not failed["side_by_side"] and not failed["adds_up"]


def test_heads_in_another_order_fail_where_they_should_stand_side_by_side():
    def turned(block):
        def turn(_, given):
            z = given[0].unflatten(-1, (HEADS, -1)).flip(-2).flatten(-2)
            return (z, *given[1:])

        block.self_attn.o_proj.register_forward_pre_hook(turn)

    assert changed("llama", turned)["side_by_side"].startswith("block 0: values weighed by")


def test_a_row_that_points_elsewhere_fails():
    module = built(usual("olmo3"))
    wrong = dataclasses.replace(derived(module), attention_adds=None)  # forgets the norm behind it
    learn(module.config, wrong)
    failed = {one.check: one.failure for one in proof(module, wrong, words_tokenizer())}
    assert failed["adds_up"].startswith("block 0: the stream with both parts added")
    assert not failed["written_back"]


def test_a_block_whose_step_is_no_sum_is_not_derived():
    module = built(usual("llama"))
    module.model.layers[1].register_forward_hook(lambda _, given, output: output * 2)
    with pytest.raises(Underivable, match="whose sum is a block's step"):
        derived(module)


def test_a_proof_is_kept_and_made_again_of_what_cannot_be_read(cache, monkeypatch):
    told = told_of(usual("olmo3"))
    (path,) = (cache / "families").iterdir()
    assert path.name.startswith("olmo3-") and told.row.attention == "self_attn"
    monkeypatch.setattr(proven, "examined", lambda config: pytest.fail("it was proven before"))
    assert told_of(usual("olmo3")) == told
    other = json.loads(path.read_text()) | {"row": {"layers": 1, "banana": 2}}
    path.write_text(json.dumps(other))
    with pytest.raises(pytest.fail.Exception):
        told_of(usual("olmo3"))


def test_another_configuration_of_a_family_has_a_proof_of_its_own(cache):
    told_of(usual("olmo3"))
    config = AutoConfig.for_model("olmo3", attention_bias=True)
    told_of(config)
    assert len(list((cache / "families").iterdir())) == 2


def test_a_small_configuration_keeps_what_decides_how_a_block_computes():
    config = AutoConfig.for_model("gemma2", final_logit_softcapping=7.0)
    made = small(config)
    assert (made.num_hidden_layers, made.num_attention_heads) == (LAYERS, HEADS)
    assert made.num_key_value_heads == 2 and made.sliding_window == WINDOW
    assert made.final_logit_softcapping == 7.0 and len(made.layer_types) == LAYERS
    assert config.num_hidden_layers == 26, "the configuration itself is left alone"
    assert small(AutoConfig.for_model("gpt_bigcode")).multi_query is True


def test_layers_of_every_kind_are_kept():
    kinds = ["full_attention"] * 9 + ["sliding_attention"] * 11
    config = AutoConfig.for_model("olmo3", num_hidden_layers=20, layer_types=kinds)
    assert small(config).layer_types == kinds[:10]


def test_making_a_small_model_leaves_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    built(usual("llama"))
    assert torch.equal(torch.rand(2), expected)
