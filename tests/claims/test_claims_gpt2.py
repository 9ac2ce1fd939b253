"""What is claimed about GPT-2 small can be measured on any model of its shape, and a random one
does not show it.
"""

from __future__ import annotations

import json

import pytest
from nnheads.recipes import _app as cli
from random_models import build, words_tokenizer

from nnheads.claims.claim_files import claims_of


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    build("gpt2", n_layer=12, n_head=12, n_embd=48, n_positions=256).save_pretrained(folder)
    words_tokenizer().save_pretrained(folder)
    output = tmp_path_factory.mktemp("claims")
    with pytest.raises(SystemExit) as stop:
        cli.app(["verify", str(folder), "--quiet", "--output", str(output)])
    assert stop.value.code == 1
    return json.loads((output / "verify" / "gpt2" / "local" / "verify.json").read_text())


def test_every_claim_is_measured(measured):
    rows = {row["claim"]: row for row in measured["claims"]}
    assert set(rows) == {claim.id for claim in claims_of("gpt2").claims}
    assert all(row["measured"] is not None and not row["reason"] for row in rows.values())


def test_a_random_model_shows_next_to_none_of_it(measured):
    passed = [row["claim"] for row in measured["claims"] if row["verdict"] == 0]
    assert set(passed) <= {"copy-others", "backup", "repair-9.9"}, passed
