"""What is sent names no folder of the machine that it is sent from."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

import nnheads
from nnheads.models.shipped import FOLDER
from nnheads.remote import jobs
from nnheads.remote.packing import PACKAGE, short_name


def test_files_are_named_within_the_package_and_others_by_their_last_part():
    assert short_name(str(PACKAGE / "trace" / "sweep.py")) == "nnheads/trace/sweep.py"
    assert short_name("/home/somebody/secret/notebook.py") == "notebook.py"


def test_a_job_names_no_folder_of_this_machine(monkeypatch):
    sent = []

    def keep(job, about: str, blob: bytes) -> str:
        sent.append(zstandard.ZstdDecompressor().decompress(blob))
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "posted", keep)
    model = nnheads.load("reference", remote="http://127.0.0.1:9")
    with pytest.raises(KeyboardInterrupt):
        nnheads.patch(model, nnheads.ioi(model.tokenizer, 2))
    payload = sent[0].replace(str(FOLDER).encode(), b"")  # a local model is known by its folder
    assert b"nnheads/trace/sweep.py" in payload, "the source of a trace is in it"
    for folder in (PACKAGE.parent, Path(__file__).parent, Path.home()):
        assert str(folder).encode() + b"/" not in payload
