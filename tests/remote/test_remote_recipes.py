"""Every recipe and every head type gives the same numbers on a server that has never heard of this
project.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from nnheads.recipes import _app as cli

from nnheads.detectors._catalog import head_types, types

RECIPES = {
    "ioi": ["-n", "6"],
    "ioi-roles": ["ioi", "-n", "4", "--roles"],
    "ioi-pattern": ["ioi", "-n", "4", "--site", "pattern"],
    "inspect": [],
    "match": [],
    "patch": [],
    "knockout": ["-n", "4", "--behaviour", "induction", "--draws", "3"],
    "path": ["-n", "4"],
    "path-heads": ["path", "-n", "4", "--receivers", "L3H1,L2H2", "--via", "q"],
    "circuit": ["-n", "3", "--top", "4", "--subsets", "2", "--greedy", "1"],
    "writes": [],
    "writes-composition": ["writes", "--kind", "composition"],
    "function-vectors": ["-n", "2", "--averaged", "4", "--shots", "2"],
    "iti-fit": ["iti", "fit", "-n", "20", "--alpha", "1", "--heads", "4"],
    "iti-evaluate": [
        "iti",
        "evaluate",
        "-n",
        "20",
        "--alpha",
        "1",
        "--heads",
        "4",
        "--draws",
        "1",
        "--samples",
        "2",
        "--new-tokens",
        "3",
    ],
    "steer": ["--strength", "1", "--new-tokens", "3", "--draws", "2"],
}
WIDTH = {"torch.float32": 4, "torch.int64": 8}
FREE = {
    "torch",
    "numpy",
    "nnsight",
    "builtins",
    "collections",
    "_codecs",
    "cloudpickle",
    "transformers",
}


def issue(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.app([*arguments, "--quiet"])
    return ended.value.code


def datasets(folder: Path) -> dict[str, xr.Dataset]:
    return {
        str(path.relative_to(folder)): xr.load_dataset(path)
        for path in sorted(folder.rglob("*.nc"))
    }


def assert_same(here: dict[str, xr.Dataset], there: dict[str, xr.Dataset]) -> None:
    assert here and here.keys() == there.keys()
    for name, dataset in here.items():
        for variable, values in dataset.variables.items():
            other = there[name][variable].values
            if values.dtype.kind == "f":
                np.testing.assert_allclose(
                    other, values.values, atol=2e-5, rtol=1e-4, err_msg=f"{name} {variable}"
                )
            else:
                np.testing.assert_array_equal(other, values.values, err_msg=f"{name} {variable}")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_give_the_same_numbers_without_weights_and_gradients(
    name, sandbox, tmp_path, capsys, monkeypatch
):
    server = sandbox
    # branches are read here alone; that they give the same is tested where they are
    monkeypatch.setattr("nnheads.truth.branches.shareable", lambda *_: False)
    arguments = (
        RECIPES[name]
        if RECIPES[name] and not RECIPES[name][0].startswith("-")
        else [name, *RECIPES[name]]
    )
    before = len(server.executed)
    assert issue(*arguments, "-o", str(tmp_path / "there"), "--remote", server.url) == 0
    said = capsys.readouterr()
    assert issue(*arguments, "-o", str(tmp_path / "here")) == 0
    assert capsys.readouterr().out == said.out.replace(
        str(tmp_path / "there"), str(tmp_path / "here")
    )
    assert_same(datasets(tmp_path / "here"), datasets(tmp_path / "there"))
    jobs = server.executed[before:]
    notes, last = said.err.splitlines()[:-1], said.err.splitlines()[-1]
    assert last.startswith("1 job on" if len(jobs) == 1 else f"{len(jobs)} jobs on a server")
    assert bool(notes) == name.startswith("iti")
    assert all("a server sends back" in note and "kB a prompt" in note for note in notes)
    records = [
        json.loads(path.read_text())["remote"] for path in (tmp_path / "there").rglob("run.json")
    ]
    assert sum(record["jobs"] for record in records) == len(jobs)
    assert sum(record["bytes_up"] for record in records) == sum(job["up"] for job in jobs)
    assert sum(record["bytes_down"] for record in records) == sum(job["down"] for job in jobs)
    for job in jobs:
        assert not set(job["modules"]) - FREE, job["modules"]


def test_all_head_types_at_once_take_few_jobs_and_little_comes_back(server, tmp_path):
    before = len(server.executed)
    assert (
        issue("detect", "all", "-n", "4", "-o", str(tmp_path / "there"), "--remote", server.url)
        == 0
    )
    jobs = server.executed[before:]
    assert issue("detect", "all", "-n", "4", "-o", str(tmp_path / "here")) == 0
    here, there = datasets(tmp_path / "here"), datasets(tmp_path / "there")
    assert {name.split("/")[-2] for name in here} == set(types())
    assert_same(here, there)
    assert (
        len(jobs) <= 2 * len({one.prompts for one in head_types("all")}) + 3
    )  # reading and the gate; answers are written and read again
    for job in jobs:
        assert not set(job["modules"]) - FREE, job["modules"]
        tensors = [one for saved in job["saved"].values() for one in saved]
        wanted = sum(int(np.prod(shape)) * WIDTH[dtype] for dtype, shape, _ in tensors)
        assert (
            sum(stored for _, _, stored in tensors) == wanted
        )  # no view drags what it is a view of along
        assert job["down"] <= wanted + 20_000


def test_gradients_are_refused_before_anything_is_sent(sandbox, tmp_path, capsys):
    before = len(sandbox.executed)
    assert issue("attribute", "-n", "4", "-o", str(tmp_path), "--remote", sandbox.url) == 1
    said = capsys.readouterr().err
    assert (
        said.count("\n") == 1
        and "gradients do not run in NDIF's sandbox" in said
        and "--trusted" in said
    )
    assert len(sandbox.executed) == before


def test_a_server_that_trusts_us_computes_gradients(server, tmp_path):
    options = ("attribute", "-n", "4", "--trusted", "-o")
    assert issue(*options, str(tmp_path / "there"), "--remote", server.url) == 0
    assert issue(*options, str(tmp_path / "here")) == 0
    assert_same(datasets(tmp_path / "here"), datasets(tmp_path / "there"))
