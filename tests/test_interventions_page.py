"""The scripts of docs/interventions.md do what the page says, in its order."""

from __future__ import annotations

import contextlib
import io
import linecache
import re

from documents import DOCS, assert_alike

PAGE = DOCS / "interventions.md"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LONGEST = 22  # lines of a script


def test_every_script_prints_what_stands_below_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    scripts, said = blocks[::2], blocks[1::2]
    assert len(scripts) == 9 and {kind for kind, _ in scripts} == {"python"}
    for number, ((_, source), (kind, expected)) in enumerate(zip(scripts, said, strict=True), 1):
        assert kind == "text" and source.count("\n") <= LONGEST
        file = f"<script {number}>"  # traces and functions are read from their source
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(source, file, "exec"), names)
        assert_alike(printed.getvalue().strip(), expected.strip())
