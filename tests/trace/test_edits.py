"""The applier against the sweep engine and against plain hooks, on every family and site."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from random_models import APART, tiny
from swaps import ANSWERS, pairs, runs

from nnheads.interventions import Add, Edit, Interchange, Intervention, Scale, Zero, index
from nnheads.interventions.apply import run
from nnheads.models.families import FAMILIES
from nnheads.patching.patch import patch
from nnheads.patching.prepared import units
from nnheads.trace.sites import SWEPT, UNITS

PLAIN = ("resid_pre", "attn_in", "z", "attn_out", "mlp_in", "mlp_hidden", "mlp_out", "resid_post")


@pytest.mark.parametrize("model_type", APART)
@pytest.mark.parametrize("site", SWEPT)
def test_interchange_equals_the_sweep(model_type, site, padded):
    model, _ = tiny(model_type)
    prompts = pairs(padded)
    swept = patch(model, prompts, site=site, layers=[1], by_position=True, gap=0.0)[
        "logit_difference"
    ]
    clean, corrupted = prompts, prompts.assign(token=prompts["corrupted"])
    unit = units(model, site) - 1
    chosen = (unit,) if site in UNITS else None
    for position in (-4, -1):
        edit = Edit(site, Interchange(), layer=1, units=chosen, at=index(position))
        logits = run(model, Intervention(edit), corrupted, [clean], original=False, keep=1).edited[
            :, -1
        ]
        own = logits.gather(-1, ANSWERS)
        expected = swept.isel(layer=0, position=9 + position)
        expected = expected.isel({UNITS[site]: unit}) if site in UNITS else expected
        np.testing.assert_allclose(own[:, 0] - own[:, 1], expected, atol=2e-5)


def hooked_logits(
    module, model_type: str, site: str, layer: int, given: dict, change
) -> torch.Tensor:
    with torch.no_grad(), oracle.hooked(module, model_type, layer, site, change):
        return module(**given, use_cache=False).logits.float()


@pytest.mark.parametrize("site", PLAIN)
def test_edits_of_features_equal_plain_hooks(model_type, site, padded):
    """One feature of the site is moved, at the second token of each prompt and at the last."""
    if site == "mlp_hidden" and FAMILIES[model_type].neurons is None:
        model_type = "llama"
    model, module = tiny(model_type)
    prompts = pairs(padded)
    _, given = runs(model_type, prompts)
    places = [[1, 8], [5, 8]]  # in padded positions
    unit, feature = (2, 5) if site == "z" else (None, 7)

    def change(value):
        value = value.clone()
        flat = value.view(2, 9, -1)
        for row, own in enumerate(places):
            for place in own:
                at = feature if unit is None else unit * (flat.shape[-1] // 4) + feature
                flat[row, place, at] = 3 * flat[row, place, at] + 0.5
        return value

    expected = hooked_logits(module, model_type, site, 1, given, change)
    plain = {
        "layer": 1,
        "units": None if unit is None else (unit,),
        "neurons": (feature,),
        "at": index(1, -1),
    }
    edits = Intervention(Edit(site, Scale(3.0), **plain), Edit(site, Add(0.5), **plain))
    result = run(model, edits, prompts)
    real = prompts["mask"].values.astype(bool)
    torch.testing.assert_close(result.edited[real], expected[real], atol=2e-5, rtol=1e-5)
    assert float((result.edited - result.original)[real].abs().max()) > 1e-4


def test_zero_of_every_head_is_no_attention(model_type, padded):
    model, module = tiny(model_type)
    prompts = pairs(padded)
    _, given = runs(model_type, prompts)
    expected = hooked_logits(module, model_type, "z", 2, given, torch.zeros_like)
    result = run(model, Intervention(Edit("z", Zero(), layer=2)), prompts)
    real = prompts["mask"].values.astype(bool)
    torch.testing.assert_close(result.edited[real], expected[real], atol=2e-5, rtol=1e-5)
    assert oracle.end_logits(module, given).isfinite().all()
