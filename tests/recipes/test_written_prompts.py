"""Sentences from a file or an endpoint in a whole run: nothing is left out in silence, an endpoint
is asked once.
"""

from __future__ import annotations

import functools
import json
import re

import commands
from endpoint import chat, serving

from nnheads.runs.store import load

command = functools.partial(commands.issue, "ioi")
ASKED = "--writer openai:m --gap 0 --corruption random".split()

PLACES = ("market", "library", "museum", "beach", "hotel")


def sentences() -> bytes:
    lines = []
    for number, place in enumerate(PLACES, 1):
        first, second = ("Mary", "John") if number % 2 else ("John", "Mary")
        lines.append(
            f"{number}. When {first} and {second} went to the {place}, {second} gave the book"
            " to ..."
        )
    return chat("\n".join(lines))


def test_an_endpoint_is_asked_once_for_a_run(llama_folder, tmp_path, monkeypatch):
    arguments = [llama_folder, *ASKED, "-n", "10", "-o", tmp_path]
    with serving(monkeypatch, body=sentences()) as endpoint:
        code, out, err = command(*arguments)
        assert (code, err) == (0, "") and len(endpoint.asked) == 2
        assert command(*arguments) == (0, out, "") and len(endpoint.asked) == 2
        folder = tmp_path / "ioi" / llama_folder.name / "local"
        (folder / "heads.png").unlink()
        assert command(*arguments) == (0, out, "") and len(endpoint.asked) == 2
        assert (folder / "heads.png").exists()
        assert command(*arguments, "--overwrite") == (0, out, "") and len(endpoint.asked) == 4
    assert load(folder / "scores.nc")["effect"].attrs["long_name"] == "normalised effect"
    heads = load(folder / "heads.nc")
    assert (
        heads["effect"].attrs["units"] == "1"
        and heads["logit_difference"].attrs["units"] == "logit"
    )
    assert all(values.attrs["long_name"] for values in heads.data_vars.values())
    assert heads.attrs["asked"] == 10 and 1 <= heads.attrs["kept"] <= 10
    assert json.loads((folder / "sentences.json").read_text())[0].startswith(
        "When Mary and John went to the market"
    )


def test_what_was_written_in_vain_is_not_kept(llama_folder, tmp_path, monkeypatch):
    arguments = [llama_folder, *ASKED, "-n", "5", "-o", tmp_path]
    with serving(monkeypatch, body=chat("I would rather not.")):
        code, _, err = command(*arguments)
    assert code == 2 and "none of 1 sentences can be used: not exactly two known names" in err
    with serving(monkeypatch, body=sentences()):
        assert command(*arguments)[0] == 0


def test_pairs_beyond_the_limit_are_counted(llama_folder, pairs_file, tmp_path):
    arguments = [
        str(llama_folder),
        "--prompts",
        str(pairs_file),
        "-n",
        "6",
        "--gap",
        "0",
        "-o",
        str(tmp_path),
    ]
    code, out, err = command(*arguments)
    assert (code, err) == (0, "") and re.match(
        r"kept \d of 16 prompts \(dropped: 10 beyond --limit", out
    )
