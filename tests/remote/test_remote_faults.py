"""What can go wrong between here and a server, one fault at a time: nothing that was finished is
lost or done twice.
"""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path

import pytest
import warm
import xarray as xr
from nnheads.recipes import _app as cli
from serving import Loopback

from nnheads.remote import jobs, ledger, patience
from nnheads.runs import batches

BATCHES = 3
COMMAND = ("detect", "previous_token", "-n", "6", "--batch-size", "2", "--quiet")


@pytest.fixture
def flaky(server, monkeypatch):
    """A server on which things go wrong, three batches a run, and waits that a test can bear."""
    monkeypatch.setattr(batches, "JOB_TOKENS", 1)
    monkeypatch.setattr(patience, "FIRST_DELAYS", (0.01, 0.02, 0.05))
    monkeypatch.setattr(patience, "DELAYS", (0.01, 0.02, 0.05, 0.1))
    monkeypatch.setattr(jobs, "UNKNOWN", 0.3)
    yield server
    server.faults()


@pytest.fixture(scope="module")
def right(tmp_path_factory) -> xr.Dataset:
    """What comes out where nothing goes wrong and nothing travels."""
    folder = tmp_path_factory.mktemp("here")
    assert issue(folder) == 0
    return scores(folder)


def issue(folder: Path, *more: str, command=COMMAND) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.app([*command, "-o", str(folder), *more])
    return ended.value.code


def scores(folder: Path) -> xr.Dataset:
    return xr.load_dataset(next(folder.rglob("scores.nc")))


def assert_right(folder: Path, right: xr.Dataset) -> None:
    found = scores(folder)
    xr.testing.assert_allclose(found.drop_attrs(), right.drop_attrs(), atol=1e-5)
    assert not [
        path for path in folder.rglob("*") if path.name.startswith(".") or path.name == "parts"
    ]


PASSING = {
    "the server is busy": {"stage": "request", "do": "status", "code": 503, "times": 2},
    "the answer to a job is lost": {"stage": "request", "do": "drop"},
    "a question is not answered": {"stage": "response", "do": "status", "code": 502, "times": 2},
    "the gateway is slow": {"stage": "response", "do": "delay", "seconds": 0.3},
    "a result is cut": {"stage": "result", "do": "cut", "times": 2},
    "a result is damaged": {"stage": "result", "do": "corrupt", "times": 1},
    "a result is not there yet": {"stage": "result", "do": "status", "code": 503, "times": 1},
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_waited_for(name, flaky, right, tmp_path, capsys):
    before = len(flaky.executed)
    flaky.faults(PASSING[name])
    assert issue(tmp_path, "--remote", flaky.url) == 0, capsys.readouterr().err
    assert_right(tmp_path, right)
    twice = name == "the answer to a job is lost"  # nobody can know that the job had arrived
    assert len(flaky.executed) - before == BATCHES + twice


LASTING = {
    "no key": (
        {"stage": "request", "do": "status", "code": 401, "detail": "Missing key."},
        "set NDIF_API_KEY",
    ),
    "another key": (
        {"stage": "request", "do": "status", "code": 403, "detail": "Unknown."},
        "check NDIF_API_KEY",
    ),
    "another version": (
        {"stage": "request", "do": "status", "code": 400, "detail": "nnsight 0.7 is too old"},
        "nnsight 0.7 is too old",
    ),
    "the database is down": (
        {"stage": "request", "do": "status", "code": 503},
        "it may be over soon",
    ),
    "results are always cut": (
        {"stage": "result", "do": "cut"},
        "arrived damaged|cannot be reached",
    ),
    "no memory": (
        {"stage": "run", "do": "error", "detail": "CUDA out of memory"},
        "CUDA out of memory",
    ),
}


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_is_one_line_and_what_was_finished_is_kept(name, flaky, right, tmp_path, capsys):
    wrong, said = LASTING[name]
    before = len(flaky.executed)
    flaky.faults({**wrong, "after": 1, "times": 1000})  # the first batch gets through
    assert issue(tmp_path, "--remote", flaky.url) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("error")]) == 1 and lines[-1].startswith(
        "error"
    )
    assert re.search(said, lines[-1]), lines[-1]
    assert len(list(tmp_path.rglob("repeated*.nc"))) == 1
    flaky.faults()
    assert issue(tmp_path, "--remote", flaky.url) == 0
    assert_right(tmp_path, right)
    assert len(flaky.executed) - before == BATCHES


def test_a_batch_that_fails_does_not_keep_others_from_being_done(flaky, right, tmp_path, capsys):
    before = len(flaky.executed)
    flaky.faults({"stage": "run", "do": "error", "detail": "bad luck", "after": 1})
    assert issue(tmp_path, "--remote", flaky.url) == 1
    assert "1 of 3 batches failed" in capsys.readouterr().err
    assert len(list(tmp_path.rglob("repeated*.nc"))) == 2
    assert issue(tmp_path, "--remote", flaky.url) == 0
    assert_right(tmp_path, right)
    assert len(flaky.executed) - before == BATCHES


def test_a_server_that_is_not_there_is_one_line(flaky, tmp_path, capsys):
    assert issue(tmp_path, "--remote", "http://127.0.0.1:9") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("error: ") and "cannot be reached" in said
    assert "written down" not in said, "no job was sent"


def test_a_job_that_the_server_forgot_is_sent_again(flaky, right, tmp_path):
    assert issue(tmp_path, "--remote", flaky.url, "--submit") == 0
    (path,) = tmp_path.rglob(ledger.LEDGER)
    sent = [json.loads(line) for line in path.read_text().split("\n") if line]
    until = time.monotonic() + 30
    while sum(line["job"] in {job["id"] for job in flaky.executed} for line in sent) < BATCHES:
        assert time.monotonic() < until
        time.sleep(0.05)
    (flaky.store / f"{sent[0]['job']}.json").unlink()
    (flaky.store / f"{sent[1]['job']}.result").unlink()
    before = len(flaky.executed)
    assert issue(tmp_path, "--remote", flaky.url) == 0
    assert_right(tmp_path, right)
    assert len(flaky.executed) - before == 2


def test_jobs_are_sent_without_waiting_and_collected_later(flaky, right, tmp_path, capsys):
    before = len(flaky.executed)
    flaky.faults({"stage": "run", "do": "delay", "seconds": 4.0, "times": 1})
    assert issue(tmp_path, "--remote", flaky.url, "--submit") == 0
    said = capsys.readouterr()
    folder = next(tmp_path.rglob("run.json")).parent
    assert (
        not said.out
        and f"nnheads remote collect {folder} --remote {flaky.url} fetches what is" in said.err
    )
    with pytest.raises(SystemExit) as ended:
        cli.app(["remote", "collect", str(folder), "--remote", flaky.url])
    said = capsys.readouterr().err
    assert ended.value.code == 0 and "of 3 batches are not finished" in said, said
    with pytest.raises(SystemExit) as ended:
        cli.app(["remote", "collect", str(folder), "--remote", flaky.url, "--wait"])
    assert ended.value.code == 0 and "L0H0" in capsys.readouterr().out
    assert_right(tmp_path, right)
    assert len(flaky.executed) - before == BATCHES
    record = json.loads((folder / "run.json").read_text())
    assert (
        record["complete"]
        and record["remote"]["jobs"] == BATCHES
        and "--submit" in record["command"]
    )


def test_a_line_of_the_ledger_that_was_cut_is_no_line(tmp_path):
    book = ledger.Ledger(tmp_path)
    book.note(key="part#1 abc", job="one", up=3)
    with book.path.open("a") as file:
        file.write('{"key": "part#2 abc", "jo')
    again = ledger.Ledger(tmp_path)
    assert again.sent("part#1 abc") == "one" and again.sent("part#2 abc") is None
    assert again.totals == {"jobs": 1, "bytes_up": 3, "bytes_down": 0}
    again.note(key="part#2 abc", job="two", up=1)
    assert ledger.Ledger(tmp_path).sent("part#2 abc") == "two"


def test_keys_are_not_repeated_to_anybody(flaky, monkeypatch, tmp_path, capsys):
    from nnsight import CONFIG

    monkeypatch.setattr(CONFIG.API, "APIKEY", "secret-key-123")
    said = "Invalid API key format: 'secret-key-123'"
    flaky.faults({"stage": "request", "do": "status", "code": 400, "detail": said, "times": 1000})
    assert issue(tmp_path, "--remote", flaky.url) == 1
    said = capsys.readouterr()
    assert "secret" not in said.err + said.out and "***" in said.err
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and b"secret" in path.read_bytes()
    ]


def test_client_and_server_may_die_at_any_moment(right, tmp_path):
    own = Loopback(tmp_path / "store")
    folder, chance = tmp_path / "results", random.Random(0)
    script = (
        "import sys; from nnheads.recipes import _app; from nnheads.remote import jobs,"
        " patience; from nnheads.runs import batches; batches.JOB_TOKENS = 1; jobs.UNKNOWN = 0.3;"
        " patience.DELAYS = patience.FIRST_DELAYS = (0.1,) * 40; _app.app(sys.argv[1:])"
    )
    command = ["-c", script, *COMMAND, "-o", str(folder), "--remote", own.url]
    for _ in range(3):
        client = warm.Program(*command)
        own.faults(
            {
                "stage": chance.choice(["run", "finish", "response"]),
                "do": "die",
                "after": chance.randrange(3),
            }
        )
        time.sleep(chance.uniform(0.5, 3))
        if chance.random() < 0.5:
            client.kill()
        own.stop()
        own.start()
        client.kill()
        client.wait()
    assert warm.run(*command, timeout=120).returncode == 0
    own.stop()
    assert_right(folder, right)
    assert len({job["id"] for job in own.executed}) == len(own.executed)
