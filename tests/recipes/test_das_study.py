"""`nnheads das` as a user issues it: what is printed and saved, own pairs, and taking a run up
again.
"""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace

import commands
import numpy as np
import pytest
import xarray as xr
from commands import folder_of
from nnheads.recipes._das import layers_of

from nnheads.interventions import index, localise, role
from nnheads.interventions.files import load
from nnheads.models import geometry as shapes

command = functools.partial(commands.command, "das")

SMALL = "--at S2,END --layers 0,1 --steps 12 -n 64 --test 32 --learning-rate 0.03".split()


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """The study on the reference model, once: what it printed, and its folder."""
    return commands.study(tmp_path_factory, "das", *SMALL)


def test_the_place_of_the_indirect_object_is_found_and_said(aligned):
    out, folder = aligned
    lines = out.splitlines()
    assert lines[0].startswith(
        "position (ioi): the indirect object is the name that is not repeated; 64 of 64 prompts"
    )
    assert lines[2].split() == ["layer", "S2", "END"]
    assert float(lines[4].split()[1]) > 0.9 and float(lines[3].split()[2]) == 0.5
    assert lines[5] == "best on pairs left out of training: layer 1, S2 [95% interval]"
    assert lines[6].split() == ["all", "32", "pairs", "the", "16", "whose", "answer", "changes"]
    with (
        xr.open_dataset(folder / "scores.nc") as scores,
        xr.open_dataset(folder / "places.nc") as table,
    ):
        assert dict(scores.sizes) == {"batch": 32, "layer": 2, "place": 2}
        assert (
            json.loads(scores.attrs["arguments"])["variable"] is None
            and "2303.02536" in scores.attrs["references"]
        )
        np.testing.assert_allclose(table["trained"], scores["trained"].mean("batch"), atol=1e-6)
        best = table.sel(layer=1, place="S2")
        assert float(best["trained_low"]) > float(best["random_high"])
        words = lines[7].replace("[", "").replace("]", "").replace(",", "").split()[-6:]
        ends = [
            f"trained{which}{end}" for which in ("", "_changed") for end in ("", "_low", "_high")
        ]
        assert words == [f"{float(best[name]):.3f}" for name in ends]
        assert float(best["trained_changed"]) > 0.8 > 0.2 >= float(best["random_changed"]), (
            "nothing is free here"
        )
        assert lines[11].startswith("  no intervention ") and lines[11].endswith("0.000"), (
            "by what they are"
        )
    assert (folder / "places.png").stat().st_size > 2000 and not (folder / "parts").exists()


def test_what_was_found_is_an_intervention(aligned):
    _, folder = aligned
    found = load(folder / "intervention")
    assert (found.edits[0].layer, found.edits[0].at, found.sources) == (1, role("S2"), 1)
    assert abs(float(found.tensors["rotation"].norm()) - 1) < 1e-5


def test_the_same_command_again_computes_nothing(aligned, monkeypatch):
    out, folder = aligned
    monkeypatch.setattr(localise, "localise", None)
    assert command(*SMALL, "-o", str(folder.parents[3])) == out


def test_own_pairs_on_an_own_model(tmp_path, llama_folder):
    names = ("Mary", "John", "Anna", "Leo")
    rows = [
        {"base": f"the code of {one}", "source": f"what is the code of {other}", "answer": other}
        for one in names
        for other in names
        if one != other
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    small = (
        "--steps",
        "3",
        "--step-pairs",
        "4",
        "--layers",
        "2",
        "--kind",
        "boundless",
        "--at",
        "-1,0",
    )
    out = command(
        str(llama_folder),
        "--pairs",
        str(tmp_path / "own.jsonl"),
        *small,
        "-o",
        str(tmp_path / "o"),
    )
    assert (
        "variable of own.jsonl: the answers that the file gives; 12 pairs: 9 to train on, 3 to"
        " test on" in out
    )
    with xr.open_dataset(folder_of(out) / "scores.nc") as scores:
        assert scores["place"].values.tolist() == ["-1", "0"]
        # behind the last layer the last position decides alone: the answer is that of the source
        assert (scores["whole"].sel(place="0") == scores["none"]).all()
    assert load(folder_of(out) / "intervention").edits[0].at in (index(-1), index(0))


@pytest.mark.parametrize(
    ("layers", "quick", "expected"),
    [
        (4, False, [0, 1, 2, 3]),
        (30, False, [0, 6, 12, 17, 23, 29]),
        (30, True, [0, 10, 19, 29]),
    ],
)
def test_without_layers_some_are_searched_and_said(layers, quick, expected, capsys, monkeypatch):
    """Of a deep model's, each of which takes minutes, some that are spread over all."""
    monkeypatch.setattr(shapes, "geometry", lambda _: SimpleNamespace(layers=layers))
    found = layers_of(SimpleNamespace(model=None, layers=None, quick=quick))
    said = capsys.readouterr().out
    assert found == expected
    assert (f"of {layers}; --layers 0-{layers - 1} for all" in said) == (len(found) < layers)
