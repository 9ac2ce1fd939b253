"""The function-vector study on the shipped model, which tells the truth once examples do: what
carries that.
"""

from __future__ import annotations

import functools
import json

import commands
import numpy as np
import pytest
import xarray as xr

from nnheads.prompts import world
from nnheads.runs import store

command = functools.partial(commands.command, "function-vectors")

SMALL = ("--averaged", "8", "--limit", "6", "--top", "3", "--quiet")


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("results")
    command(*SMALL, "--output", str(output))
    return output / "function-vectors" / "reference" / "shipped"


def test_files_open_and_say_where_they_are_from(run_folder):
    for name in ("scores", "heads", "vectors", "zero_shot"):
        with xr.open_dataset(run_folder / f"{name}.nc") as data:
            assert data.attrs["model"] == "reference" and len(json.loads(data.attrs["tasks"])) == 8
            assert (
                json.loads(data.attrs["arguments"])["shots"] == 10
                and data.attrs["not_done"] == "[]"
            )
            for variable in data.data_vars.values():
                assert {"long_name", "units"} <= set(variable.attrs), variable.name
    for name in ("heads", "zero_shot"):
        assert (run_folder / f"{name}.png").stat().st_size > 2000
    assert not list(run_folder.glob("**/.*")) and not (run_folder / "parts").exists()


def test_one_head_carries_the_task_and_its_vector_does_it(run_folder):
    heads, zero_shot = store.load(run_folder / "heads.nc"), store.load(run_folder / "zero_shot.nc")
    aie = heads["aie"].to_series()
    assert aie.idxmax() == (2, 1) and aie.max() > 0.3 > 0.1 > aie.drop((2, 1)).max()
    assert (
        int(heads["flag"].sel(layer=2, head=1)) == 1
        and float(heads["aie_shuffled"].sel(layer=2, head=1)) < 0.05
    )
    best = zero_shot["accuracy_shown"].max()
    assert best > 0.85 and float(zero_shot["accuracy_before"]) < 0.4
    assert (
        best > zero_shot["accuracy_random"].max() + 0.2
        and best > zero_shot["accuracy_shuffled"].max() + 0.4
    )
    vectors = store.load(run_folder / "vectors.nc")
    assert (
        vectors["vector"].dims == ("task", "width") and float(np.abs(vectors["vector"]).max()) > 0
    )
    assert (
        float(vectors["accuracy_shown"].min()) > 0.8
        and float(vectors["accuracy_shuffled"].max()) < 0.7
    )


def test_means_over_tasks_are_what_they_say(run_folder):
    scores, heads = store.load(run_folder / "scores.nc"), store.load(run_folder / "heads.nc")
    assert scores["cie"].dims == ("batch", "layer", "head") and scores.sizes["batch"] == 8 * 6
    for suffix in ("", "_shuffled", "_other"):
        by_task = scores[f"cie{suffix}"].groupby("task").mean("batch").mean("task")
        np.testing.assert_allclose(heads[f"aie{suffix}"], by_task, atol=1e-6)
    zero_shot = store.load(run_folder / "zero_shot.nc")
    assert zero_shot.sizes["question"] == 8 * 6 and len(set(zero_shot["input"].values)) == 48
    assert not set(zero_shot["input"].values) & set(scores["input"].values), (
        "questions are held out"
    )
    by_task = zero_shot["right_shown"].groupby("task").mean("question").mean("task")
    np.testing.assert_allclose(zero_shot["accuracy_shown"], by_task, atol=1e-6)


def test_the_same_command_again_computes_nothing(run_folder, capsys, monkeypatch):
    with commands.untouched(run_folder, monkeypatch):
        command(*SMALL, "--output", str(run_folder.parents[2]))
    out = capsys.readouterr().out
    for text in (
        "task tree: ",
        "L2H1",
        "heads beyond shuffled examples",
        "added before layer",
        "questions without",
    ):
        assert text in out


def test_tasks_of_ones_own(tmp_path, capsys):
    """One task that the model does, one that it does not, one that is too small; in a rehearsal
    too.
    """
    facts = [(q.text, q.true, q.misconception) for q in world.questions() if q.relation == "tree"]
    lines = [{"task": "truth", "input": text, "output": true} for text, true, _ in facts]
    lines += [{"task": "nonsense", "input": text, "output": "otter"} for text, _, _ in facts[:12]]
    lines += [{"task": "nonsense", "input": text, "output": "judo"} for text, _, _ in facts[12:]]
    lines += [{"task": "small", "input": text, "output": true} for text, true, _ in facts[:5]]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    layout = ("--question", "{}", "--answer", " {} .", "--gap", " ", "--shots", "6")
    found = []
    for number, remote in enumerate(((), ("--remote", "local"))):
        output = tmp_path / str(number)
        command(
            *SMALL,
            *layout,
            "--tasks",
            str(tmp_path / "own.jsonl"),
            "--output",
            str(output),
            *remote,
        )
        found.append(store.load(output / "function-vectors" / "reference" / "shipped" / "heads.nc"))
    here, there = found
    assert json.loads(here.attrs["tasks"]) == ["truth"] and json.loads(here.attrs["not_done"]) == [
        "nonsense"
    ]
    assert (
        "5 of 5 pairs can be used, 6 shots need 9" in here.attrs["dropped"]
        and "aie_other" not in here
    )
    np.testing.assert_allclose(here["aie"], there["aie"], atol=1e-5)
    out = capsys.readouterr().out
    assert "another task" not in out, "there is none"
    assert "task nonsense: 0% right with examples" in out and "(left out: not done)" in out
    assert "task small left out: 5 of 5 pairs can be used" in out


def test_another_task_stands_beside_the_own_one_and_what_it_does_as_well_is_said(
    run_folder, capsys
):
    """All tasks of the shipped model's world are one: tell the truth.

    Another task's mean carries it too.
    """
    scores, heads = store.load(run_folder / "scores.nc"), store.load(run_folder / "heads.nc")
    by_task = (scores["cie"] - scores["cie_other"]).groupby("task").mean("batch").mean("task")
    np.testing.assert_allclose(heads["excess_other"], by_task, atol=1e-6)
    assert (heads["excess_other_low"] <= heads["excess_other"]).all() and heads[
        "excess_other"
    ].attrs["units"] == "1"
    command(*SMALL, "--output", str(run_folder.parents[2]))
    lines = capsys.readouterr().out.splitlines()
    place = next(
        number for number, line in enumerate(lines) if line.startswith("average indirect effect")
    )
    assert lines[place].endswith(
        "beyond shuffled examples (*); beside it that of another task's mean:"
    )
    first = lines[place + 1].split()
    assert first[0] == "L2H1" and float(first[-1]) == round(
        float(heads["aie_other"].sel(layer=2, head=1)), 3
    )
    best = [line.split()[0] for line in lines[place + 1 : place + 4]]
    unclear = [
        name
        for name in best
        if float(heads["excess_other_low"].sel(layer=int(name[1]), head=int(name[3]))) <= 0
    ]
    assert "L2H1" in unclear
    said = (
        f"another task's mean does as well, as far as can be told, in {', '.join(unclear)}: these"
        " carry no task of"
    )
    assert lines[place + 4].startswith(said)
