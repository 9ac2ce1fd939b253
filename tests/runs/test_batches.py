"""Slices in, the whole out; whatever ends a run, what was finished is not computed again."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import warm
import xarray as xr
from nnheads.recipes import _app as cli
from random_models import words_tokenizer

from nnheads.errors import BadInput
from nnheads.prompts.ioi import ioi
from nnheads.runs import batches
from nnheads.runs.folder import Run

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def prompts() -> xr.Dataset:
    return ioi(words_tokenizer(), 10, seed=2)


class Counting:
    """A function over prompts that remembers which it was called with."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, part: xr.Dataset) -> xr.Dataset:
        self.calls.append(part["batch"].values.tolist())
        score = (part["token"] * part["mask"]).sum("position").astype("float32") / 7
        labels = {name: part[name] for name in part.coords if part[name].dims == ("batch",)}
        out = xr.Dataset(
            {
                "score": (
                    score.expand_dims(head=[0, 1], axis=-1).assign_attrs(
                        long_name="a score", units="1", yes=True
                    )
                ),
                "shared": ("head", np.array([1.0, 2.0], np.float32)),
            },
            labels,
            {"direction": "forth"},
        )
        return out.drop_vars([name for name in out.coords if name not in {*labels, "head"}])


@pytest.mark.parametrize("size", [1, 3, 10, 99])
def test_slices_concatenate_to_the_whole(prompts, size):
    whole, sliced = Counting(), Counting()
    xr.testing.assert_identical(batches.run(sliced, prompts, size=size), whole(prompts))
    assert [number for call in sliced.calls for number in call] == list(range(10)) and len(
        sliced.calls
    ) == -(-10 // size)


@pytest.mark.parametrize("size", [1, 4, 99])
def test_prompts_are_taken_in_another_order_and_come_back_in_their_own(prompts, size):
    whole, sliced = Counting(), Counting()
    order = np.random.default_rng(0).permutation(10)
    xr.testing.assert_identical(
        batches.run(sliced, prompts, size=size, order=order), whole(prompts)
    )
    assert [number for call in sliced.calls for number in call] == order.tolist()


def test_only_what_is_missing_is_computed(prompts, tmp_path):
    first, second, third = Counting(), Counting(), Counting()
    expected = batches.run(Counting(), prompts, size=4)
    once = batches.run(first, prompts, size=4, parts=tmp_path)
    assert first.calls == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    again = batches.run(second, prompts, size=4, parts=tmp_path)
    assert second.calls == []
    parts_in(tmp_path)[1].unlink()
    mixed = batches.run(third, prompts, size=4, parts=tmp_path)
    assert len(third.calls) == 1
    for taken_up in (once, again, mixed):
        xr.testing.assert_equal(taken_up, expected)
        assert taken_up["score"].attrs["long_name"] == "a score" and taken_up.attrs == {
            "direction": "forth"
        }
        assert taken_up["score"].dtype == np.float32


def parts_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.nc"))


@pytest.mark.parametrize("damage", [b"", b"no netCDF", None])
def test_a_damaged_part_is_computed_again(prompts, tmp_path, damage):
    batches.run(Counting(), prompts, size=5, parts=tmp_path)
    part = parts_in(tmp_path)[0]
    part.write_bytes(part.read_bytes()[:2000] if damage is None else damage)
    again = Counting()
    xr.testing.assert_equal(
        batches.run(again, prompts, size=5, parts=tmp_path), Counting()(prompts)
    )
    assert len(again.calls) == 1
    batches.run(again, prompts, size=5, parts=tmp_path)
    assert len(again.calls) == 1, "the damaged part was replaced"


def test_parts_that_were_exchanged_or_changed_are_computed_again(prompts, tmp_path):
    """What a part is, and that it is whole, stands in it: its name alone says nothing."""
    batches.run(Counting(), prompts, size=5, parts=tmp_path)
    first, second = parts_in(tmp_path)
    whole = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(whole)
    again = Counting()
    assert_equal = xr.testing.assert_equal
    assert_equal(batches.run(again, prompts, size=5, parts=tmp_path), Counting()(prompts))
    assert len(again.calls) == 2
    missing = batches.store.load(first) * np.nan
    batches.store.save(first, missing)
    bits = bytearray(second.read_bytes())
    bits[len(bits) // 2] ^= 1
    second.write_bytes(bits)
    assert_equal(batches.run(again, prompts, size=5, parts=tmp_path), Counting()(prompts))
    assert len(again.calls) == 4
    for path, other in ((first, second), (second, first)):  # with all that lies beside them
        path.with_suffix(".json").rename(tmp_path / "aside")
        other.with_suffix(".json").rename(path.with_suffix(".json"))
        (tmp_path / "aside").rename(other.with_suffix(".json"))
    batches.run(again, prompts, size=5, parts=tmp_path)
    assert len(again.calls) == 4, "exchanged twice is as it was"
    first.with_suffix(".json").rename(tmp_path / "aside")
    second.with_suffix(".json").rename(first.with_suffix(".json"))
    (tmp_path / "aside").rename(second.with_suffix(".json"))
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    assert_equal(batches.run(again, prompts, size=5, parts=tmp_path), Counting()(prompts))
    assert len(again.calls) == 6


def test_other_prompts_and_other_jobs_never_meet_an_old_part(prompts, tmp_path):
    job = Counting()
    batches.run(job, prompts, size=5, parts=tmp_path, name="one")
    batches.run(job, prompts, size=5, parts=tmp_path, name="two")
    batches.run(job, ioi(words_tokenizer(), 10, seed=3), size=5, parts=tmp_path, name="one")
    assert len(job.calls) == 6


def test_a_prompt_that_comes_twice_keeps_its_own_number(prompts, tmp_path):
    twice = prompts.isel(batch=[4, 4, 5]).assign_coords(batch=[0, 1, 2])
    out = batches.run(Counting(), twice, size=1, parts=tmp_path)
    assert out["batch"].values.tolist() == [0, 1, 2]


def test_an_impossible_size_or_nothing_to_run_is_refused(prompts):
    for size in (0, -3):
        with pytest.raises(
            BadInput, match=f"--batch-size {size} is not possible; it must be at least 1"
        ):
            batches.run(Counting(), prompts, size=size)
    with pytest.raises(BadInput, match="there are no prompts to run"):
        batches.run(Counting(), prompts.isel(batch=[]))


def test_a_failure_keeps_what_was_finished(prompts, tmp_path):
    job = Counting()

    def failing(part):
        if 5 in part["batch"]:
            raise ZeroDivisionError
        return job(part)

    with pytest.raises(ZeroDivisionError):
        batches.run(failing, prompts, size=2, parts=tmp_path)
    assert len(parts_in(tmp_path)) == 2
    batches.run(job, prompts, size=2, parts=tmp_path)
    assert job.calls == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


def test_a_run_is_silent_unless_a_terminal_looks_on(prompts, capfd, monkeypatch):
    batches.run(Counting(), prompts, size=5)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    batches.run(Counting(), prompts, size=5, quiet=True)
    assert capfd.readouterr() == ("", "")


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np, xarray as xr
from nnheads.runs import batches
folder, deadly = Path(sys.argv[1]), sys.argv[2]
def job(part):
    number = str(part["batch"].values.tolist())
    with (folder / "calls").open("a") as calls:
        calls.write(number + "\\n")
    if number == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return part[["token"]] * 2
token = (("batch", "position"), np.arange(12).reshape(6, 2))
prompts = xr.Dataset({"token": token}, {"batch": range(6)})
print(batches.run(job, prompts, size=2, parts=folder / "parts")["token"].values.ravel().tolist())
"""


def test_after_kill_9_the_same_command_computes_only_the_rest(tmp_path):
    def command(deadly: str):
        return warm.run("-c", KILLED, tmp_path, deadly)

    killed = command("[2, 3]")
    assert killed.returncode == -signal.SIGKILL and killed.stdout == ""
    finished = command("none")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert json.loads(finished.stdout) == list(range(0, 24, 2))
    assert (tmp_path / "calls").read_text().splitlines() == ["[0, 1]", "[2, 3]", "[2, 3]", "[4, 5]"]


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np, xarray as xr
from nnheads.runs import batches
from nnheads.errors import RunError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
def job(part):
    noise = np.random.default_rng(0).normal(size=(2, 10 if 0 in part["batch"] else 100_000))
    return xr.Dataset({"noise": (("batch", "sample"), noise)}, {"batch": part["batch"]})
token = (("batch", "position"), np.arange(12).reshape(6, 2))
prompts = xr.Dataset({"token": token}, {"batch": range(6)})
try:
    batches.run(job, prompts, size=2, parts=Path(sys.argv[1]))
except RunError as error:
    print(error)
"""


def test_a_full_disk_keeps_the_finished_parts_and_leaves_no_other(tmp_path):
    done = warm.run("-c", FULL_DISK, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("cannot write ") and done.stdout.count("\n") == 1
    (part,) = parts_in(tmp_path)
    assert batches.store.load(part)["batch"].values.tolist() == [0, 1]


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(
    llama_folder, pairs_file, tmp_path, capsys
):
    options = ["ioi", str(llama_folder), "--prompts", str(pairs_file), "--batch-size", "1"]
    arguments = [*options, "--gap", "0", "--output", str(tmp_path)]
    slowly = (
        "import sys, time; from nnheads.recipes import _app; from nnheads.runs import store;"
        " keep = store.keep; store.keep = lambda *given: (keep(*given), time.sleep(0.5))[0];"
        " _app.app(sys.argv[1:])"
    )
    process = warm.Program("-c", slowly, *arguments)
    parts = tmp_path / "ioi" / llama_folder.name / "local" / "parts"
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end and not list(parts.glob("[!.]*.nc")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    done = process.wait(timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("interrupted; finished batches are kept")
    assert len(done.stderr.splitlines()) == 1
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("[!.]*")}
    assert kept and not list(parts.glob(".*")), "finished parts, and nothing half-written"
    record = json.loads((parts.parent / "run.json").read_text())
    assert record["complete"] is False
    seen = {}
    finish = Run.finish

    def look(run, **more):
        seen.update({path.name: path.stat().st_mtime_ns for path in run.parts.iterdir()})
        finish(run, **more)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as done:
        patch.setattr(Run, "finish", look)
        cli.app(arguments)
    assert done.value.code == 0 and "effect of each head" in capsys.readouterr().out
    assert kept.items() <= seen.items() and len(seen) > len(kept)
    assert not parts.exists()


def test_parts_that_were_exchanged_with_their_hashes_renewed_are_computed_again(prompts, tmp_path):
    """Of which work a part is the result stands inside it, too."""
    batches.run(Counting(), prompts, size=5, parts=tmp_path)
    first, second = parts_in(tmp_path)
    whole = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(whole)
    for path in (first, second):
        beside = path.with_suffix(".json")
        record = {**json.loads(beside.read_text()), "sha256": batches.store.file_hash(path)}
        beside.write_text(json.dumps(record))
    again = Counting()
    found = batches.run(again, prompts, size=5, parts=tmp_path)
    assert len(again.calls) == 2 and not found.attrs.keys() & {batches.store.PART}
    xr.testing.assert_equal(found, Counting()(prompts))
