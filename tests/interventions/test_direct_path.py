"""A head's direct path as an intervention, against path patching by the sweep engine."""

from __future__ import annotations

import numpy as np
import pytest
from random_models import APART, tiny
from swaps import ANSWERS, pairs

from nnheads import interventions as iv
from nnheads.errors import BadInput
from nnheads.patching.path_patching import path_patch


@pytest.mark.parametrize("model_type", APART)
@pytest.mark.parametrize(("layer", "head"), [(0, 1), (2, 3)])
def test_it_equals_path_patching_with_feed_forward_parts_frozen(model_type, layer, head, padded):
    model, _ = tiny(model_type)
    prompts = pairs(padded)
    swept = path_patch(model, prompts, mlps="freeze")
    base, source = prompts, prompts.assign(token=prompts["corrupted"])
    logits = iv.run(model, iv.direct_path(layer, head, 3), base, [source, base], keep=1)
    own, plain = (values[:, -1].gather(-1, ANSWERS) for values in (logits.edited, logits.original))
    found = swept["logit_difference"].sel(layer=layer, head=head)
    np.testing.assert_allclose(own[:, 0] - own[:, 1], found, atol=1e-4)
    np.testing.assert_allclose(plain[:, 0] - plain[:, 1], swept["base_logit_difference"], atol=1e-5)
    assert float(abs(own - plain).max()) > 1e-5


def test_a_path_into_a_layer_leaves_the_later_ones_free(padded):
    model, _ = tiny("llama")
    prompts = pairs(padded)
    base, source = prompts, prompts.assign(token=prompts["corrupted"])
    into, through = (
        iv.run(
            model,
            iv.direct_path(0, 1, 3, until=until, at=iv.index(-1)),
            base,
            [source, base],
            keep=1,
        ).edited[:, -1]
        for until in (1, None)
    )
    assert float(abs(into - through).max()) > 1e-5


@pytest.mark.parametrize(("layer", "until"), [(3, None), (2, 1), (-1, None), (0, 3)])
def test_paths_that_lead_nowhere_are_refused(layer, until):
    with pytest.raises(
        BadInput,
        match=r"a path from layer -?\d through layer \d is not possible",
    ):
        iv.direct_path(layer, 0, 3, until=until)
