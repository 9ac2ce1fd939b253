"""`nnheads patch` as a user issues it: every site is kept as it is done."""

from __future__ import annotations

import importlib

import pytest
import xarray as xr
from commands import command
from nnheads.recipes import _app as cli

from nnheads.errors import RunError
from nnheads.trace.sites import SWEPT

module = importlib.import_module("nnheads.patching.patch")


def test_a_site_that_fails_leaves_those_before_it_done(tmp_path, monkeypatch):
    asked, real = [], module.patch

    def fails_at(site: str):
        def patched(*given, **options):
            asked.append(options["site"])
            if options["site"] == site:
                raise RunError("no memory")
            return real(*given, **options)

        return patched

    monkeypatch.setattr(module, "patch", fails_at("k"))
    with pytest.raises(SystemExit) as stop:
        cli.app(["patch", "-q", "-o", str(tmp_path)])
    assert stop.value.code == 1 and asked[-1] == "k"
    before, asked[:] = set(asked) - {"k"}, []
    monkeypatch.setattr(module, "patch", fails_at(""))
    command("patch", "-q", "-o", tmp_path)
    assert not before & set(asked) and "k" in asked
    (path,) = tmp_path.rglob("scores.nc")
    shown = xr.load_dataset(path)
    assert set(SWEPT) <= set(shown.data_vars), "what is computed has a picture"
    assert not list(tmp_path.rglob("parts")), "nothing but results is left"
