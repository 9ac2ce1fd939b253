"""What a page shows besides a number for each head: small tables as in the files, real pictures,
key/value heads.
"""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from headruns import about, chunk, detected, paired, planted, png, recorded
from hypothesis import given, settings
from hypothesis import strategies as st

from nnheads.compare.entries import entries_of
from nnheads.errors import BadInput
from nnheads.page import data, pictures
from nnheads.page.html import strongest
from nnheads.page.tables import LONGEST, MOST, tables_of
from nnheads.runs import store
from nnheads.runs.find import find_runs


def page_of(*places, **more) -> dict:
    found, unfinished = find_runs(places)
    return data.payload(found, title="t", made={}, unfinished=unfinished, **{"draws": 0, **more})


def pictured(folder, recipe="steer", /, **files: bytes):
    """A run with pictures alone."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / f"{name}.png").write_bytes(content)
    return recorded(folder, recipe, [f"{name}.png" for name in files], model="m")


# -- tables


def test_what_runs_over_the_same_dimensions_is_one_table():
    meaning = {"long_name": "log odds", "units": "nat"}
    curve = xr.Dataset(
        {
            "effect": ("strength", [0.5, 1.0], meaning),
            "effect_low": ("strength", [0.25, np.nan]),
            "effect_high": ("strength", [0.75, 2.0]),
            "random": ("strength", [0.125, 123456.0]),
            "base": 0.5,
            "base_low": 0.25,
            "kept": 7,
            "verdict": ("strength", np.array([1, 0], np.int8)),
        },
        {"strength": [-1.0, 2.0], "word": ("strength", ["no", "yes"]), "asked": "why"},
    )
    curve["verdict"].attrs = {
        "flag_values": np.array([0, 1], np.int8),
        "flag_meanings": "pass fail",
    }
    (long, single), left = tables_of({"curve.nc": curve})
    assert left == [] and (long["file"], long["dims"], long["rows"]) == (
        "curve.nc",
        ["strength"],
        2,
    )
    assert long["keys"] == [
        {"name": "strength", "values": [-1, 2]},
        {"name": "word", "values": ["no", "yes"]},
    ]
    effect, random, verdict = long["columns"]
    assert effect == {
        "name": "effect",
        "meaning": "log odds",
        "units": "nat",
        "values": [0.5, 1],
        "low": [0.25, None],
        "high": [0.75, 2],
    }
    assert (
        random["values"] == [0.125, 123500]
        and "low" not in random
        and verdict["values"] == ["fail", "pass"]
    )
    assert (
        single["dims"] == []
        and single["rows"] == 1
        and single["keys"] == [{"name": "asked", "values": ["why"]}]
    )
    assert [(one["name"], one["values"], one.get("low")) for one in single["columns"]] == [
        ("base", [0.5], [0.25]),
        ("kept", [7], None),
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=5),
    st.data(),
)
def test_every_cell_stands_in_its_row(pairs, draw):
    sizes = {name: draw.draw(st.integers(1, 5)) for name in "abc"}
    names = {f"v{number}": tuple(dict.fromkeys(dims)) for number, dims in enumerate(pairs)}
    generator = np.random.default_rng(0)
    whole = xr.Dataset(
        {
            name: (dims, generator.integers(0, 99, [sizes[dim] for dim in dims]))
            for name, dims in names.items()
        },
        {"a": np.arange(sizes["a"]) * 10},
    )
    tables, left = tables_of({"f.nc": whole})
    assert left == [] and sum(len(table["columns"]) for table in tables) == len(names)
    for table in tables:
        keys = {key["name"]: key["values"] for key in table["keys"]}
        for column in table["columns"]:
            for row, value in enumerate(column["values"]):
                place = {dim: keys[dim][row] // (10 if dim == "a" else 1) for dim in table["dims"]}
                assert whole[column["name"]].isel(place).item() == value


def test_what_is_too_large_is_named_and_single_cases_stay_on_disk():
    large = xr.Dataset(
        {
            "wide": (("layer", "feature"), np.zeros((3, MOST))),
            "deep": (("a", "b", "c"), np.zeros((1, 2, 2))),
            "other": (("a", "b", "c"), np.zeros((1, 2, 2))),
            "right": ("question", np.ones(4)),
            "each": (("batch", "layer"), np.zeros((2, 3))),
            "effect": (("layer", "head"), np.zeros((3, 2))),
            "shared": (("layer", "kv_head"), np.zeros((3, 2))),
            "norm": ("layer", [1.0, 2.0, 3.0]),
            "when": ("layer", np.zeros(3, "datetime64[ns]")),
        }
    )
    (table,), left = tables_of({"large.nc": large})
    assert [column["name"] for column in table["columns"]] == ["norm"] and table["keys"][0][
        "values"
    ] == [0, 1, 2]
    assert left == [
        f"wide in large.nc, 3 layer x {MOST} feature",
        "deep, other in large.nc, 1 a x 2 b x 2 c",
    ]


def test_texts_are_cut_and_a_number_shown_once():
    first = xr.Dataset(
        {
            "said": ("k", ["x" * 1000, "y"]),
            "raw": ("k", np.array([b"\xff", b"b"])),
            "on": ("k", [True, False]),
        }
    )
    (table, *_), _ = tables_of({"a.nc": first, "b.nc": first.isel(k=slice(1))})
    said, raw, on = table["columns"]
    assert (
        said["values"] == ["x" * LONGEST, "y"]
        and raw["values"] == ["\ufffd", "b"]
        and on["values"] == ["yes", "no"]
    )
    assert len(tables_of({"a.nc": first, "b.nc": first})[0]) == 1  # the other file says the same


# -- pictures


def test_a_picture_is_the_file_without_what_follows_it(tmp_path):
    comment = chunk(b"tEXt", b"Comment\0<script>")
    pictured(tmp_path / "run", curve=png(3, 2, comment) + b"<script>trailing")
    (model,) = page_of(tmp_path)["models"]
    (found,) = model["results"]
    (one,) = found["pictures"]
    assert base64.b64decode(one["data"]) == png(3, 2) and (
        one["name"],
        one["width"],
        one["height"],
    ) == (
        "curve.png",
        3,
        2,
    )
    assert found["unseen"] == [] and page_of(tmp_path)["runs"][0]["more"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no PNG"),
        (b"<svg onload=alert(1)>", "no PNG"),
        (b"GIF89a" + bytes(40), "no PNG"),
        (png()[:-12], "broken"),
        (png()[:40], "broken"),
        (png()[:20] + b"\x01" + png()[21:], "broken"),
        (pictures.SIGNATURE + chunk(b"IDAT", b"") + chunk(b"IEND", b""), "broken"),
        (pictures.SIGNATURE + chunk(b"IHDR", b"123") + chunk(b"IEND", b""), "broken"),
        (png(1, 1, chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0))), "broken"),
        (png(0, 2), "broken"),
        (pictures.SIGNATURE + b"\xff\xff\xff\xffIHDR" + bytes(30), "broken"),
    ],
)
def test_what_is_no_picture_is_one_line(content, message, tmp_path):
    pictured(tmp_path / "run", curve=content)
    with pytest.raises(BadInput, match=rf"curve\.png is .*{message}") as error:
        page_of(tmp_path)
    assert "\n" not in str(error.value)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 90), st.booleans())
def test_whatever_the_bytes_it_is_a_picture_or_one_line(noise, at, start):
    whole = png(3, 2)
    content = (
        (pictures.SIGNATURE if start else b"") + noise
        if at > 80
        else whole[:at] + noise + whole[at + len(noise) :]
    )
    try:
        kept, width, height = pictures.stripped(content, Path("x.png"))
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        assert kept == whole and (width, height) == (
            3,
            2,
        )  # every part is summed: what passes is what was written


def test_a_picture_that_is_not_there_is_one_line(tmp_path):
    recorded(tmp_path / "run", "steer", ["curve.png"])
    with pytest.raises(
        BadInput, match=r"curve\.png is named in run\.json and cannot be read \(No such file"
    ):
        page_of(tmp_path)
    (tmp_path / "run" / "curve.png").mkdir()
    with pytest.raises(BadInput, match=r"curve\.png is no PNG picture"):
        page_of(tmp_path)


def test_pictures_have_a_budget_and_the_rest_is_named(tmp_path, monkeypatch):
    for number in range(2):
        pictured(tmp_path / f"run{number}", first=png(), second=png(4, 4))
    size = len(base64.b64encode(png()))
    monkeypatch.setattr(pictures, "BUDGET", 2 * size + 5)
    first, second = page_of(tmp_path)["models"][0]["results"]
    assert [[one["name"] for one in run["pictures"]] for run in (first, second)] == [
        ["first.png"]
    ] * 2
    assert first["unseen"] == [
        f"second.png: the page has room for {pictures.BUDGET / 1e6} MB of pictures"
    ]
    monkeypatch.setattr(pictures, "BUDGET", 20)
    nothing = page_of(tmp_path)["models"][0]["results"]
    assert [(len(run["pictures"]), len(run["unseen"])) for run in nothing] == [(0, 2)] * 2


def test_a_picture_that_would_fill_the_memory_stays_out(tmp_path):
    pictured(tmp_path / "run", bomb=png(50_000, 50_000, dots=b""), fine=png())
    (found,) = page_of(tmp_path)["models"][0]["results"]
    assert found["unseen"] == ["bomb.png: 50000 x 50000 dots are more than a page can show"]
    assert [one["name"] for one in found["pictures"]] == ["fine.png"]


def test_what_the_page_draws_itself_is_not_pictured_again(tmp_path):
    place = detected(tmp_path, "induction", planted(3, 4, (1, 2)))
    names = ["heads", "accuracy", "mass"]
    for name in names:
        (place / f"{name}.png").write_bytes(png())
    recorded(place, "detect", ["heads.nc", "scores.nc", *(f"{name}.png" for name in names)])
    (model,) = page_of(tmp_path)["models"]
    assert [one["name"] for one in model["results"][0]["pictures"]] == ["accuracy.png"]


# -- runs


def test_key_value_heads_have_a_grid_of_their_own(tmp_path):
    z, k = paired(tmp_path)
    page = page_of(tmp_path)
    (model,) = page["models"]
    assert (model["layers"], model["heads"], model["kv_heads"]) == (2, 6, 3)
    found = {one["name"]: one for one in model["scores"]}
    assert (
        found["z"]["unit"] == "head" and found["k"]["unit"] == "kv_head" and found["z"]["headline"]
    )
    np.testing.assert_allclose(found["z"]["values"], z, atol=1e-6)
    np.testing.assert_allclose(found["k"]["values"], k, atol=1e-6)
    assert found["k"]["signed"] and {one["kind"] for one in model["scores"]} == {"patch"}
    assert [row["heads"].split(",")[0] for row in strongest(page)] == ["L1H5 1.100", "L0KV0 0.000"]
    tables = {tuple(table["dims"]): table for table in model["results"][0]["tables"]}
    assert set(tables) == {("layer", "position"), ()} and tables[()]["columns"][0]["values"] == [
        2.5
    ]
    assert page["overlap"] is None and page["runs"][0]["shown"] and page["runs"][0]["more"]


def test_single_cases_are_no_results_beside_others(tmp_path):
    paired(tmp_path)
    (run,) = find_runs([tmp_path])[0]
    assert run.outcomes == ["scores.nc"] and list(run.tables()) == ["scores.nc"]
    (one,) = entries_of([run])
    assert one.type == "patch" and one.heads.attrs["statistic"] == "z"
    store.save(run.folder / "curve.nc", xr.Dataset({"effect": ("k", [0.0, 1.0])}))
    recorded(run.folder, "patch", ["curve.nc", "scores.nc"])
    (run,) = find_runs([tmp_path])[0]
    assert run.outcomes == ["curve.nc"] and run.tables() == {}


def test_a_run_without_heads_is_shown_with_its_model(tmp_path):
    attrs = about("steering", "owner--model", "main")
    curve = xr.Dataset({"effect": ("strength", [0.0, 1.0])}, attrs=attrs)
    detected(tmp_path, "induction", planted(2, 3, (1, 1)))
    store.save(recorded(tmp_path / "steer", "steer", ["curve.nc"]) / "curve.nc", curve)
    (model,) = page_of(tmp_path)["models"]
    (found,) = model["results"]
    assert found["tables"][0]["columns"][0]["values"] == [0, 1] and model["heads"] == 3
    assert page_of(tmp_path)["runs"][found["run"]]["shown"] is False


def test_how_many_were_drawn_is_read_from_the_cases(tmp_path):
    cases = xr.Dataset(
        {"mc1": (("condition", "question"), np.ones((2, 5)))},
        attrs={"sample_dims": "question text"},
    )
    place = recorded(tmp_path / "iti", "iti", ["scores.nc", "curve.nc"])
    store.save(place / "scores.nc", cases)
    store.save(place / "curve.nc", xr.Dataset({"effect": ("k", [1.0])}))
    assert page_of(tmp_path)["runs"][0]["count"] == "5 question"


def test_files_in_other_folders_are_named_and_not_read(tmp_path):
    recorded(tmp_path / "run", "das", ["intervention/tensors.safetensors", "../up.png", 7])
    assert page_of(tmp_path)["runs"][0]["files"] == [
        "intervention/tensors.safetensors",
        "../up.png",
    ]


@pytest.mark.parametrize(
    ("recipe", "arguments", "file", "kind"),
    [
        ("ioi", {"site": "z"}, "heads.nc", "ioi"),
        ("ioi", {"site": "k"}, "heads.nc", "ioi k"),
        ("path", {"receivers": "2.0,2.1"}, "heads.nc", "path to 2.0,2.1"),
        ("writes", {"kind": "copy", "site": "q"}, "heads.nc", "writes copy"),
        ("iti", {}, "probes.nc", "iti probes"),
    ],
)
def test_scores_of_one_recipe_are_told_apart(recipe, arguments, file, kind, tmp_path):
    values = xr.DataArray(np.ones((2, 2)), dims=("layer", "head"), name="effect")
    store.save(recorded(tmp_path / "run", recipe, [file], **arguments) / file, values.to_dataset())
    assert page_of(tmp_path)["models"][0]["scores"][0]["kind"] == kind


def test_what_is_on_a_page_is_json(tmp_path):
    paired(tmp_path)
    pictured(tmp_path / "run", curve=png())
    json.dumps(page_of(tmp_path), allow_nan=False)
