"""The report's numbers against the files they come from; nothing in a file gets into the markup."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from headruns import detected, planted, png, recorded
from random_models import placed, tiny

from nnheads.errors import BadInput
from nnheads.page import data, patterns
from nnheads.page.grids import on_grid, packed
from nnheads.page.html import digest, html
from nnheads.page.rounding import numbers, shortest
from nnheads.runs import store
from nnheads.runs.columns import LARGEST, columns, roles_in
from nnheads.runs.find import find_runs
from nnheads.writing.logit_lens import logit_lens

IN_A_NAME = (
    "x<img src=x onerror=alert(3)>\"'&{{ 7*7 }}"  # as far as files and variables can be called that
)
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}\u2028"


@pytest.fixture
def folder(tmp_path):
    detected(tmp_path, "induction", planted(3, 4, (1, 2), (2, 0)))
    detected(tmp_path, "previous_token", planted(3, 4, (0, 1)))
    return tmp_path


def page_of(*places, **more) -> dict:
    found, unfinished = find_runs(places)
    made = {"command": "nnheads report", "date": "today", "version": "0", "code": "abc"}
    return data.payload(found, title="t", made=made, unfinished=unfinished, **more)


def test_scores_stand_on_the_page_as_in_the_files(folder):
    page = page_of(folder)
    (model,) = page["models"]
    assert (model["layers"], model["heads"], model["revision"]) == (3, 4, "main")
    one = next(one for one in model["scores"] if one["kind"] == "induction" and one["headline"])
    heads = store.load(folder / "detect/owner--model/main/induction/heads.nc")
    for key, name in {
        "values": "mass",
        "low": "mass_low",
        "high": "mass_high",
        "null": "null",
        "q": "q_value",
    }.items():
        np.testing.assert_allclose(np.array(one[key], float), heads[name].values.ravel(), rtol=1e-3)
    assert [i for i, flag in enumerate(one["flag"]) if flag] == [6, 8] and not one["signed"]
    excess = next(
        one for one in model["scores"] if one["kind"] == "induction" and one["name"] == "excess"
    )
    assert excess["flag"] is None and excess["signed"] and not excess["headline"]
    run = page["runs"][one["run"]]
    assert (
        run["command"] == "nnheads detect -n 12"
        and run["code"] == "0123456789" * 4
        and not run["changed"]
    )
    assert (
        run["packages"]["torch"] == "2.13" and run["weights"] == "c0ffee" and run["count"] == "12"
    )


def test_columns_know_what_belongs_to_them():
    cell = (("layer", "head"), np.ones((2, 3), np.float32))
    names = ["copy", "copy_low", "copy_high", "copy_null", "copy_q_value", "other", "follow_low"]
    table = xr.Dataset(dict.fromkeys(names, cell))
    table["copy_q_value"] = cell[0], np.array([[0.01, 0.2, np.nan]] * 2)
    first, second, third = columns(table, "writes")
    assert (first.name, first.headline, second.name, third.name) == (
        "copy",
        True,
        "other",
        "follow_low",
    )
    assert first.null is not None and first.flag.values.tolist() == [[1, 0, 0]] * 2
    assert second.low is None and second.flag is None and second.null is None
    ranked = columns(xr.Dataset({"estimate": cell, "effect": cell}), "ioi")
    assert [one.name for one in ranked] == ["effect", "estimate"]


def test_roles_by_name():
    numbers = np.array([[0, 2], [1, 9]], np.int8)
    attributes = {"flag_values": np.array([0, 1, 2], np.int8), "flag_meanings": "none mover backup"}
    table = xr.Dataset(
        {"role": (("layer", "head"), numbers, attributes)}, {"layer": [0, 1], "head": [0, 1]}
    )
    assert roles_in(table) == {(0, 1): "backup", (1, 0): "mover"} and columns(table) == []


def test_values_that_are_none_and_heads_that_were_not_measured():
    values = xr.DataArray(
        [[1.0, np.nan], [np.inf, 1e-9]], {"layer": [0, 2], "head": [1, 0]}, ("layer", "head")
    )
    grid = numbers(on_grid(values, (3, 2)))
    assert grid == [None, 1, None, None, 1e-09, None]
    assert shortest(0.123456) == 0.1235 and shortest(3.0) == 3 and shortest(1e30) == 1e30


def test_models_of_one_name_and_other_weights_stay_apart(folder):
    other = {"source": json.dumps({"commit": "deadbeef"})}
    detected(folder / "again", "induction", planted(2, 2, (0, 0)), attrs=other)
    names = {
        model["shown"]: (model["layers"], model["heads"]) for model in page_of(folder)["models"]
    }
    assert names == {"owner--model main eadbeef": (2, 2), "owner--model main c0ffee": (3, 4)}


def test_each_run_once_and_unfinished_ones_by_name(folder):
    recorded(folder / "ioi" / "half", "ioi", [], complete=False)
    found, unfinished = find_runs(
        [folder, folder / "detect", folder / "detect/owner--model/main/induction/run.json"]
    )
    assert [run.folder.name for run in found] == ["induction", "previous_token"] and unfinished == [
        "ioi/half"
    ]
    assert page_of(folder)["unfinished"] == ["ioi/half"]


@pytest.mark.parametrize(
    "record",
    [
        "",
        "{",
        "[]",
        '{"complete": true}',
        '{"arguments": [], "complete": true}',
        "[" * 100_000,
        "\xff",
    ],
)
def test_a_broken_record_is_one_line(record, folder):
    place = folder / "detect/owner--model/main/induction/run.json"
    place.write_bytes(record.encode("latin-1"))
    with pytest.raises(BadInput, match=r"induction/run\.json is not a record of a run"):
        find_runs([folder])


@pytest.mark.parametrize("content", [b"", b"nonsense", bytes(range(256)) * 40])
def test_a_broken_file_is_one_line(content, folder):
    (folder / "detect/owner--model/main/induction/heads.nc").write_bytes(content)
    with pytest.raises(BadInput, match=r"heads\.nc cannot be read as netCDF") as error:
        page_of(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [[0.5, 1.5], [0, 0], [-1, 0]])
@pytest.mark.parametrize("unit", ["head", "kv_head"])
def test_heads_that_are_no_numbers_are_refused(unit, wrong, tmp_path):
    values = xr.DataArray(
        np.ones((2, 2)), {"layer": [0, 1], unit: wrong}, ("layer", unit), name="effect"
    )
    store.save(recorded(tmp_path / "run", "ioi", ["heads.nc"]) / "heads.nc", values.to_dataset())
    with pytest.raises(BadInput, match=f"coordinate {unit} is no list of different whole numbers"):
        page_of(tmp_path)


def test_more_heads_than_a_model_has_are_refused(tmp_path):
    values = xr.DataArray(
        [[1.0]], {"layer": [10**6], "head": [10**6]}, ("layer", "head"), name="effect"
    )
    store.save(recorded(tmp_path / "run", "ioi", ["heads.nc"]) / "heads.nc", values.to_dataset())
    with pytest.raises(BadInput, match=f"more than {LARGEST} heads"):
        page_of(tmp_path)


def test_files_outside_the_run_are_not_read(tmp_path):
    values = xr.DataArray(np.ones((2, 2)), dims=("layer", "head"), name="secret").to_dataset()
    store.save(tmp_path / "heads.nc", values)
    recorded(tmp_path / "run", "ioi", ["../heads.nc", 5, "/etc/passwd"])
    (found,), _ = find_runs([tmp_path])
    assert found.files == [] and found.tables() == {}


def test_a_record_that_names_no_files_means_those_that_are_there(folder):
    place = folder / "detect/owner--model/main/induction/run.json"
    record = json.loads(place.read_text())
    place.write_text(json.dumps({name: value for name, value in record.items() if name != "files"}))
    (found, _), _ = find_runs([folder])
    assert found.files == ["heads.nc", "scores.nc"] and list(found.tables()) == ["heads.nc"]
    place.write_text(json.dumps({**record, "files": "heads.nc"}))
    assert find_runs([folder])[0][0].files == []


def test_no_runs_at_all(tmp_path):
    with pytest.raises(BadInput, match=r"no folder .*nowhere"):
        find_runs([tmp_path / "nowhere"])
    recorded(tmp_path / "half", "ioi", [], complete=False)
    with pytest.raises(BadInput, match=r"no finished run in .*"):
        find_runs([tmp_path])


class Tags(HTMLParser):
    """What a browser would make of the markup."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.inside, self.scripts = [], [], None, []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, text):
        if self.inside == "script":
            self.scripts[-1] += text


def hostile(folder) -> None:
    attrs = {
        "title": HOSTILE,
        "references": HOSTILE,
        "history": HOSTILE,
        "packages": json.dumps({HOSTILE: HOSTILE}),
        "source": json.dumps({"model": HOSTILE, "commit": HOSTILE, "dtype": HOSTILE}),
        "kind": HOSTILE,
        "model": HOSTILE,
        "revision": HOSTILE,
        "git_commit": HOSTILE,
    }
    place = detected(folder, "kind", planted(2, 2, (0, 0)), attrs=attrs)
    heads = store.load(place / "heads.nc")
    heads["mass"].attrs |= {"long_name": HOSTILE, "units": HOSTILE}
    store.save(place / "heads.nc", heads)
    record = json.loads((place / "run.json").read_text())
    names = [*record["files"], "curve.nc", f"{IN_A_NAME}.png"]
    (place / "run.json").write_text(
        json.dumps({**record, "command": HOSTILE, "recipe": HOSTILE, "files": names})
    )
    (place / names[-1]).write_bytes(png(2, 2))
    curve = xr.Dataset(
        {IN_A_NAME: ("k", [HOSTILE, "=1+1"])},
        {"k": [0, 1], "why": ("k", [HOSTILE] * 2)},
        attrs=attrs,
    )
    curve["effect"] = ("k", [0.0, 1.0], {"long_name": HOSTILE, "units": HOSTILE})
    curve["shared"] = (("layer", "kv_head"), [[0.5]], {"long_name": HOSTILE})
    curve["large"] = (("k", f"{IN_A_NAME} too"), np.zeros((2, 200)))
    store.save(place / "curve.nc", curve)


def test_nothing_in_a_file_gets_into_the_markup(folder, tmp_path_factory):
    clean, wild = Tags(), Tags()
    clean.feed(html(page_of(folder)))
    other = tmp_path_factory.mktemp("hostile")
    hostile(other)
    page = page_of(other)
    page["title"] = HOSTILE
    text = html(page)
    wild.feed(text)
    assert wild.scripts[1] == clean.scripts[1] and len(wild.scripts) == 2
    assert (
        json.loads(wild.scripts[0]) == json.loads(json.dumps(page))
        and HOSTILE in page["runs"][0]["command"]
    )
    assert set(wild.tags) == set(clean.tags) and set(wild.attributes) == set(clean.attributes)
    assert (
        "onerror" not in wild.attributes
        and "49" not in re.sub(r"<script.*", "", text, flags=re.S).split("<h1>")[1]
    )


def test_the_policy_allows_the_one_script_and_nothing_from_elsewhere(folder):
    text, tags = html(page_of(folder)), Tags()
    tags.feed(text)
    assert f"script-src '{digest(tags.scripts[1])}'" in text and "default-src 'none'" in text
    assert not re.search(
        r"""(?:src|href)=["'](?!#)|url\(|@import|fetch\(|XMLHttp|innerHTML|insertAdjacent""", text
    )


def test_knockouts_and_inspected_attention(tmp_path):
    place = recorded(
        tmp_path / "knockout", "knockout", ["curve.nc", "interactions.nc"], behaviour="induction"
    )
    ends = {"_low": -0.1, "": 0.0, "_high": 0.1}
    curve = xr.Dataset(
        {f"accuracy{end}": ("k", 0.8 + np.array([0.0, shift])) for end, shift in ends.items()}
    )
    curve = curve.assign(random_median=("k", [0.8, 0.7]), base_accuracy=0.9).assign_coords(k=[0, 1])
    curve.attrs = {"metric": "accuracy", "behaviour": "repeats", "ablation": "mean", "model": "m"}
    parts = xr.Dataset(
        {"alone": ("member", [-0.5]), "alone_low": ("member", [-0.6]), "last": ("member", [np.nan])}
    )
    parts = parts.assign(joint=-0.7, sum_of_parts=-0.5).assign_coords(member=["L1H2"])
    store.save(place / "curve.nc", curve)
    store.save(place / "interactions.nc", parts)
    (model,) = page_of(tmp_path)["models"]
    (knock,) = model["knockouts"]
    assert (
        knock["alone"] == [[-0.5, -0.6, None]]
        and knock["last"] == [[None] * 3]
        and knock["base"][0] == 0.9
    )
    assert (
        knock["lines"]["random"] == [0.8, 0.7]
        and knock["k"] == [0, 1]
        and knock["members"] == ["L1H2"]
    )
    store.save(place / "curve.nc", curve.drop_vars("accuracy"))
    with pytest.raises(BadInput, match="does not hold what nnheads knockout writes"):
        page_of(tmp_path)


def test_packed_patterns_can_be_read_again():
    pattern = np.tril(np.random.default_rng(0).random((5, 5)))
    numbers = np.frombuffer(base64.b64decode(packed(pattern)), np.uint8)
    np.testing.assert_allclose(numbers / 255, pattern[np.tril_indices(5)], atol=0.002)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_attention_is_what_the_lens_sees(family):
    model, _ = tiny(family)
    text = "Mary and John"
    (_, ids), *_ = patterns.own_texts(model, [text])
    found = patterns.attention_of(model, ids)
    for head in [(0, 1), (1, 0)]:
        np.testing.assert_allclose(
            found[head] / 255, logit_lens(model, text, head=head)["attention"], atol=0.0021
        )
    np.testing.assert_array_equal(placed("local", patterns.attention_of)(model, ids), found)
    with pytest.raises(BadInput, match="a text of 97 tokens cannot be drawn"):
        patterns.attention_of(model, np.zeros(97, int))


def test_where_all_heads_are_too_much_the_wanted_ones_are_drawn(monkeypatch):
    model, _ = tiny("llama")
    texts = patterns.own_texts(model, ["Mary and John"])
    whole = patterns.texts_for(model, texts, [])
    assert len(whole[0]["patterns"]) > 2 and "".join(whole[0]["tokens"]).count("Mary") == 1
    monkeypatch.setattr(patterns, "BUDGET", 30)
    assert set(patterns.texts_for(model, texts, [(1, 0)])[0]["patterns"]) == {"1.0"}
