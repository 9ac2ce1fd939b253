"""Claims as data: files that ship, files that are broken, numbers that are read off a run, and
their verdicts.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from nnheads.claims.claim_files import FOLDER, claims_of, files, read_claims
from nnheads.claims.measures import MEASURES, Setting, Unavailable, measure
from nnheads.claims.values import value_of
from nnheads.claims.verdicts import FAIL, PASS, SKIP, WARN, unmet, verdict
from nnheads.errors import BadInput

CLAIM = {
    "id": "one",
    "claim": "L0H1 looks back",
    "source": "somebody",
    "kind": "value",
    "published": 0.5,
    "how": {"measure": "detect", "type": "induction"},
    "where": {"variable": "mass", "head": "0.1"},
}


def written(tmp_path, *changes: dict, **more):
    rows = [
        {**CLAIM, "id": str(number), **change} for number, change in enumerate(changes or ({},))
    ]
    path = tmp_path / "claims.json"
    path.write_text(json.dumps({"model": "m", "claims": rows, **more}))
    return path


def only(tmp_path, **change):
    return read_claims(written(tmp_path, change)).claims[0]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_what_ships_is_sound_and_sourced(path):
    found = read_claims(path)
    assert claims_of(found.model).claims == found.claims
    for claim in found.claims:
        assert claim.how["measure"] in MEASURES and claim.source and len(claim.claim) > 10, claim.id


def test_some_claims_say_that_something_is_not_so():
    for name in ("reference", "gpt2", "Llama-2-7b-hf", "Llama-2-7b-chat-hf", "pythia-6.9b-deduped"):
        assert any(claim.negative for claim in claims_of(name).claims), name


def test_models_are_found_by_every_name_that_they_have(tmp_path):
    assert {"gpt2", "openai-community/gpt2", "reference", "EleutherAI/pythia-6.9b-deduped"} <= set(
        files()
    )
    (tmp_path / "gpt2").mkdir()
    assert claims_of(str(tmp_path / "gpt2")).model == "openai-community/gpt2"
    with pytest.raises(
        BadInput,
        match=r"there are no claims about 'owner/name'",
    ):
        claims_of("owner/name")


def test_grids_of_gpt2_are_whole():
    grids = claims_of("gpt2").grids
    assert {grid.shape for grid in grids.values()} == {(12, 12)} and grids["previous_token"][
        4, 11
    ] == 0.9921


BROKEN = {
    "no object": ([], "holds no claims"),
    "no claims": ({"model": "m", "claims": []}, "holds no claims"),
    "no model": ({"claims": [CLAIM]}, "holds no claims"),
    "a field too many": (
        {"model": "m", "claims": [CLAIM], "x": 1},
        "unknown field 'x'; expected model, aliases",
    ),
    "aliases that are none": (
        {"model": "m", "claims": [CLAIM], "aliases": "a"},
        "aliases is 'a'; expected a list",
    ),
    "a need of nothing": (
        {"model": "m", "claims": [{**CLAIM, "requires": "b"}]},
        "claim one: requires is 'b'",
    ),
    "a need of itself": (
        {"model": "m", "claims": [{**CLAIM, "requires": "one"}]},
        "claim one: requires is .*chain",
    ),
    "needs in a circle": (
        {
            "model": "m",
            "claims": [{**CLAIM, "requires": "b"}, {**CLAIM, "id": "b", "requires": "one"}],
        },
        "claim one: requires is .*chain",
    ),
    "an id twice": ({"model": "m", "claims": [CLAIM, CLAIM]}, "the id 'one' comes twice"),
    "grids that are none": (
        {"model": "m", "claims": [CLAIM], "grids": [1]},
        r"grids is \[1\]; expected an object",
    ),
    "a ragged grid": (
        {"model": "m", "claims": [CLAIM], "grids": {"g": [[1], [1, 2]]}},
        "grids: g is .*; expected rows",
    ),
}
WRONG = {
    "a claim of nothing": ("nothing", "claim 1 is 'nothing'; expected an object"),
    "an unknown field": (
        {"cited": 1},
        r"claim 1 \(one\): unknown field 'cited'; expected id, claim",
    ),
    "no source": ({"source": " "}, "source is ' '; expected a text"),
    "an unknown kind": (
        {"kind": "about"},
        "kind is 'about'; expected one of value, at_least, at_most",
    ),
    "a number in words": ({"published": "half"}, "published is 'half'; expected a number"),
    "a number that is true": ({"published": True}, "published is True; expected a number"),
    "a tolerance below nothing": ({"tolerance": -1}, "tolerance is -1; expected a number from 0"),
    "a warning that is narrower": (
        {"tolerance": 1, "warn": 0.5},
        "warn is 0.5; expected at least the tolerance, 1",
    ),
    "negative in words": ({"negative": "no"}, "negative is 'no'; expected true or false"),
    "a need in numbers": ({"requires": 3}, "requires is 3; expected a text"),
    "no measure": ({"how": {"type": "induction"}}, "how is .*; expected an object with measure"),
    "no variable": ({"where": {"head": "0.1"}}, "where is .*; expected an object with variable"),
    "another place": (
        {"where": {"variable": "mass", "row": 1}},
        "where: unknown field 'row'; expected variable, head",
    ),
    "no head": (
        {"where": {"variable": "mass", "head": "best"}},
        "where: .*'best'",
    ),
    "heads in one text": (
        {"where": {"variable": "mass", "heads": "1.1"}},
        "heads is '1.1'; expected a list such as",
    ),
    "another reduction": (
        {"where": {"variable": "mass", "reduce": "mode"}},
        "reduce is 'mode'; expected one of",
    ),
    "a top of none": (
        {"where": {"variable": "mass", "heads": ["1.1"], "among_top": 0}},
        "among_top is 0; expected",
    ),
    "a top of nobody": (
        {"where": {"variable": "mass", "among_top": 3}},
        "heads is missing; expected .* among_top",
    ),
    "a limit in words": (
        {"where": {"variable": "mass", "share_above": "half"}},
        "share_above is 'half'; expected a",
    ),
    "an unknown grid": (
        {"where": {"variable": "mass", "correlation": "g"}},
        "correlation is 'g'; expected one of none",
    ),
}


@pytest.mark.parametrize("name", [*BROKEN, *WRONG])
def test_broken_files_are_one_line(tmp_path, name):
    content, message = {**BROKEN, **WRONG}[name]
    if name in WRONG:
        content = {
            "model": "m",
            "claims": [content if isinstance(content, str) else {**CLAIM, **content}],
        }
    path = tmp_path / "claims.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BadInput, match=message) as raised:
        read_claims(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_files_that_are_no_json(tmp_path):
    for content, message in (
        (b"{", "is not JSON: Expecting"),
        (b"\xff", "is not JSON: 'utf-8'"),
        (b"[" * 99_999, "nest"),
    ):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(BadInput, match=message):
            read_claims(tmp_path / "a.json")
    with pytest.raises(BadInput, match=r"no file .*expected claims as in"):
        read_claims(tmp_path / "b.json")


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from([*CLAIM, "claims", "model", "grids", "variable", "heads", "measure"])
CONTENT = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
)


@given(field=st.sampled_from(sorted(CLAIM)), value=CONTENT, grids=CONTENT)
def test_any_field_is_read_or_refused(field, value, grids, tmp_path_factory):
    path = tmp_path_factory.mktemp("claims") / "a.json"
    path.write_text(json.dumps({"model": "m", "grids": grids, "claims": [{**CLAIM, field: value}]}))
    try:
        assert read_claims(path).claims
    except BadInput as error:
        assert str(path) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("kind", "measured", "expected"),
    [
        ("value", 0.5, PASS),
        ("value", 0.6, PASS),
        ("value", 0.4, PASS),
        ("value", 0.65, WARN),
        ("value", 0.31, WARN),
        ("value", 0.75, FAIL),
        ("at_least", 9.0, PASS),
        ("at_least", 0.4, PASS),
        ("at_least", 0.35, WARN),
        ("at_least", 0.2, FAIL),
        ("at_most", -9.0, PASS),
        ("at_most", 0.6, PASS),
        ("at_most", 0.69, WARN),
        ("at_most", 0.71, FAIL),
        ("value", float("nan"), FAIL),
        ("at_most", float("-inf"), FAIL),
    ],
)
def test_verdicts(tmp_path, kind, measured, expected):
    assert verdict(only(tmp_path, kind=kind, tolerance=0.1, warn=0.2), measured) == expected


def test_claims_wait_for_what_they_require(tmp_path):
    """A chain: what is required must itself be held to what it requires."""
    rows = [{"id": "a"}, {"id": "b", "requires": "a"}, {"id": "c", "requires": "b"}, {"id": "d"}]
    claims = {one.id: one for one in read_claims(written(tmp_path, *rows)).claims}
    assert [one.requires for one in claims.values()] == ["", "a", "b", ""]
    passing = dict.fromkeys(claims, PASS)
    assert {unmet(one, claims, passing) for one in claims.values()} == {""}
    for word in (FAIL, WARN, SKIP):
        found = {name: unmet(one, claims, {**passing, "a": word}) for name, one in claims.items()}
        assert (
            found["a"] == found["d"] == ""
            and f"needs a, which does not pass ({word})" in found["b"]
        )
        assert "needs b, which does not pass (skip)" in found["c"]
    assert unmet(claims["c"], claims, {**passing, "c": FAIL}) == ""


def test_what_the_reference_loses_it_can_do():
    """A model that never copied would keep every claim that copying ends."""
    claims = {one.id: one for one in claims_of("reference").claims}
    for one in claims.values():
        if (
            one.how["measure"] == "knockout"
            and one.how["behaviour"] in ("induction", "ioi")
            and one.id != "copy-base"
        ):
            assert claims[one.requires].kind == "at_least", one.id


RUN = xr.Dataset(
    {
        "mass": (("head", "layer"), np.array([[0.1, 0.4], [0.9, np.nan], [0.3, 0.2]])),
        "base": 0.75,
        "k": ("step", [1, 2]),
    },
)
GRID = np.array([[0.2, 1.8, 0.6], [0.8, 9.0, 0.4]])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"head": "0.1"}, 0.9),
        ({"heads": ["0.0", "1.0"], "reduce": "mean"}, 0.25),
        ({"heads": ["0.0", "1.0"], "reduce": "min"}, 0.1),
        ({"heads": ["0.0", "1.0"], "reduce": "sum"}, 0.5),
        ({"reduce": "max"}, 0.9),
        ({"heads": ["0.1", "1.0", "0.0"], "among_top": 2}, 2),
        ({"heads": ["0.0", "1.2", "0.1"], "among_bottom": 2}, 2),
        ({"heads": ["1.1"], "among_top": 6}, 0),
        ({"count_above": 0.25}, 3),
        ({"share_above": 0.25}, 0.5),
        ({"correlation": "g"}, 1.0),
    ],
)
def test_readings(tmp_path, where, expected):
    path = written(tmp_path, {"where": {"variable": "mass", **where}}, grids={"g": GRID.tolist()})
    found = read_claims(path)
    np.testing.assert_allclose(value_of(found.claims[0], RUN, found.grids), expected)


def test_a_number_of_the_whole_run(tmp_path):
    assert value_of(only(tmp_path, where={"variable": "base"}), RUN, {}) == 0.75


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"variable": "hit", "head": "0.0"}, "claim 0: detect has no 'hit'; it has mass, base, k"),
        ({"variable": "k"}, "k is by step; expected layer and head"),
        ({"variable": "mass", "head": "2.0"}, "L2H0 does not exist"),
        (
            {"variable": "mass"},
            "mass has a value for every head; name one, or say how to reduce them",
        ),
        (
            {"variable": "mass", "correlation": "g"},
            "the grid is of 1 layers of 2 heads, this model has 2 of 3",
        ),
    ],
)
def test_readings_that_cannot_be_made(tmp_path, where, message):
    found = read_claims(written(tmp_path, {"where": where}, grids={"g": [[1, 2]]}))
    with pytest.raises(BadInput, match=message):
        value_of(found.claims[0], RUN, found.grids)


def test_measures_say_what_they_do_not_know(tmp_path):
    for how, message in (
        ({"measure": "guess"}, "measure 'guess' is not known; use one of detect, patch"),
        ({"measure": "copy", "limit": 3}, "measure copy knows no 'limit'; it knows top"),
        ({"measure": "knockout"}, "measure knockout cannot be asked for"),
        (
            {"measure": "knockout", "behaviour": "ioi", "heads": [1]},
            "knockout cannot be asked for .*: ",
        ),
        (
            {"measure": "patch", "pairs": [{"clean": "a"}]},
            "pairs are objects with clean, corrupted, answer, wrong",
        ),
        ({"measure": "detect", "type": "none"}, "'none'.*attention_sink"),
    ):
        with pytest.raises(BadInput, match=message):
            measure(None, how, Setting())
    with pytest.raises(Unavailable, match=r"a\.json is not here"):
        measure(None, {"measure": "file", "name": "a.json"}, Setting(files=tmp_path))


def test_published_files_are_measured_without_a_model(tmp_path):
    """A list that names every head chooses none: what Head_interpret's iteration file is, made
    small.
    """
    places = np.array([(layer, head, 0.01 * head) for layer in range(4) for head in range(8)])
    np.save(tmp_path / "iteration.npy", places)
    found = measure(None, {"measure": "file", "name": "iteration.npy"}, Setting(files=tmp_path))
    assert float(found["listed"]) == 1 and float(found["score"][2, 3]) == pytest.approx(0.03)
    np.save(tmp_path / "some.npy", places[::2])
    found = measure(None, {"measure": "file", "name": "../x/some.npy"}, Setting(files=tmp_path))
    assert float(found["listed"]) == pytest.approx(16 / 28)
