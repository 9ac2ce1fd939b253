"""Published lists beside runs, against overlaps worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from headruns import detected, planted
from nnheads.recipes import _app as cli

from nnheads.compare.entries import entries_of, entries_of_files
from nnheads.compare.overlap import overlap
from nnheads.errors import BadInput
from nnheads.runs.find import find_runs


@pytest.fixture
def runs(tmp_path):
    """One type of one model whose strongest heads are 1.2, 3.0 and 2.4, in this order."""
    strength = (
        planted(4, 5, (1, 2), (3, 0))
        - planted(4, 5, (3, 0), by=0.1)
        + planted(4, 5, (2, 4), by=0.5)
    )
    detected(tmp_path / "runs", "induction", strength)
    return entries_of(find_runs([tmp_path / "runs"])[0])


def written(folder, name: str, content) -> str:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def test_an_ordered_list_is_compared_over_as_many_heads_as_it_has(runs, tmp_path):
    ordered = written(tmp_path, "paper.json", [[3, 0], [1, 2], [0, 0]])
    (own,) = entries_of_files([ordered], runs)
    assert (own.model, own.revision, own.type, own.shape) == (
        runs[0].model,
        "list",
        "paper",
        (4, 5),
    )
    assert own.heads["score"].values[3, 0] == 1 and np.isfinite(own.heads["score"]).sum() == 3
    assert own.heads["flag"].values.sum() == 3 and own.heads["flag"].values[0, 0] == 1
    found = overlap([*runs, own], top=8).isel(entry=0, other=1)
    assert float(found["jaccard_top"]) == pytest.approx(2 / 4), "two of three heads are the same"
    shared = 3 * 3 / 20
    assert float(found["jaccard_chance"]) == pytest.approx(shared / (6 - shared))
    assert float(found["jaccard_flagged"]) == pytest.approx(2 / 4)
    assert float(found["spearman"]) == pytest.approx(0.5), "run: 1.2, 3.0, 0.0; list: 3.0, 1.2, 0.0"
    first = overlap([*runs, own], top=1).isel(entry=0, other=1)
    assert float(first["jaccard_top"]) == 0, "the first heads differ"


def test_scores_without_an_order_flag_nothing(runs, tmp_path):
    (own,) = entries_of_files(
        [written(tmp_path, "s.json", {"1-2": [0.9, 0.7], "3-0": [0.2]})], runs
    )
    assert "flag" not in own.heads and np.isfinite(own.heads["score"]).sum() == 2
    assert float(own.heads["score"][1, 2]) == pytest.approx(0.8)


def test_lists_without_runs_share_a_table(tmp_path):
    paths = [
        written(tmp_path, "a.json", [[3, 1], [0, 0]]),
        written(tmp_path, "b.json", [[0, 0], [1, 6]]),
    ]
    first, second = entries_of_files(paths)
    assert first.shape == second.shape == (4, 7) and first.model == "unnamed"
    assert float(overlap([first, second], top=2)["jaccard_flagged"][0, 1]) == pytest.approx(1 / 3)


def test_a_list_of_another_named_model_keeps_its_own_table(runs, tmp_path):
    xr.Dataset(
        {"score": (("layer", "head"), np.arange(12, dtype="float32").reshape(3, 4) ** 2)},
        attrs={"model": "other/model", "headline": "score"},
    ).to_netcdf(tmp_path / "other.nc")
    (own,) = entries_of_files([tmp_path / "other.nc"], runs)
    assert (own.model, own.shape) == ("other--model", (3, 4))
    found = overlap([*runs, own], top=2).isel(entry=0, other=1)
    assert np.isnan(found["jaccard_top"]) and np.isfinite(found["profile_shifted"])


def test_what_does_not_fit_is_refused(runs, tmp_path):
    with pytest.raises(BadInput, match=r"the list is of 10 layers of 2 heads"):
        entries_of_files([written(tmp_path, "large.json", [[9, 1], [0, 0]])], runs)
    (tmp_path / "full.tsv").write_text("1\t0\n0\t1\n")
    with pytest.raises(BadInput, match=r"key/value heads"):
        entries_of_files([tmp_path / "full.tsv"], runs)
    with pytest.raises(BadInput, match=r"broken.json holds no list of heads"):
        entries_of_files([written(tmp_path, "broken.json", {"a": 1})], runs)


def test_the_command_takes_lists_beside_runs(runs, tmp_path, capsys):
    listed = written(tmp_path, "paper.json", [[3, 0], [1, 2], [0, 0]])
    with pytest.raises(SystemExit) as ended:
        cli.app(
            [
                "atlas",
                str(tmp_path / "runs"),
                str(listed),
                "-o",
                str(tmp_path / "atlas"),
                "--draws",
                "0",
            ]
        )
    assert ended.value.code == 0
    assert "owner--model main induction | owner--model list paper" in capsys.readouterr().out
    with xr.open_datatree(tmp_path / "atlas" / "atlas.nc") as tree:
        assert tree["heads/owner--model/list/paper"]["score"].sizes == {"layer": 4, "head": 5}
        assert "roles/owner--model/list" not in tree
