"""The gallery shows what its commands print, names no machine, and can be made again."""

from __future__ import annotations

import re

import pytest
from documents import DOCS, script
from nnheads.recipes import recipes


@pytest.fixture(scope="module")
def gallery():
    return script("gallery")


def test_sections_are_commands_with_pictures(gallery):
    keys = [one.key for one in gallery.SECTIONS]
    assert len(keys) == len(set(keys)) >= 8
    for one in gallery.SECTIONS:
        assert {line.split()[0] for line in one.commands} <= set(recipes())
        assert all("smollm2" in line for line in one.commands)


def test_the_page_has_its_pictures_and_no_others(gallery):
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"!\[[^]]*\]\((gallery/[^)]*)\)", text))
    there = {f"gallery/{path.name}" for path in (DOCS / "gallery").iterdir()}
    assert shown == there and len(shown) >= 5
    assert not re.search(r"/(?:home|root|tmp|work|Users)/", text), "no path of a machine"
    titles = [one.title for one in gallery.SECTIONS]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == titles


def test_a_section_is_what_its_command_says(gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "FOLDER", tmp_path / "gallery")
    monkeypatch.setattr(gallery, "PAGE", tmp_path / "gallery.md")
    small = gallery.Section("small", "Title", "Text.", ("ioi --limit 4",), ("heads.png",))
    novel = gallery.Section("novel", "Needs a novel", "", ("detect --haystack {novel}",), ())
    monkeypatch.setattr(gallery, "SECTIONS", (small, novel))
    gallery.main([])
    text = (tmp_path / "gallery.md").read_text()
    assert "nnheads ioi --limit 4" in text and "kept 4 of 4 prompts" in text
    assert str(tmp_path) not in text and "Needs a novel" not in text
    assert (tmp_path / "gallery" / "small-heads.png").stat().st_size > 3000
    assert gallery.written() == {"Title": text[text.index("## Title") :].rstrip()}
