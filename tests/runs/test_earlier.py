"""What a run finds in its folder: taken up, refused or deleted, and never mixed with others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from nnheads.errors import BadInput
from nnheads.runs.folder import Run
from nnheads.runs.store import save


@pytest.fixture
def dataset() -> xr.Dataset:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    return xr.Dataset({"effect": (("batch", "layer"), values)})


def run(root, **changes) -> Run:
    overwrite = changes.pop("overwrite", False)
    options = {"seed": 0, "layers": None, **changes}
    return Run(root, "ioi", "owner/name", "main", options, overwrite=overwrite)


def test_the_same_command_takes_a_run_up_and_another_is_refused(tmp_path, dataset):
    first = run(tmp_path)
    assert not first.complete
    save(first.parts / "part.nc", dataset)
    second = run(tmp_path, batch_size=7, quiet=True, traceback=True, output=tmp_path)
    assert not second.complete and (second.parts / "part.nc").exists()
    with pytest.raises(
        BadInput, match=r"another run \(layers None there, '0-3' here, seed 0 there, 1 here\)"
    ) as no:
        run(tmp_path, seed=1, layers="0-3")
    assert (
        "use --overwrite, or another --output" in str(no.value)
        and len(str(no.value).splitlines()) == 1
    )
    assert (second.parts / "part.nc").exists(), "a refusal changes nothing"


def test_a_complete_run_is_complete_until_a_file_of_it_is_gone(tmp_path, dataset):
    first = run(tmp_path)
    first.save(scores=dataset)
    save(first.parts / "part.nc", dataset)
    assert not run(tmp_path).complete
    first.finish(kept=2)
    assert not first.parts.exists() and run(tmp_path).complete
    record = json.loads((first.folder / "run.json").read_text())
    assert (
        record["kept"] == 2
        and record["recipe"] == "ioi"
        and record["arguments"] == {"layers": None, "seed": 0}
    )
    assert run(tmp_path).load("scores")["effect"].shape == (2, 3)
    (first.folder / "scores.nc").unlink()
    assert not run(tmp_path).complete, "the same command finishes what is missing"


def test_overwrite_starts_afresh(tmp_path, dataset):
    first = run(tmp_path)
    first.save(scores=dataset)
    first.finish()
    second = run(tmp_path, seed=1, overwrite=True)
    assert not second.complete and not list(second.folder.iterdir())


def test_overwrite_deletes_what_the_run_wrote_and_nothing_else(tmp_path, dataset):
    first = run(tmp_path)
    first.save(scores=dataset)
    first.keep("found.json", "[]")
    first.own("intervention").mkdir()
    first.finish()
    inner = Run(tmp_path, "ioi", "owner/name", "main", {"seed": 0}, item="inner")
    inner.save(scores=dataset)
    inner.finish()
    (first.folder / "notes.txt").write_text("mine")
    (first.folder / "own.nc").write_text("mine")
    run(tmp_path, seed=1, overwrite=True)
    left = {path.name for path in first.folder.iterdir()}
    assert left == {"notes.txt", "own.nc", "inner"} and inner.complete


def test_a_record_cannot_name_what_is_elsewhere(tmp_path, dataset):
    first = run(tmp_path)
    first.save(scores=dataset)
    first.finish()
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    path = first.folder / "run.json"
    names = ["..", ".", "", "/", str(mine), "../" * 4 + "mine.txt", "scores.nc"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "owned": names}))
    run(tmp_path, overwrite=True)
    assert mine.read_text() == "mine" and not (first.folder / "scores.nc").exists()


def test_results_without_a_record_are_not_replaced(tmp_path, dataset):
    first = run(tmp_path)
    first.save(scores=dataset)
    first.finish()
    (first.folder / "run.json").unlink()
    with pytest.raises(BadInput, match=r"scores\.nc"):
        run(tmp_path, seed=1)
    assert (first.folder / "scores.nc").is_file()


def test_a_run_that_kept_nothing_is_not_in_the_way(tmp_path, dataset):
    refused = run(tmp_path, seed=1)
    assert not refused.folder.exists(), "nothing is written before something is kept"
    refused.own("found.json")  # announced, and never written
    assert not run(tmp_path, seed=2).complete
    refused.keep("found.json", "[]")
    with pytest.raises(BadInput, match="another run"):
        run(tmp_path, seed=2)


@pytest.mark.parametrize("change", [lambda data: data[:3000], lambda data: data[:-1] + b"?"])
def test_a_finished_run_with_a_damaged_file_is_not_complete(tmp_path, dataset, change):
    first = run(tmp_path)
    first.save(scores=dataset)
    first.finish()
    assert run(tmp_path).complete
    path = first.folder / "scores.nc"
    path.write_bytes(change(path.read_bytes()))
    again = run(tmp_path)
    assert not again.complete
    again.save(scores=dataset)
    again.finish()
    assert run(tmp_path).complete


def test_paths_and_other_objects_are_arguments_too(tmp_path):
    options = {"prompts": Path("/some/where/pairs.jsonl"), "gap": 0.1, "layers": (1, 2)}
    run(tmp_path, **options).keep("found.json", "[]")
    assert not run(tmp_path, **options).complete
    text = (run(tmp_path, **options).folder / "run.json").read_text()
    assert "pairs.jsonl" in text and "/some/where" not in text
    with pytest.raises(BadInput, match="another run"):
        run(tmp_path, **{**options, "prompts": Path("/some/where/others.jsonl")})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"3",
        b"\xff\xfe",
        b'{"arguments": [], "complete": true}',
        b'{"arguments": {}}',
    ],
)
def test_a_corrupt_record_is_refused_and_overwritten_on_demand(tmp_path, content):
    path = run(tmp_path).own("scores.nc").with_name("run.json")
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"run\.json is not a record of a run"):
        run(tmp_path)
    assert path.read_bytes() == content
    assert not run(tmp_path, overwrite=True).complete
