"""The pages about head types are what their generator writes, and their numbers those of the
shipped model.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from documents import DOCS, assert_alike, script

from nnheads.detectors._catalog import types


@pytest.fixture(scope="module")
def made():
    return script("pages")


@pytest.fixture(scope="module")
def texts(made):
    return made.pages()


def test_there_is_a_page_and_a_picture_for_every_type_and_nothing_else(texts):
    pictures = {f"{name}-{part}.png" for name in types() for part in ("map", "example")}
    assert {path.name for path in (DOCS / "heads").iterdir()} == pictures | {
        f"{name}.md" for name in types()
    } | {"README.md"}
    assert set(texts) == {f"{name}.md" for name in types()} | {"README.md", "../README.md"}


def test_pages_say_what_the_code_says(texts):
    for name, text in texts.items():
        written = (DOCS / "heads" / name).read_text(encoding="utf-8")
        assert written.count("\n") == text.count("\n"), f"{name}: run make docs"
        for theirs, ours in zip(written.splitlines(), text.splitlines()):
            assert_alike(ours, theirs)


def test_every_page_says_where_the_type_is_from_and_what_misleads(texts):
    for name in types():
        text = texts[f"{name}.md"]
        assert "## Source\n\n" in text and "## What misleads\n\n" in text and "arXiv" in text
        assert text.count("| L") == 5, "five heads with their scores"


@pytest.mark.parametrize(
    "path", sorted([*DOCS.glob("*.md"), *DOCS.glob("heads/*.md")]), ids=lambda path: path.name
)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#\s]+)\)", path.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (path.parent / link).exists(), link


def test_pictures_show_what_was_measured(made):
    """The strongest induction head lies on the frames, and the map holds the table's scores."""
    figures = made.pictures("induction")
    shown = figures["induction-example"].axes[0]
    values = np.ma.filled(shown.collections[0].get_array(), np.nan).reshape(
        len(shown.get_yticks()), -1
    )
    frames = [(int(patch.get_y()), int(patch.get_x())) for patch in shown.patches]
    assert len(frames) == 9 and min(values[frame] for frame in frames) > 0.5
    drawn = figures["induction-map"].axes[0].collections[0].get_array()
    np.testing.assert_allclose(
        drawn.reshape(4, 8), made.measured()["induction"][1]["mass"], atol=1e-6
    )


def test_a_docstring_is_taken_apart(made):
    found = made.sections("""What it is,
        in two lines.

        More.

        Kinds:
            a   first
            b   second

        Args:
            x: not shown.

        Misleads: where
            nothing is.
        Sources: One 2020; Two 2021.
        """)
    assert (
        found[""]
        == "What it is, in two lines.\n\nMore.\n\nKinds:\n\n```text\na   first\nb   second\n```"
    )
    assert found["Misleads"] == "where nothing is." and found["Source"] == "One 2020; Two 2021."
