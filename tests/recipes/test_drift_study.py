"""`nnheads drift` as a user issues it: precision, attention, a server; and one model at a time."""

from __future__ import annotations

import gc
import json
import weakref

import numpy as np
import pytest
import xarray as xr
from nnheads.recipes import _app as cli
from nnheads.recipes import _load
from nnheads.recipes.drift import TYPES

import nnheads
from nnheads.detectors._catalog import canonical

FEW = ("--types", "induction,previous", "-n", "6")


def command(capsys, *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.app(["drift", *arguments])
    out, err = capsys.readouterr()
    assert stop.value.code == code, err
    return out if code == 0 else err


def drift(folder, name: str) -> xr.Dataset:
    return xr.load_dataset(folder / "drift" / "reference" / "shipped" / name / "drift.nc")


def test_scores_in_fewer_bits_rank_heads_alike(capsys, tmp_path):
    out = command(capsys, "-o", str(tmp_path))
    found = drift(tmp_path, "float32-bfloat16")
    assert out.startswith("float32 (sdpa) against bfloat16 (sdpa), 16 prompts a type\n")
    assert found["type"].values.tolist() == TYPES.split(",") and found["score"].dims == (
        "type",
        "layer",
        "head",
    )
    assert float(found["rank_correlation"].min()) > 0.99 and float(found["overlap"].min()) >= 0.9
    assert 1e-6 < float(found["largest"].max()) < 0.01
    for number, kind in enumerate(TYPES.split(",")):
        words = out.splitlines()[3 + number].split()
        ranks = [
            float(found[name].sel(type=kind))
            for name in ("rank_correlation", "rank_correlation_named")
        ]
        assert words[0] == kind and [words[1], words[4]] == [f"{rank:.4f}" for rank in ranks]
        assert words[7] == str(int(found["named"].sel(type=kind).sum()))
    for name, dtype in (("score", "float32"), ("against", "bfloat16")):
        heads = nnheads.detect(nnheads.load(dtype=dtype), "induction", n=16)
        np.testing.assert_allclose(found[name].sel(type="induction"), heads["mass"], atol=1e-6)
    for name, text in (("score", "first"), ("against", "second"), ("difference", "second side m")):
        about = found[name].attrs
        assert text in about["long_name"] and about["units"], "where types have no statistic alike"
    assert json.loads(found.attrs["source_against"])["dtype"] == "bfloat16"
    folder = tmp_path / "drift" / "reference" / "shipped" / "float32-bfloat16"
    assert (folder / "drift.png").stat().st_size > 2000 and not (folder / "parts").exists()


def test_the_same_command_again_scores_nothing(capsys, tmp_path, monkeypatch):
    first = command(capsys, *FEW, "-o", str(tmp_path))
    monkeypatch.setattr(
        "nnheads.detectors._scores.measure_all", lambda *_, **__: pytest.fail("scored again")
    )
    assert command(capsys, *FEW, "-o", str(tmp_path)) == first


def test_attention_implementations_are_compared(capsys, tmp_path):
    out = command(capsys, *FEW, "--against", "eager", "-o", str(tmp_path))
    assert out.startswith("float32 (sdpa) against float32 (eager), 6 prompts a type\n")
    found = drift(tmp_path, "float32-eager")
    assert found["type"].values.tolist() == [canonical("induction"), canonical("previous")]
    assert float(found["largest"].max()) < 1e-5 and float(found["rank_correlation"].min()) > 0.99
    said = command(capsys, *FEW, "--against", "sdpa", "-o", str(tmp_path), code=2)
    assert said == "error: both sides are float32 (sdpa); name another with --against\n"


def test_one_model_is_in_memory_at_a_time(capsys, tmp_path, monkeypatch):
    loaded, plain = [], _load.load

    def load(*arguments, **changed):
        gc.collect()
        assert [one() for one in loaded] == [None] * len(loaded)
        model = plain(*arguments, **changed)
        loaded.append(weakref.ref(model._module))
        return model

    monkeypatch.setattr(_load, "load", load)
    command(capsys, *FEW, "-o", str(tmp_path))
    assert len(loaded) == 2


def test_a_kill_between_the_sides_repeats_nothing(capsys, tmp_path, monkeypatch):
    from nnheads.spans import measure as attention

    whole = command(capsys, *FEW, "-o", str(tmp_path / "whole"))
    with monkeypatch.context() as broken:
        broken.setattr(
            "nnheads.recipes.drift.second_side", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        command(capsys, *FEW, "-o", str(tmp_path / "cut"), code=1)
    counted, plain = [], attention.measure_spans
    monkeypatch.setattr(
        attention, "measure_spans", lambda *a, **k: counted.append(1) or plain(*a, **k)
    )
    again = command(capsys, *FEW, "-o", str(tmp_path / "cut"))
    assert (
        len(counted) == 1 and again.replace(str(tmp_path / "cut"), str(tmp_path / "whole")) == whole
    )


def test_flags_that_come_and_go_are_named(capsys, tmp_path, monkeypatch):
    from nnheads.compare import drift as module

    plain = module.calibrated

    def other(scores, seed):
        heads = plain(scores, seed=seed)
        if len(seen := other.__dict__.setdefault("seen", [])) % 2:
            heads["flag"] = 1 - heads["flag"]
        seen.append(1)
        return heads

    monkeypatch.setattr(module, "calibrated", other)
    lines = command(capsys, "--types", "induction", "-n", "6", "-o", str(tmp_path)).splitlines()
    assert lines[3].split()[-3:] == ["3", "->", "29"]
    assert lines[4].strip().startswith("flag gained by L0H0, L0H1, ")
    assert lines[5].strip() == "flag lost by L1H0, L1H1, L2H4"


def test_types_that_say_nothing_are_said(capsys, tmp_path):
    out = command(capsys, "--types", "hallucination", "-n", "4", "-o", str(tmp_path))
    assert "  hallucination       no score to compare on one side, or all heads alike\n" in out


def test_a_server_is_compared_with_what_is_here(capsys, tmp_path, server):
    before = len(server.executed)
    options = (*FEW, "--against", "remote", "--remote", server.url, "-o", str(tmp_path))
    out = command(capsys, "--dtype", "bfloat16", *options)
    assert out.startswith(
        f"bfloat16 (sdpa) against float32 (sdpa at {server.url}), 6 prompts a type\n"
    )
    assert len(server.executed) - before == 2  # what it computes in, and all scores
    there, here = (
        drift(tmp_path, "bfloat16-remote"),
        nnheads.detect(nnheads.load(), "induction", n=6),
    )
    np.testing.assert_allclose(there["against"].sel(type="induction"), here["mass"], atol=1e-5)
    assert float(there["largest"].max()) > 1e-6 and there.attrs["remote_jobs"] == 2
    alike = command(capsys, *options)
    assert alike.startswith("float32 (sdpa) against float32")
    assert float(drift(tmp_path, "float32-remote")["largest"].max()) < 1e-5
