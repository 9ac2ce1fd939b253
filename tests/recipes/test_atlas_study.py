"""`nnheads atlas` as a user issues it: revisions, a tuned model, another size, and files that name
themselves oddly.
"""

from __future__ import annotations

import functools
import json

import commands
import numpy as np
import pytest
import xarray as xr
from headruns import detected, planted
from labels import unlabelled
from nnheads.recipes._atlas_pictures import without_repeats

call = functools.partial(commands.issue, "atlas")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("runs")
    for revision, by in {"step1000": 0.02, "step143000": 0.9, "step9000": 0.4}.items():
        detected(
            made,
            "induction",
            planted(4, 5, (2, 1), (3, 0), by=by),
            model="a--base",
            revision=revision,
        )
    detected(made, "retrieval", planted(4, 5, (2, 1)), model="a--base", revision="step143000")
    detected(made, "induction", planted(4, 5, (2, 1), (0, 0)), model="b--tuned")
    detected(made, "induction", planted(9, 6, (5, 1)), model="c--large")
    return made


def test_one_command_joins_revisions_models_and_types(folder, tmp_path):
    code, out, err = call(str(folder), "-o", str(tmp_path), "--draws", "10", "--top", "2")
    assert (code, err) == (0, "")
    assert (
        "induction of a--base, strongest head by revision: step1000 0.0" in out
        and "step143000 0.90" in out
    )
    assert "heads with several roles, a--base step143000: L2H1 2" in out
    assert "no role, since most heads have it" not in out
    assert "induction, a--base to b--tuned: " in out and "most: L3H0 -0.84" in out
    assert "a--base step143000 induction: top 2, Jaccard 0.8 needs 2 prompts" in out
    with xr.open_datatree(tmp_path / "atlas.nc", engine="netcdf4") as tree:
        heads = tree["/heads/a--base/step143000/induction"].to_dataset().load()
        with xr.open_dataset(folder / "detect/a--base/step143000/induction/heads.nc") as original:
            np.testing.assert_array_equal(heads["score"], original["mass"])
            np.testing.assert_array_equal(heads["flag"], original["flag"])
        assert heads["depth"].values.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
        assert tree["/emergence/a--base/induction"]["step"].values.tolist() == [1000, 9000, 143000]
        assert (
            tree["/changes/a--base to b--tuned/induction"].attrs["base"]
            == "a--base step143000 induction"
        )
        assert tree["/overlap"]["spearman"].sizes == {"entry": 6, "other": 6}
        assert tree["/stability/c--large/main/induction"]["needed_n"].sizes == {"target": 2}
        for node in tree.subtree:
            assert unlabelled(node.to_dataset(inherit=False)) == [], node.path
        assert len(json.loads(tree.attrs["runs"])) == 6 and "nnheads atlas" in tree.attrs["history"]
    names = {file.name for file in tmp_path.iterdir()}
    assert {"atlas.nc", "overlap.png", "depth.png", "emergence-a--base-induction.png"} <= names
    assert {"roles-b--tuned-main.png", "stability-a--base-step143000.png"} <= names
    assert all((tmp_path / name).stat().st_size > 1000 for name in names)


def test_lines_that_are_the_same_stand_under_one_name():
    one, other = (xr.DataArray([value, 1.0], dims="n") for value in (1.0, 0.9))
    lines = {"a": (one,) * 3, "b": (other,) * 3, "c": (one,) * 3, "d": (one, other, one)}
    assert list(without_repeats(lines)) == ["2 types, one line: a, c", "b", "d"]


def test_names_in_files_cannot_leave_the_folder(tmp_path):
    odd = {"model": "../../up/and\\away", "revision": "", "kind": "a/b\n$x$"}
    for place in ("one", "two"):
        detected(tmp_path / "runs" / place, "kind", planted(3, 4, (1, 1)), attrs=odd)
    code, _, err = call(
        str(tmp_path / "runs"), "-o", str(tmp_path / "out" / "atlas"), "--draws", "4"
    )
    assert (code, err) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "out"} and len(
        list((tmp_path / "out").iterdir())
    ) == 1
    with xr.open_datatree(tmp_path / "out" / "atlas" / "atlas.nc", engine="netcdf4") as tree:
        assert [
            group for group in tree.groups if group.startswith("/heads/") and group.count("/") == 4
        ] == ["/heads/up-and-away/main/a-b-x", "/heads/up-and-away/main/a-b-x- (2)"]


def test_a_model_that_was_asked_again(tmp_path):
    for place, second in (("first", (0, 3)), ("second", (2, 2))):
        detected(tmp_path / "runs" / place, "induction", planted(3, 4, (1, 1), second))
    code, out, _ = call(
        str(tmp_path / "runs"), "-o", str(tmp_path / "atlas"), "--draws", "0", "--top", "1"
    )
    pair = "owner--model main induction | owner--model main induction (2)"
    assert (
        code == 0
        and f"asked again: {pair}: Jaccard of flagged 0.33, of the top 1 1.00; Spearman " in out
        and "found again" not in out
    )


def test_without_single_prompts_there_is_no_stability(tmp_path):
    place = detected(tmp_path / "runs", "induction", planted(3, 4, (1, 1)), cases=3)
    code, out, _ = call(str(tmp_path / "runs"), "-o", str(tmp_path / "atlas"))
    assert code == 0 and "no stability; 3 prompts cannot be split into halves" in out
    (place / "scores.nc").write_bytes(b"broken")
    code, _, err = call(str(tmp_path / "runs"), "-o", str(tmp_path / "atlas"))
    assert code == 2 and "scores.nc cannot be read as netCDF" in err and len(err.splitlines()) == 1


def test_a_list_for_a_task_that_is_not_done_is_said_to_be(tmp_path):
    undone = {"accuracy": 0.5, "accuracy_by_step": "0.5", "accuracy_of_guessing": 0.5}
    detected(
        tmp_path / "runs", "iteration", planted(3, 4, (1, 1)), attrs=undone | {"accuracy_p": 0.4}
    )
    detected(tmp_path / "runs", "induction", planted(3, 4, (1, 1)))
    code, out, _ = call(str(tmp_path / "runs"), "-o", str(tmp_path / "atlas"), "--draws", "8")
    lines = [line for line in out.splitlines() if "rank correlation" in line]
    assert code == 0 and len(lines) == 2
    for line in lines:
        assert line.endswith("the model does not do this task") == ("iteration" in line)
