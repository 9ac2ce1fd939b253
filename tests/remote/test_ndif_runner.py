"""Every recipe gives the same numbers through NDIF's own runner of untrusted code
(NNHEADS_NDIF_PYTHON).
"""

from __future__ import annotations

import pytest
from test_remote_recipes import RECIPES, assert_same, datasets, issue

NOISE = {"q_value"}  # ranks of differences that are rounding alone


@pytest.mark.parametrize("name", [*RECIPES, "detect"])
def test_recipes_through_ndifs_own_runner(name, ndif, tmp_path):
    options = RECIPES.get(name, ["detect", "all", "-n", "4"])
    arguments = options if options and not options[0].startswith("-") else [name, *options]
    assert issue(*arguments, "-o", str(tmp_path / "there"), "--remote", ndif.url) == 0
    assert issue(*arguments, "-o", str(tmp_path / "here")) == 0
    here, there = (
        {
            key: one.drop_vars(NOISE, errors="ignore")
            for key, one in datasets(tmp_path / side).items()
        }
        for side in ("here", "there")
    )
    assert_same(here, there)
