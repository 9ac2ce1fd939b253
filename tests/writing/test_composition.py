"""Composition scores against full d_model x d_model products of weights, and the planted induction
circuit.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_models import placed, tiny
from uneven import gain, output_weight, uneven

import nnheads
from nnheads.errors import BadInput
from nnheads.writing.composition import composition_scores, random_composition, strongest


def llama_maps(block) -> tuple:
    """Query, key, value rows by head [head, d_model, dim] of a block with separate, grouped
    projections.
    """
    attention = block.self_attn
    query, key, value = (
        getattr(attention, f"{name}_proj").weight.T.unflatten(1, (-1, 16)) for name in "qkv"
    )
    grouped = [
        part.transpose(0, 1).repeat_interleave(4 // part.shape[1], 0)
        for part in (query, key, value)
    ]
    return *grouped, block.input_layernorm, attention.o_proj


def gpt2_maps(block) -> tuple:
    parts = block.attn.c_attn.weight.split(48, dim=1)
    return (
        *(part.unflatten(1, (4, 12)).transpose(0, 1) for part in parts),
        block.ln_1,
        block.attn.c_proj,
    )


def neox_maps(block) -> tuple:
    fused = block.attention.query_key_value.weight.T.unflatten(1, (4, 3, 12))
    parts = fused.permute(2, 1, 0, 3).unbind(0)
    return *parts, block.input_layernorm, block.attention.dense


FAMILIES = {
    "llama": (llama_maps, lambda module: module.model.layers),
    "gemma2": (llama_maps, lambda module: module.model.layers),
    "gpt2": (gpt2_maps, lambda module: module.transformer.h),
    "gpt_neox": (neox_maps, lambda module: module.gpt_neox.layers),
}


def whole_matrices(model_type: str, module, kind: str):
    """W_OV and what reads it of every layer, [layer, head, d_model, d_model], rows in and columns
    out.
    """
    writes, reads = [], []
    maps, blocks = FAMILIES[model_type]
    for block in blocks(module):
        query, key, value, norm, projection = maps(block)
        fold = torch.diag(gain(norm))
        if "RMS" not in type(norm).__name__:
            fold = (torch.eye(48) - 1 / 48) @ fold
        out = output_weight(projection).unflatten(0, (4, -1))
        if model_type == "gemma2":
            out = out @ torch.diag(gain(block.post_attention_layernorm))
        query, key, value = fold @ query, fold @ key, fold @ value
        writes.append(value @ out)
        reads.append({"q": query @ key.mT, "k": key @ query.mT, "v": value @ out}[kind])
    return torch.stack(writes), torch.stack(reads)


@pytest.mark.parametrize("kind", ["q", "k", "v"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_scores_are_those_of_the_whole_matrices(model_type, kind):
    model, module = uneven(model_type)
    found = composition_scores(model, kind)["composition"]
    with torch.no_grad():
        writes, reads = whole_matrices(model_type, module, kind)
        for low in range(3):
            for high in range(3):
                product = (writes[low][:, None] @ reads[high][None]).norm(dim=(2, 3))
                plain = (
                    product / writes[low].norm(dim=(1, 2))[:, None] / reads[high].norm(dim=(1, 2))
                )
                plain = plain if low < high else torch.zeros_like(plain)
                np.testing.assert_allclose(
                    found.sel(layer=low, to_layer=high), plain, rtol=2e-3, atol=1e-6
                )


def test_every_family_composes_through_values(model_type):
    model, _ = tiny(model_type)
    here = composition_scores(model, "v")
    later = here["composition"].where(here["to_layer"] > here["layer"])
    assert (later.notnull().sum() == 48) and float(later.min()) > 0
    # random heads compose as random heads do
    assert float(later.mean()) == pytest.approx(float(here["null"]), rel=0.12)


def test_rehearsed_remotely_gives_the_same_scores(model_type):
    model, _ = tiny(model_type)
    here, there = composition_scores(model, "v"), placed("local", composition_scores)(model, "v")
    np.testing.assert_allclose(there["composition"], here["composition"], atol=1e-6)


def test_the_planted_induction_circuit_is_the_strongest_through_keys():
    """The previous-token head was planted to be read by the keys of the two induction heads."""
    scores = composition_scores(nnheads.load("reference"), "k")
    pairs = [
        (pair["layer"], pair["head"], pair["to_layer"], pair["to_head"])
        for pair in strongest(scores, 2)
    ]
    assert set(pairs) == {(0, 0, 1, 0), (0, 0, 1, 1)}
    assert strongest(scores, 1)[0]["value"] > 2 * float(scores["null_high"])


def test_random_heads_score_one_over_the_root_of_the_width():
    """A head that is turned at random within the stream has mean square 1 / d_model, whatever it
    is.
    """
    found = random_composition(96, 8, seed=0)
    assert float(found.pow(2).mean()) == pytest.approx(1 / 96, rel=0.05)
    assert torch.equal(found, random_composition(96, 8, seed=0))


@pytest.mark.parametrize("model_type", ["qwen3", "gemma3_text", "olmo2"])
def test_normed_queries_are_refused(model_type):
    model, _ = tiny(model_type)
    for kind in "qk":
        with pytest.raises(
            BadInput,
            match=rf"{model_type} model norms its queries and keys \(.*norm\).*kind v",
        ):
            composition_scores(model, kind)


def test_unknown_kinds_are_refused():
    with pytest.raises(BadInput, match=r"'z'\. Use one of q, k, v"):
        composition_scores(tiny("llama")[0], "z")
