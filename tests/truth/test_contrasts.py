"""The edit against its controls: paired differences, intervals and p values by hand."""

from __future__ import annotations

import numpy as np
import xarray as xr

from nnheads.truth.contrasts import CONTROLS, EDIT, by_kind, summary
from nnheads.truth.multiple_choice import CHOICES


def scores(questions: int = 40) -> xr.Dataset:
    """The edit is right on all questions, no edit on none, random draws on a quarter and on three
    quarters.
    """
    kinds = ["none", "edit", "random_direction", "random_direction"]
    right = np.stack(
        [
            np.zeros(questions),
            np.ones(questions),
            np.arange(questions) % 4 == 0,
            np.arange(questions) % 4 > 0,
        ]
    )
    about = {"long_name": "a score", "units": "1"}
    data = {name: (("condition", "question"), right.astype("float32"), about) for name in CHOICES}
    price = np.arange(4)[None, :, None] + np.array([0.0, 2.0])[:, None, None] + np.zeros((2, 4, 6))
    cost = {"long_name": "a cost", "units": "nat"}
    data |= {
        name: (("fold", "condition", "text"), price.astype("float32"), cost)
        for name in ("cross_entropy", "kl")
    }
    return xr.Dataset(
        data,
        {"kind": ("condition", kinds), "condition": list("abcd"), "question": range(questions)},
    )


def test_draws_are_averaged_question_by_question():
    table = by_kind(scores())
    assert table["kind"].values.tolist() == ["none", "edit", "random_direction"]
    np.testing.assert_array_equal(table["mc1"].sel(kind="random_direction"), 0.5)
    assert set(CONTROLS) == {"none", "random_direction", "random_heads"} and EDIT == "edit"


def test_means_gains_and_costs_by_hand():
    table = summary(scores())
    for name in CHOICES:
        assert table[name].sel(kind="edit") == 1 and table[name].sel(kind="none") == 0
        assert (
            table[f"{name}_gain"].sel(kind="none") == 1
            and table[f"{name}_gain"].sel(kind="random_direction") == 0.5
        )
        assert np.isnan(table[f"{name}_gain"].sel(kind="edit")) and np.isnan(
            table[f"{name}_p"].sel(kind="edit")
        )
        assert float(table[f"{name}_p"].sel(kind="none")) < 1e-3
        assert (
            table[f"{name}_gain_low"].sel(kind="none")
            == table[f"{name}_gain_high"].sel(kind="none")
            == 1
        )
    assert table["kl"].sel(kind="none") == 1 and table["kl"].sel(kind="random_direction") == 2.5 + 1
    for name in table.data_vars:
        assert (
            table[name].dtype == np.float32
            and table[name].attrs["units"]
            and table[name].attrs["long_name"]
        )


def test_intervals_are_over_questions():
    few, many = scores(8), scores(400)
    for one in (few, many):
        one["mc1"] = one["mc1"].where(one["kind"] != "edit", np.arange(one.sizes["question"]) % 2)
    widths = [
        float((table["mc1_high"] - table["mc1_low"]).sel(kind="edit"))
        for table in (summary(few), summary(many))
    ]
    assert widths[0] > 3 * widths[1] > 0
