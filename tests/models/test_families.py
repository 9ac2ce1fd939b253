"""Contract of every family: reads, writes and their effect on the logits equal plain hooks."""

from __future__ import annotations

import oracle
import pytest
import torch
from nnsight import save
from random_models import CONFIGS, VOCABULARY, config, tiny
from transformers import AutoConfig

from nnheads.errors import ModelError
from nnheads.models.families import FAMILIES, Family, family_of
from nnheads.models.geometry import geometry
from nnheads.trace.blocks import read_z, split_heads, start_at

REQUIRED = """
gpt2 gpt_neo gptj gpt_neox opt bloom falcon llama mistral mixtral qwen2 qwen3 gemma gemma2
gemma3_text phi phi3 olmo2 starcoder2 stablelm cohere gpt_oss gpt_bigcode
""".split()


def test_the_table_has_every_family_that_was_promised():
    assert set(REQUIRED) <= set(FAMILIES) == set(CONFIGS)


def test_unknown_family_is_refused_by_name_and_lists_the_known():
    with pytest.raises(ModelError, match=r"'mamba' is not known.*bloom.*qwen3"):
        family_of(AutoConfig.for_model("mamba"))


def test_geometry_is_measured_on_the_modules(model_type):
    model, _ = tiny(model_type)
    sizes, made = geometry(model), CONFIGS[model_type]
    assert (sizes.layers, sizes.heads, sizes.vocabulary) == (3, 4, VOCABULARY)
    assert sizes.head_dim == made.get("head_dim", sizes.d_model // 4)
    if made.get("multi_query"):
        assert sizes.kv_heads == 1
    else:
        assert sizes.kv_heads == made.get("num_key_value_heads", made.get("num_kv_heads", 4))


def test_old_falcon_shares_one_key_value_head():
    from nnheads.models.geometry import _kv_heads

    assert _kv_heads(config("falcon", new_decoder_architecture=False, multi_query=True), 4) == 1


def test_reading_z_equals_a_plain_hook(model_type, padded):
    model, module = tiny(model_type)
    ids, mask, _ = padded
    given = oracle.fed(model_type, ids, mask)
    with torch.no_grad(), model.trace(**given, use_cache=False):
        z = save(torch.stack([read_z(layer, 4) for layer in model.layers]))
        logits = model.output.logits[:, -1].save()
    for layer in range(3):
        plain = split_heads(oracle.value_at(module, model_type, given, layer, "z"), 4)
        torch.testing.assert_close(z[layer], plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits.float(), oracle.end_logits(module, given), atol=1e-5, rtol=0)


def test_writing_z_in_place_equals_a_plain_hook(model_type, padded):
    model, module = tiny(model_type)
    ids, mask, _ = padded
    given = oracle.fed(model_type, ids, mask)

    def zero(value):
        changed = value.clone()
        split_heads(changed, 4)[:, :, 2] = 0
        return changed

    before = oracle.end_logits(module, given)
    for layer in range(3):
        with torch.no_grad(), model.trace(**given, use_cache=False):
            read_z(model.layers[layer], 4)[:, :, 2] = 0
            logits = model.output.logits[:, -1].save()
        with oracle.hooked(module, model_type, layer, "z", zero):
            plain = oracle.end_logits(module, given)
        torch.testing.assert_close(logits.float(), plain, atol=1e-5, rtol=0)
        assert (plain - before).abs().max() > 1e-3, (
            "the head must matter, or the comparison says nothing"
        )


def test_starting_at_a_layer_changes_nothing(model_type, padded):
    model, module = tiny(model_type)
    ids, mask, _ = padded
    given = oracle.fed(model_type, ids, mask)
    residual = oracle.value_at(module, model_type, given, 2, "resid_pre")
    with torch.no_grad(), model.trace(**given, use_cache=False, logits_to_keep=1):
        start_at(model, 2, residual, FAMILIES[model_type].tuple_block)
        logits = model.output.logits[:, -1].save()
    torch.testing.assert_close(logits.float(), oracle.end_logits(module, given), atol=1e-5, rtol=0)


def test_left_padding_moves_no_number(model_type, padded):
    model, _ = tiny(model_type)
    ids, mask, length = padded
    together = oracle.fed(model_type, ids, mask)
    alone = oracle.fed(model_type, ids[1:, -length:], mask[1:, -length:])
    seen = []
    for given in (together, alone):
        with torch.no_grad(), model.trace(**given, use_cache=False):
            z = save(torch.stack([read_z(layer, 4) for layer in model.layers]))
            logits = model.output.logits[:, -1].save()
        seen.append((z[:, -1, -length:], logits[-1]))
    for padded_value, plain_value in zip(*seen):
        torch.testing.assert_close(padded_value, plain_value, atol=1e-5, rtol=0)


def test_rename_binds_every_name(model_type):
    model, _ = tiny(model_type)
    for name in ("layers", "embedding", "final_norm", "unembedding"):
        assert getattr(model, name) is not None
    for name in ("attention", "mlp"):
        assert getattr(model.layers[0], name) is not None
    assert model.layers[0].attention.projection is not None


def test_rename_leaves_out_names_that_already_fit():
    row = Family(
        layers="layers", attention="attention", projection="attention.projection", mlp="mlp"
    )
    assert set(row.rename().values()) == {"embedding", "final_norm", "unembedding"}
