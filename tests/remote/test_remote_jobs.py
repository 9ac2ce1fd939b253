"""A job is known by what it says and what it works on: only the very same one is not sent again."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr

import nnheads
from nnheads.interventions import Add, Edit, Intervention
from nnheads.interventions.positions import At
from nnheads.remote.digest import content
from nnheads.remote.ledger import Ledger, counting, totals
from nnheads.remote.place import place_of
from nnheads.runs import batches
from nnheads.runs.folder import Run, share_jobs
from nnheads.truth.multiple_choice import score


@pytest.fixture
def there(server):
    server.faults()
    return nnheads.load("reference", remote=server.url)


def questions(model) -> xr.Dataset:
    from nnheads.prompts.statements import statements
    from nnheads.prompts.truth import REFERENCE_TEMPLATE, read_questions

    return statements(
        model.tokenizer, read_questions("reference", limit=4)[0], template=REFERENCE_TEMPLATE
    )


def test_the_same_prompts_under_another_edit_are_another_job(there, server):
    here, prompts = nnheads.load("reference"), questions(there)
    for scale in (0.0, 3.0):
        change = Intervention(Edit("resid_post", Add(scale), layer=1))
        found = score(there, change, prompts)
        xr.testing.assert_allclose(found, score(here, change, prompts), atol=1e-5)


def test_slices_of_another_run_on_the_same_prompts_are_other_jobs(there, server, monkeypatch):
    monkeypatch.setattr(batches, "JOB_TOKENS", 1)
    here, prompts = nnheads.load("reference"), nnheads.ioi(there.tokenizer, n=4)
    for site in ("z", "attn_out"):

        def swapped(part, m, site=site):
            return nnheads.patch(m, part, site=site)

        found, right = (
            batches.run(partial(swapped, m=m), prompts, size=2, model=m) for m in (there, here)
        )
        np.testing.assert_allclose(found["logit_difference"], right["logit_difference"], atol=1e-4)


def test_content_tells_values_apart_and_not_where_they_lie():
    first = {"a": torch.arange(3.0), "b": [1, None, "x"], "c": np.zeros(2)}
    again = {"c": np.zeros(2), "b": [1, None, "x"], "a": torch.arange(6.0)[:3]}
    assert content(first) == content(again)
    others = (
        {**first, "a": torch.arange(3)},
        {**first, "a": torch.arange(3.0)[None]},
        {**first, "b": [1, None, "y"]},
        {**first, "b": (1, None, "x")},
        {**first, "c": np.zeros(3)},
        {**first, "a": torch.tensor([0.0, 1.0, 3.0])},
        {**first, "b": [True, None, "x"]},
        {**first, "c": score},
    )
    assert len({content(one) for one in (first, *others)}) == len(others) + 1


def test_functions_are_known_by_what_they_hold():
    def times(factor):
        return lambda value: factor * value

    assert content(times(2.0)) == content(times(2.0)) != content(times(3.0))
    assert content(At("index", (1,))) != content(At("index", (2,)))


def test_what_a_command_sends_is_counted_to_whichever_ledger_it_is_written(tmp_path):
    own, other = Ledger(), Ledger(tmp_path)
    own.note(key="part#1 a", job="before", up=1)
    sent: list[dict] = []
    with counting(sent):
        own.note(key="part#2 a", job="one", up=5)
        other.note(key="part#1 b", job="two", up=7)
        other.note(key="part#1 b", down=3)
    other.note(key="part#2 b", job="after", up=1)
    assert totals(sent) == {"jobs": 2, "bytes_up": 12, "bytes_down": 3}


def test_a_ledger_knows_which_jobs_it_sent_itself(tmp_path):
    Ledger(tmp_path).note(key="part#1 a", job="earlier", up=1)
    again, unbound = Ledger(tmp_path), Ledger()
    unbound.note(key="part#2 a", job="unbound", up=1)
    again.take_over(unbound)
    assert again.sent("part#1 a") == "earlier" and not again.sent_here("earlier")
    assert again.sent_here("unbound") and Ledger(tmp_path).sent("part#2 a") == "unbound"


def test_runs_that_need_the_same_prompts_share_their_jobs(tmp_path):
    model = nnheads.load("reference")
    runs = [Run(tmp_path, "detect", "m", "main", {"type": kind}, item=kind) for kind in "ab"]
    share_jobs(runs, model, tmp_path / "parts")
    place_of(model).ledger.note(key="part#1 a", job="one", up=2)
    assert [run.sent["jobs"] for run in runs] == [1, 1]
    assert Ledger(tmp_path / "parts").sent("part#1 a") == "one"
