"""What heads look at on a few short texts, for the page: every head's attention at once, a byte for
each number.
"""

from __future__ import annotations

import contextlib

import numpy as np
import torch
import xarray as xr
from nnsight import save

from nnheads.errors import BadInput
from nnheads.models.families import family
from nnheads.models.geometry import geometry
from nnheads.models.inputs import check_length, check_tokens
from nnheads.models.texts import encode
from nnheads.page.grids import LONGEST_TEXT, packed
from nnheads.prompts.ioi import ioi
from nnheads.prompts.pairs import token_texts
from nnheads.prompts.repeated import repeated
from nnheads.trace.rows import read_rows
from nnheads.trace.session import remote_of

BUDGET = 1_500_000  # bytes of attention on a page, which is to stay below 5 MB


def attention_of(model, ids: np.ndarray) -> np.ndarray:
    """Return attention of every head on one text, uint8 [layer, head, query, key]: 255 is all of
    it.

    Raises:
        BadInput: no tokens, more than the model or the page has room for, or tokens that the model
            does not have.
    """
    if not 1 <= len(ids) <= LONGEST_TEXT:
        raise BadInput(f"a text of {len(ids)} tokens cannot be drawn; give 1 to {LONGEST_TEXT}")
    check_tokens(np.asarray(ids), model.config.get_text_config().vocab_size)
    check_length(len(ids), model.config)
    interface, layers = family(model).interface, geometry(model).layers
    given = torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64))[None]
    with torch.no_grad(), model.trace(given, use_cache=False, remote=remote_of(model)):
        each = []
        for number in range(layers):
            rows = read_rows(model.layers[number], interface)[0]
            each.append((rows.clamp(0, 1) * 255).round().to(torch.uint8).cpu())
        patterns = save(torch.stack(each))
    return patterns.numpy()


def own_texts(model, lines: list[str]) -> list[tuple[str, np.ndarray]]:
    """Return texts of a reader's own, tokenised: their first words and their tokens."""
    found = []
    for line in lines:
        ids = np.asarray(encode(model.tokenizer, line), np.int64)
        found.append((" ".join(line.split()[:3]), ids))
    return found


def drawn_texts(model, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """Return a text of each kind that detectors read: random tokens repeated, and a sentence with
    an indirect object.
    """
    found = [("random tokens, twice", repeated(model.tokenizer, 1, length=12, seed=seed))]
    with contextlib.suppress(
        BadInput
    ):  # a tokenizer that cuts names into pieces: the other text is drawn all the same
        found.append(("indirect object", ioi(model.tokenizer, 1, seed=seed)))
    return [(title, _ids(prompts)) for title, prompts in found]


def _ids(prompts: xr.Dataset) -> np.ndarray:
    return prompts["token"].values[0][prompts["mask"].values[0].astype(bool)]


def texts_for(
    model, texts: list[tuple[str, np.ndarray]], wanted: list[tuple[int, int]]
) -> list[dict]:
    """Return the texts with each head's attention, as the page takes them; of the heads of `wanted`
    alone where all would be too much for it.
    """
    sizes = geometry(model)
    numbers = sum(len(ids) * (len(ids) + 1) // 2 for _, ids in texts)
    every = [(layer, head) for layer in range(sizes.layers) for head in range(sizes.heads)]
    kept = every if numbers * len(every) <= BUDGET else wanted[: max(1, BUDGET // max(1, numbers))]
    found = []
    for title, ids in texts:
        patterns = attention_of(model, ids)
        tokens = token_texts(model.tokenizer, [int(one) for one in ids])
        drawn = {f"{layer}.{head}": packed(patterns[layer, head]) for layer, head in kept}
        found.append({"title": title, "tokens": tokens, "patterns": drawn})
    return found
