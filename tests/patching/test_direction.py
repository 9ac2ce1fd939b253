"""Which text is run and which one gives values, said once for every sweep."""

from __future__ import annotations

import pytest
import xarray as xr

from nnheads.patching.direction import DENOISING, NOISING, direction_in, direction_of


@pytest.mark.parametrize("noising", [False, True])
def test_one_text_is_changed_and_the_other_gives_values(noising):
    direction = direction_of(noising)
    assert {direction.changed, direction.source} == {"clean", "corrupted"}
    assert {direction.changed_token, direction.source_token} == {"token", "corrupted"}
    assert direction is (NOISING if noising else DENOISING)
    assert (direction.changed == "clean") is noising


def test_scores_say_their_direction_and_the_gap_has_its_sign():
    texts = {"clean_logit": ("batch", [3.0]), "corrupted_logit": ("batch", [1.0])}
    for direction, gap in ((DENOISING, 2.0), (NOISING, -2.0)):
        scores = xr.Dataset(texts, attrs={"direction": direction.name})
        assert direction_in(scores) is direction
        assert float(direction.gap(scores, "logit")[0]) == gap
        assert direction.words == f"{direction.source} into {direction.changed}"
