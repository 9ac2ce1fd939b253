"""The page's overlap and stability against `compare.overlap` and `compare.stability`
on the same runs.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr
from headruns import detected, planted, recorded

from nnheads.compare import stability
from nnheads.compare.entries import entries_of
from nnheads.compare.overlap import overlap
from nnheads.errors import BadInput
from nnheads.page import compared, data
from nnheads.runs import store
from nnheads.runs.find import find_runs


def page_of(*places, **more) -> dict:
    found, unfinished = find_runs(places)
    return data.payload(found, title="t", made={}, unfinished=unfinished, **more)


@pytest.fixture
def folder(tmp_path):
    """Three types of one model, one of another of the same shape, one of a smaller."""
    detected(tmp_path, "induction", planted(4, 5, (1, 2), (3, 0), (2, 2)), noise=0.2)
    detected(tmp_path, "retrieval", planted(4, 5, (1, 2), (2, 4)), noise=0.2, seed=1)
    detected(tmp_path, "sink", planted(4, 5, (0, 0)), noise=0.2, seed=2)
    detected(
        tmp_path, "induction", planted(4, 5, (1, 2), (0, 3)), noise=0.2, seed=3, model="b--tuned"
    )
    detected(tmp_path, "induction", planted(3, 3, (1, 2)), model="c--small")
    values = xr.DataArray(
        np.arange(20.0).reshape(4, 5), dims=("layer", "head"), name="effect"
    ).to_dataset()
    store.save(
        recorded(tmp_path / "ioi", "ioi", ["heads.nc"], model="b--tuned") / "heads.nc", values
    )
    return tmp_path


def score_of(page: dict, one: dict) -> dict:
    return page["models"][one["model"]]["scores"][one["score"]]


def test_overlap_is_that_of_the_atlas(folder):
    page = page_of(folder, top=3, draws=0)
    found, entries = page["overlap"], entries_of(find_runs([folder])[0])
    expected = overlap(entries, 3)
    assert found["top"] == 3 and found["total"] == 6
    models = [page["models"][one["model"]]["name"] for one in found["entries"]]
    at = [
        next(
            i
            for i, one in enumerate(entries)
            if (one.model, one.kind) == (name, score_of(page, shown)["kind"])
        )
        for name, shown in zip(models, found["entries"], strict=True)
    ]
    assert sorted(at) == list(range(6))
    for name in compared.PAIRS:
        for i, j in itertools.combinations(range(6), 2):
            one, value = found[name][j][i], float(expected[name][at[j], at[i]])
            assert (one is None and np.isnan(value)) or one == pytest.approx(value, rel=1e-3), name
    known = [value for row in found["jaccard_top"] for value in row if value is not None]
    assert (
        len(known) == 10 and found["entries"][0]["name"] == "induction"
    )  # all but those of the smaller model


def test_the_heads_of_a_pair_make_its_jaccard(folder):
    page = page_of(folder, top=3, draws=0)
    found = page["overlap"]
    for i, j in itertools.combinations(range(6), 2):
        value = found["jaccard_top"][j][i]
        if value is not None:
            first, second = (
                {tuple(head) for head in found["entries"][k]["order"][:3]} for k in (i, j)
            )
            assert len(first & second) / len(first | second) == pytest.approx(value, rel=1e-3)
            strongest = score_of(page, found["entries"][i])["values"]
            assert {layer * 5 + head for layer, head in first} == set(
                np.argsort(strongest)[::-1][:3].tolist()
            )


def test_the_order_reaches_beyond_heads_that_another_score_lacks(tmp_path):
    grid = np.arange(20.0).reshape(4, 5)
    lacking = np.where(grid > 16, np.nan, grid[::-1])
    for name, values in {"one": grid, "two": lacking}.items():
        table = xr.DataArray(values, dims=("layer", "head"), name="effect").to_dataset()
        store.save(recorded(tmp_path / name, "ioi", ["heads.nc"]) / "heads.nc", table)
    found = page_of(tmp_path, top=2)["overlap"]
    first, second = ([tuple(head) for head in one["order"]] for one in found["entries"])
    assert first == [(3, 4), (3, 3), (3, 2), (3, 1), (3, 0)] and len(second) == 2
    shared = set([head for head in first if not np.isnan(lacking[head])][:2]) & set(second)
    assert found["jaccard_top"][1][0] == pytest.approx(len(shared) / (4 - len(shared)))


def test_more_scores_than_a_table_can_show(folder, monkeypatch):
    monkeypatch.setattr(compared, "MOST", 4)
    found = page_of(folder, draws=0)["overlap"]
    assert len(found["entries"]) == 4 and found["total"] == 6 and len(found["spearman"]) == 4


def test_one_score_overlaps_with_nothing(tmp_path):
    detected(tmp_path, "induction", planted(3, 4, (1, 2)))
    assert page_of(tmp_path, draws=0)["overlap"] is None
    recorded(tmp_path / "steer", "steer", [])
    only = page_of(tmp_path / "steer")
    assert (only["overlap"], only["stability"], only["unstable"]) == (None, [], [])


def test_stability_is_that_of_single_prompts(folder):
    page = page_of(folder, top=3, draws=10)
    entries = {(one.model, one.type): one for one in entries_of(find_runs([folder])[0])}
    assert (
        len(page["stability"]) == 5 and page["unstable"] == []
    )  # of ioi single prompts are not read
    for one in page["stability"]:
        entry = entries[page["models"][one["model"]]["name"], score_of(page, one)["kind"]]
        flagged = int((entry.heads["flag"] == 1).sum())
        expected = stability.stability(entry.scores, top=flagged or 3, draws=10)
        assert (one["top"], one["prompts"], one["draws"]) == (flagged or 3, 12, 10)
        assert (
            one["n"] == expected["n"].values.tolist()
            and one["target"] == expected["target"].values.tolist()
        )
        for name in (*compared.BY_N, "needed_n", "jaccard_chance", "reliability_all"):
            shown = one["needed"] if name == "needed_n" else one[name]
            np.testing.assert_allclose(np.array(shown, float), expected[name].values, rtol=1e-3)


def test_no_draws_no_stability(folder):
    page = page_of(folder, draws=0)
    assert page["stability"] == [] and page["unstable"] == []


def test_what_cannot_be_split_says_why(tmp_path):
    detected(tmp_path, "induction", planted(3, 4, (1, 2)), cases=3)
    (one,) = page_of(tmp_path)["unstable"]
    assert (
        one["name"] == "owner--model main induction"
        and "3 prompts cannot be split into halves" in one["reason"]
    )


@pytest.mark.parametrize(
    "wrong",
    [
        lambda scores: scores.assign_attrs(contrast="nowhere"),
        lambda scores: scores.assign_attrs(counts="nowhere"),
        lambda scores: scores.rename(layer="floor"),
        lambda scores: scores.expand_dims(extra=2),
    ],
)
def test_single_prompts_of_another_make_are_one_line(wrong, tmp_path):
    place = detected(tmp_path, "induction", planted(3, 4, (1, 2)))
    store.save(place / "scores.nc", wrong(store.load(place / "scores.nc")))
    with pytest.raises(
        BadInput, match=r"a scores\.nc of these runs does not hold what nnheads detect writes"
    ) as error:
        page_of(tmp_path)
    assert "\n" not in str(error.value)


def test_flags_decide_how_long_a_list_is(folder):
    entries = entries_of(find_runs([folder])[0])
    found, refused = stability.stable(entries, top=3, draws=4)
    assert refused == {} and stability.stable(entries, draws=0) == ({}, {})
    flags = {
        (one.model, one.revision, one.type): int((one.heads["flag"] == 1).sum())
        for one in entries
        if one.scores
    }
    assert {place: own.attrs["top"] for place, own in found.items()} == {
        k: n or 3 for k, n in flags.items()
    }
