"""Statements of random tokens, laid out as `prompts.statements.statements` does it."""

from __future__ import annotations

import numpy as np
import xarray as xr
from random_models import VOCABULARY

# question, 1 if true, 1 if best, tokens of the prompt, of the answer, and of what stands behind it
LAYOUT = (
    (0, 1, 1, 5, 3, 0),
    (0, 1, 0, 5, 1, 0),
    (0, 0, 0, 5, 2, 1),
    (0, 0, 0, 5, 4, 0),
    (3, 1, 1, 7, 2, 0),
    (3, 0, 0, 7, 2, 2),
    (4, 1, 0, 3, 1, 0),
    (4, 1, 1, 3, 2, 0),
    (4, 0, 0, 3, 1, 0),
)


def statements(seed: int = 0, layout=LAYOUT) -> xr.Dataset:
    """Random tokens, laid out as prompts.statements.statements does it."""
    generator = np.random.default_rng(seed)
    prompt = {number: generator.integers(4, VOCABULARY, size=12) for number in range(30)}
    rows = [
        [*prompt[q][:asked], *generator.integers(4, VOCABULARY, said + rest)]
        for q, _, _, asked, said, rest in layout
    ]
    width = max(map(len, rows)) + 1
    token, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int8)
    for line, row in enumerate(rows):
        token[line, width - len(row) :], mask[line, width - len(row) :] = row, 1
    names = ("question", "label", "is_best", "prompt_length", "answer_length")
    coordinates = {
        name: ("batch", np.array(values)) for name, values in zip(names, list(zip(*layout))[:5])
    }
    place = ("batch", "position")
    return xr.Dataset(
        {"token": (place, token), "mask": (place, mask)}, {"batch": range(len(rows)), **coordinates}
    )
