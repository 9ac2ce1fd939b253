"""Sites mean what the table of sites says, in every family."""

from __future__ import annotations

import numpy as np
import pytest
from random_models import tiny

from nnheads.interventions.apply import run
from nnheads.interventions.operations import Collect
from nnheads.interventions.schema import Edit, Intervention
from nnheads.interventions.texts import padded as as_prompts

LAYER = 1
PARTS = ("resid_pre", "attn_out", "mlp_out", "resid_post")


@pytest.fixture
def prompts(padded):
    ids, mask, _ = padded
    return [row[keep.bool()].tolist() for row, keep in zip(ids, mask)]


def test_what_attention_and_mlp_add_is_the_step_of_the_residual_stream(model_type, prompts):
    """Behind norms of their own where a family has them: `what attention adds` is added."""
    model, _ = tiny(model_type)
    dataset = as_prompts(model.tokenizer, prompts)
    edits = [Edit(site, Collect(key=site), layer=LAYER) for site in PARTS]
    found = run(model, Intervention(*edits), dataset).collected
    before, attention, mlp, after = (np.asarray(found[site]) for site in PARTS)
    np.testing.assert_allclose(before + attention + mlp, after, rtol=1e-4, atol=1e-4)
    assert np.abs(attention).max() > 1e-3 and np.abs(mlp).max() > 1e-3, "nothing is added"
