"""`nnheads verify`: the reference model keeps what its card says, and doctored claims fail."""

from __future__ import annotations

import functools
import json

import commands
import numpy as np
import xarray as xr
from nnheads.recipes._verify_report import accepted

from nnheads.claims.claim_files import FOLDER
from nnheads.reference import untrained
from nnheads.runs import store

call = functools.partial(commands.issue, "verify")

REFERENCE = json.loads((FOLDER / "reference.json").read_text())
QUICK = ("previous-0.0", "induction-1.0", "decoy-3.0", "edit-late", "mc1-plain")


def some(tmp_path, names=QUICK, **changes):
    """A copy of the reference claims, some of them, with fields changed."""
    rows = [
        {**row, **changes.get(row["id"], {})} for row in REFERENCE["claims"] if row["id"] in names
    ]
    rows = [
        {key: one for key, one in row.items() if key != "requires" or one in names} for row in rows
    ]
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"model": "reference", "claims": rows}))
    return path


def test_the_reference_model_keeps_every_claim(tmp_path):
    code, out, _ = call("--quiet", "-o", tmp_path)
    assert code == 0, out
    folder = tmp_path / "verify" / "reference" / "shipped"
    table = store.load(folder / "claims.nc")
    assert table.sizes["claim"] == len(REFERENCE["claims"]) and set(table["verdict"].values) <= {
        0,
        1,
    }
    assert (table["verdict"] == 0).mean() > 0.9 and int(table["negative"].sum()) >= 5
    rows = json.loads((folder / "verify.json").read_text())["claims"]
    assert [row["claim"] for row in rows] == list(table["claim"].values) and all(
        row["source"] for row in rows
    )
    assert not (folder / "parts").exists() and table.attrs["model"] == "reference"


def test_doctored_claims_fail(tmp_path):
    doctored = {
        "previous-0.0": {"published": 0.5},
        "induction-1.0": {"kind": "at_most", "published": 0.2},
        "decoy-3.0": {"kind": "at_least", "published": 0.5},
        "edit-late": {"kind": "at_least", "published": 0.1},
        "mc1-plain": {"published": 0.9},
    }
    code, out, err = call("--claims", some(tmp_path, **doctored), "-q", "-o", tmp_path / "out")
    assert (
        code == 1
        and err == "error: 5 of 5 claims fail\n"
        and out.count("FAIL  ") == 5
        and "5 fail" in out
    )
    assert "what each number measures: nnheads verify MODEL --list" in out


def test_the_table_says_which_numbers_pass_with_their_tolerance():
    """A measured .027 passes a claim of at most .02 whose tolerance is .02."""
    for kind, said in (("at_most", "<= 0.04"), ("at_least", ">= 0"), ("value", "0 to 0.04")):
        row = xr.Dataset({"published": 0.02, "tolerance": 0.02}, {"kind": kind})
        assert accepted(row) == said


def test_claims_that_ask_for_the_same_run_share_it(tmp_path, monkeypatch):
    from nnheads.detectors import _detect as detection

    asked, plain = [], detection.detect
    monkeypatch.setattr(detection, "detect", lambda *a, **k: asked.append(a[1]) or plain(*a, **k))
    names = ("induction-1.0", "induction-1.1", "induction-2.4")
    options = ("--claims", some(tmp_path, names), "-q", "-o", tmp_path / "out")
    assert call(*options)[0] == 0 and asked == ["induction"]
    assert call(*options)[0] == 0 and asked == ["induction"], "a finished run measures nothing"


def test_what_was_measured_before_a_kill_is_kept(tmp_path, monkeypatch):
    from nnheads.claims import measures

    def killed(*_, **__):
        raise KeyboardInterrupt

    path = some(tmp_path, ("previous-0.0", "mc1-plain"))
    options = ("--claims", path, "-q", "-o", tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setitem(measures.MEASURES, "truth", killed)
        assert call(*options)[0] == 1
    monkeypatch.setitem(measures.MEASURES, "detect", killed)
    code, out, _ = call(*options)
    assert code == 0 and "2 pass" in out


def test_what_is_not_here_is_skipped_and_said(tmp_path):
    file = {"how": {"measure": "file", "name": "list.npy"}, "where": {"variable": "listed"}}
    path = some(
        tmp_path,
        ("previous-0.0",),
        **{"previous-0.0": {**file, "kind": "at_least", "published": 1.0}},
    )
    code, out, _ = call("--claims", path, "-q", "-o", tmp_path / "a")
    assert (
        code == 0
        and "\nskip  " in out
        and "list.npy is not here; name its folder with --files" in out
    )
    np.save(tmp_path / "list.npy", [(layer, head) for layer in range(2) for head in range(2)])
    code, out, _ = call("--claims", path, "--files", tmp_path, "-q", "-o", tmp_path / "b")
    assert (
        code == 0
        and "\npass  " in out
        and (tmp_path / "b" / "verify" / "reference" / "files").is_dir()
    )


def test_a_measurement_that_fails_fails_its_claims_alone(tmp_path):
    wrong = {
        "how": {"measure": "detect", "type": "induction", "length": 4000},
        "where": {"variable": "mass", "head": "0.0"},
    }
    beyond = {"where": {"variable": "mass", "head": "9.9"}}
    names = ("previous-0.0", "induction-1.0", "previous-best")
    path = some(tmp_path, names, **{"induction-1.0": wrong, "previous-0.0": beyond})
    code, out, _ = call("--claims", path, "-q", "-o", tmp_path / "out")
    assert code == 1 and "1 pass, 2 fail" in out and "tokens" in out, out
    assert "claim previous-0.0: L9H9 does not exist" in out


def test_only_some_claims_and_their_list(tmp_path):
    code, out, _ = call("--list", "--only", "mc1, decoy-patch")
    assert (
        code == 0
        and out.startswith("4 claims about reference: ")
        and "decoy-patch: not so: " in out
    )
    assert "  ioi-accuracy: " in out and "; requires ioi-accuracy)" in out, (
        "what they require is measured too"
    )
    code, out, _ = call("--only", "edit-late", "-q", "-o", tmp_path)
    assert code == 0 and "1 pass" in out and "edit-all" not in out
    code, _, err = call("--only", "nothing of that name")
    assert code == 2 and "names no claim; see --list" in err


def test_a_model_that_cannot_do_it_loses_nothing(tmp_path):
    """Copying of an untrained model is 0 without any head too; that is no evidence about heads."""
    untrained.write(untrained.initial_model(0), tmp_path / "untrained")
    names = ("copy-base", "copy-lost", "copy-itself", "previous-0.0")
    path = some(tmp_path, names)
    code, out, err = call(tmp_path / "untrained", "--claims", path, "-q", "-o", tmp_path / "out")
    assert code == 1 and err == "error: 2 of 4 claims fail\n" and "2 fail, 2 skip" in out
    lines = out.splitlines()
    for text in ("copying ends without all three induction heads", "copying ends without L0H1"):
        place = next(number for number, line in enumerate(lines) if text in line)
        assert lines[place].startswith("skip  ") and "  0.000 " in lines[place]
        assert lines[place + 1].strip() == "needs copy-base, which does not pass (fail)"
    table = store.load(next((tmp_path / "out").rglob("claims.nc")))
    assert dict(zip(table["claim"].values, table["requires"].values))["copy-lost"] == "copy-base"
