"""Attention rows under the model's own implementation against eager `output_attentions`."""

from __future__ import annotations

import oracle
import pytest
import torch
from nnsight import save
from random_models import build, tiny

from nnheads.models.families import FAMILIES
from nnheads.trace.rows import read_rows, rows_of


def eager_patterns(model_type: str, given: dict) -> torch.Tensor:
    """[layer, batch, head, query, key] from transformers itself."""
    with torch.no_grad():
        return torch.stack(
            build(model_type, attention="eager")(
                **given, use_cache=False, output_attentions=True
            ).attentions
        )


@pytest.mark.parametrize("rows", [slice(None), slice(-2, None)])
def test_rows_equal_eager_attention(model_type, rows, padded):
    model, _ = tiny(model_type)
    ids, mask, length = padded
    given = oracle.fed(model_type, ids, mask)
    interface = FAMILIES[model_type].interface
    with torch.no_grad(), model.trace(**given, use_cache=False):
        seen = save(torch.stack([read_rows(layer, interface, rows) for layer in model.layers]))
    plain = eager_patterns(model_type, given)[:, :, :, rows]
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen[:, 0], plain[:, 0].float(), atol=1e-5, rtol=0)
    real = (
        slice(-length, None) if rows == slice(None) else slice(None)
    )  # rows of padding mean nothing
    torch.testing.assert_close(seen[:, 1, :, real], plain[:, 1, :, real].float(), atol=1e-5, rtol=0)


def test_rows_without_padding_need_no_mask(model_type):
    model, _ = tiny(model_type)
    ids = torch.arange(10, 19)[None]
    given = oracle.fed(model_type, ids, torch.ones_like(ids))
    del given["attention_mask"]
    interface = FAMILIES[model_type].interface
    with torch.no_grad(), model.trace(**given, use_cache=False):
        seen = save(torch.stack([read_rows(layer, interface) for layer in model.layers]))
    torch.testing.assert_close(seen, eager_patterns(model_type, given).float(), atol=1e-5, rtol=0)


def test_sinks_take_their_share():
    query = key = torch.zeros(1, 1, 2, 4)
    rows = rows_of(query, key, None, {"scaling": 1.0, "s_aux": torch.zeros(1)})
    torch.testing.assert_close(rows[0, 0], torch.tensor([[1 / 2, 0.0], [1 / 3, 1 / 3]]))


def test_soft_cap_bounds_the_scores():
    query, key = torch.full((1, 1, 2, 1), 100.0), torch.tensor([1.0, -1.0]).reshape(1, 1, 2, 1)
    rows = rows_of(query, key, None, {"scaling": 1.0, "softcap": 1.0})
    torch.testing.assert_close(rows[0, 0, 1], torch.tensor([1.0, -1.0]).softmax(0))


def test_grouped_keys_serve_their_own_query_heads():
    key = torch.tensor(
        [[[[0.0], [5.0]], [[5.0], [0.0]]]]
    )  # kv head 0 prefers key 1, kv head 1 key 0
    rows = rows_of(torch.ones(1, 4, 2, 1), key, None, {"scaling": 1.0})[0, :, 1]
    assert rows.argmax(-1).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("window", [None, 3])
def test_what_flash_attention_is_given_means_the_same_as_a_full_mask(window):
    """Padding as [batch, key] or nothing, and the window as an option, against the mask written
    out.
    """
    generator = torch.Generator().manual_seed(2)
    query, key = (
        torch.randn(2, 4, 5, 8, generator=generator),
        torch.randn(2, 2, 7, 8, generator=generator),
    )
    padding = torch.ones(2, 7, dtype=torch.long)
    padding[1, :2] = 0
    place, keys = torch.arange(2, 7)[:, None], torch.arange(7)
    allowed = (keys <= place) & ((place - keys < window) if window else True)
    for mask in (padding, None):
        full = (
            allowed.expand(2, 1, 5, 7)
            if mask is None
            else allowed & padding[:, None, None, :].bool()
        )
        ours = rows_of(query, key, mask, {"sliding_window": window})
        torch.testing.assert_close(ours, rows_of(query, key, full, {}), atol=1e-6, rtol=0)
        seen = full.expand_as(ours).any(-1)
        torch.testing.assert_close(ours.sum(-1)[seen], torch.ones_like(ours.sum(-1)[seen]))
