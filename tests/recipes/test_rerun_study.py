"""`nnheads rerun` on results of real commands: exact, changed on purpose, and tampered with."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from nnheads.recipes import _app as cli

from nnheads.compare.repeat import identity
from nnheads.runs import store


def call(*arguments) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.app([str(one) for one in arguments])
    return stop.value.code


def rerun(capsys, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    code = call("rerun", *arguments)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    assert call("ioi", "--limit", "2", "--site", "z,v", "--quiet", "--output", folder) == 0
    return folder / "ioi" / "reference" / "shipped"


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def changed(path, change):
    """A file of results with something else in it."""
    table = store.load(path)
    change(table)
    store.save(path, table)
    return path


def test_a_run_is_repeated_to_the_last_bit(capsys, made):
    code, out, err = rerun(capsys, made)
    assert (code, err) == (0, "") and out.splitlines()[-1] == "the same to the last bit"
    for name in ("heads", "scores"):
        assert re.search(rf"{name}\.nc: (\d+) of \1 variables are exact", out)


@pytest.fixture(scope="module")
def local(tmp_path_factory, llama_folder):
    """A folder with a model in it, and results of that model, made from there."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(llama_folder, home / "models" / "mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert call("writes", "models/mine", "-q", "-o", home / "results") == 0
    (heads,) = (home / "results").rglob("heads.nc")
    return home, heads.parent


def test_a_model_in_a_folder_is_found_beside_its_results(local, capsys, tmp_path, monkeypatch):
    _, run = local
    monkeypatch.chdir(tmp_path)  # from elsewhere
    code, out, err = rerun(capsys, run)
    assert (code, err) == (0, "") and out.splitlines()[-1] == "the same to the last bit"


def test_a_model_that_was_moved_is_named(local, capsys, tmp_path):
    home, run = local
    shutil.copytree(run, tmp_path / "run")
    code, _, err = rerun(capsys, tmp_path / "run")
    assert code == 2 and "models/mine" in err
    code, out, _ = rerun(capsys, tmp_path / "run", "--model", home / "models" / "mine")
    assert code == 0 and out.splitlines()[-1] == "the same to the last bit"


def test_other_weights_are_refused_by_their_hash(local, capsys, tmp_path):
    home, run = local
    shutil.copytree(home / "models" / "mine", tmp_path / "mine")
    config = tmp_path / "mine" / "config.json"
    config.write_text(config.read_text().replace("1e-06", "1e-05"))
    code, out, err = rerun(capsys, run, "--model", tmp_path / "mine")
    assert (code, out) == (2, "") and "other weights" in err and len(err.splitlines()) == 1


def test_no_model_is_opened_for_a_command_that_is_refused(local, capsys, tmp_path, monkeypatch):
    """What a file from elsewhere names is read by nobody before its command is known to be ours."""
    from nnheads.recipes import _rerun_model

    _, run = local
    shutil.copytree(run, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["command"] = record["command"].replace("models/mine", "models/mine --trust")
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    monkeypatch.setattr(_rerun_model, "check_weights", lambda *_: pytest.fail("it was opened"))
    code, out, err = rerun(capsys, tmp_path / "run")
    assert (code, out) == (2, "") and "--trust" in err


def test_a_folder_for_results_is_not_taken_for_the_model():
    from nnheads.recipes._rerun_model import with_model

    attrs = {"model": "mine", "revision": "local", "source": "{}"}
    words = ["nnheads", "writes", "-o", "mine", "elsewhere"]
    assert with_model(words, attrs, Path("heads.nc"), None) == words


def test_a_model_for_a_result_of_the_shipped_one_is_refused(made, capsys, tmp_path):
    code, _, err = rerun(capsys, made, "--model", tmp_path)
    assert code == 2 and "leave --model out" in err


def test_a_file_far_from_its_folder_finds_its_own_among_several(capsys, made, tmp_path):
    """The command makes heads.nc for two sites."""
    shutil.copy(made / "v" / "heads.nc", tmp_path / "heads.nc")
    code, out, _ = rerun(capsys, tmp_path / "heads.nc")
    assert code == 0 and "the same to the last bit" in out and "argument" not in out


def test_another_dtype_is_drift_and_named(capsys, made, tmp_path):
    code, out, _ = rerun(
        capsys, made / "heads.nc", "--output", tmp_path / "new", "--", "--dtype", "bfloat16"
    )
    assert (
        code == 0
        and out.splitlines()[-1] == "the same but for rounding"
        and "dtype: float32 -> bfloat16" in out
    )
    record = json.loads((tmp_path / "new" / "rerun.json").read_text())
    verdicts = {change["name"]: change["verdict"] for change in record["files"][0]["changes"]}
    assert verdicts["effect"] == "drift" and verdicts["layer"] == "exact"
    kept = store.load(tmp_path / "new" / "ioi" / "reference" / "shipped" / "heads.nc")
    assert identity(kept)["dtype"] == "bfloat16"


def test_other_prompts_are_different_and_named(capsys, made):
    code, out, _ = rerun(capsys, made / "heads.nc", "--", "--seed", "1")
    assert code == 1 and "the first reason to look at is prompts: " in out and "seed: 0 -> 1" in out


def test_a_result_that_was_tampered_with_is_different_without_a_reason(capsys, copy):
    def raised(table):
        table["effect"].values[1, 2] += 0.5

    path = changed(copy / "heads.nc", raised)
    said = (
        "different: effect; its prompts one by one (scores.nc) are exact: heads are reduced from"
        " them in another way"
    )
    for what in (path, copy):
        code, out, _ = rerun(capsys, what)
        assert code == 1 and "  effect: different; 1 of 32 values, by at most 0.5" in out
        assert out.splitlines()[-1].startswith(said) and out.splitlines()[-1].endswith(
            "now, or the file was changed"
        )
    (copy / "scores.nc").write_bytes(b"no results")
    code, out, _ = rerun(capsys, path)
    assert code == 1 and "different: effect; no" in out
    (copy / "scores.nc").unlink()
    code, out, _ = rerun(capsys, path)
    assert code == 1 and "different: effect; no" in out


def test_single_prompts_that_differ_too_explain_nothing(capsys, copy):
    def raised(table):
        table["effect"].values[1, 2] += 0.5

    def moved(table):
        table["clean_logit_difference"].values[0] += 0.5

    changed(copy / "scores.nc", moved)
    code, out, _ = rerun(capsys, changed(copy / "heads.nc", raised))
    assert code == 1 and "one by one" not in out and "different: effect; no" in out


def test_a_changed_version_is_said(capsys, copy):
    def older(table):
        versions = json.loads(table.attrs["packages"])
        table.attrs["packages"] = json.dumps({**versions, "torch": "1.0"})
        table["effect"].values[:] *= np.float32(1 + 1e-5)

    code, out, _ = rerun(capsys, changed(copy / "heads.nc", older))
    assert code == 0 and "version of torch: 1.0 -> " in out and "  effect: drift; " in out


def told(**attributes):
    return lambda table: table.attrs.update(attributes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: table.attrs.pop("history"),
            "was not written by nnheads: it does not record history, arguments",
        ),
        (told(history="2026"), "records no command in its history '2026'"),
        (told(history="2026 'open"), "records no command"),
        (
            told(history="2026 python study.py"),
            "which is no command of nnheads; repeat it in Python",
        ),
        (told(history="2026 nnheads heads"), "was made by nnheads heads, which computes no result"),
        (
            told(history="2026 nnheads steer --trust"),
            "was made with --trust; issue that command yourself if you trust",
        ),
        (
            told(history="2026 nnheads iti bake --to=/x"),
            "was made with --to; issue that command yourself",
        ),
        (
            told(history="2026 nnheads ioi --remote https://a.b"),
            "was made on a server of its own, https://a.b; if you trust it, name it",
        ),
        (told(history="2026 nnheads ioi ./gone"), r"no model folder '\./gone'"),
        (
            told(history="2026 nnheads patch"),
            r"the command makes no heads\.nc any more; it made scores\.nc",
        ),
    ],
)
def test_files_that_cannot_be_repeated_are_one_line(capsys, copy, change, message):
    path = changed(copy / "heads.nc", change)
    code, _, err = rerun(capsys, path)
    assert code in (1, 2) and len(err.splitlines()) == 1
    assert re.search(message, err), err


def test_claims_that_failed_fail_again_alike(capsys, tmp_path):
    claim = {
        "id": "one",
        "claim": "it retrieves",
        "source": "nobody",
        "kind": "value",
        "published": 2,
    }
    own = {
        **claim,
        "how": {"measure": "detect", "type": "induction", "limit": 4},
        "where": {"variable": "mass", "head": "0.0"},
    }
    (tmp_path / "own.json").write_text(json.dumps({"model": "reference", "claims": [own]}))
    assert call("verify", "--claims", tmp_path / "own.json", "-q", "-o", tmp_path / "out") == 1
    (folder,) = (tmp_path / "out" / "verify" / "reference" / "shipped").iterdir()
    words = json.loads((folder / "run.json").read_text())["command"]
    assert "own.json" in words
    code, out, _ = rerun(capsys, folder, "--", "--claims", tmp_path / "own.json")
    assert code == 0 and "the same to the last bit" in out


def test_options_that_cannot_be_changed(capsys, made, tmp_path):
    for more in (["--output", "x"], ["--trust"], ["--overwrite"]):
        code, _, err = rerun(capsys, made / "heads.nc", "--", *more)
        assert code == 2 and f"{more[0]} cannot follow --" in err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    code, _, err = rerun(capsys, made / "heads.nc", "-o", tmp_path / "full")
    assert code == 2 and "is not empty; name a new folder with --output" in err
