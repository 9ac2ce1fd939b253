"""`nnheads inspect` as a user issues it: what its pictures show."""

from __future__ import annotations

import numpy as np
from commands import command, pictures_in
from matplotlib.colors import LogNorm


def test_its_pictures_can_be_read_where_norms_and_tokens_are_uneven(tmp_path, monkeypatch):
    figures = pictures_in(monkeypatch)
    told = command("inspect", "Mary and John", "--head", "1.0", "-o", tmp_path)
    assert set(figures) == {"residual_norm", "lens", "pattern"}
    norms = figures["residual_norm"].axes[0].collections[0]
    assert isinstance(norms.norm, LogNorm), "one position may have a hundred times the norm"
    lens = figures["lens"].axes[0]
    assert len(lens.texts) == np.size(lens.collections[0].get_array())
    assert all(text.get_text().strip() for text in lens.texts), "no cell is blank"
    names = ["embedding", "0", "1", "2", "3"]  # of four layers: counted as everywhere else
    for figure in (figures["residual_norm"], figures["lens"]):
        axes = figure.axes[0]
        assert axes.get_ylabel() == "behind layer"
        assert [label.get_text() for label in axes.get_yticklabels()] == names
    lines = told.splitlines()
    rows = lines[lines.index("behind layer  norm at the end  best next token by logit lens") + 1 :]
    assert [row.split()[0] for row in rows[:5]] == names
