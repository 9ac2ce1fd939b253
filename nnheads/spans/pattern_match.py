"""Pattern matching on a text, as TransformerLens scores it, from spans instead of whole patterns.

The target D is a lower-triangular 0/1 matrix. With A the attention and n tokens,
    mul = sum(A * D) / sum(A)            abs = 1 - round(sum |A - D| / n, 3)
after zeroing column 0 (`exclude_bos`) and/or the diagonal (`exclude_current`). Both need only the
attention on
D's cells and on all that is kept: with A >= 0 and D in {0, 1}, sum |A - D| = |D| + sum(A) - 2 sum(A
    * D). What is kept
is measured: what the first token leaves over can be less than the rounding of its mass.

These scores depend on the text and on its length; `abs` is negative for most heads. They are here
to compare with published numbers; `nnheads detect` is the better question.
Source: TransformerLens `head_detector`.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.spans.layout import span_dataset
from nnheads.spans.measure import measure

PATTERNS = ("previous_token", "duplicate_token", "induction")
MEASURES = ("mul", "abs")


def target(ids: np.ndarray, pattern: str | np.ndarray) -> np.ndarray:
    """D [query, key] of a text.

    Args:
        pattern: "previous_token", "duplicate_token" (all earlier copies), "induction" (the token
            after each earlier copy), or a lower-triangular 0/1 matrix of one's own.
    """
    n = len(ids)
    if n < 2:
        raise BadInput(f"a text of {n} tokens has no pattern; at least 2 are needed")
    if not isinstance(pattern, str):
        own = np.asarray(pattern, float)
        if own.shape != (n, n):
            raise BadInput(f"the pattern has shape {own.shape}; this text needs ({n}, {n})")
        if not np.array_equal(own, np.tril(own)) or not np.isin(own, (0, 1)).all():
            raise BadInput(
                "the pattern must be lower triangular, of zeros and ones: no head attends to the"
                " future"
            )
        return own
    check_names(pattern, MEASURES[0])
    if pattern == "previous_token":
        return np.eye(n, k=-1)
    copies = np.tril(ids[:, None] == ids[None, :], -1).astype(float)
    if pattern == "duplicate_token":
        return copies
    shifted = np.zeros_like(copies)
    shifted[:, 1:] = copies[:, :-1]
    return np.tril(shifted)


def check_names(pattern, kind: str) -> None:
    """Refuse a pattern or a measure that is not known."""
    if isinstance(pattern, str) and pattern not in PATTERNS:
        raise BadInput(
            f"pattern {pattern!r} is not known; use one of {', '.join(PATTERNS)} or a matrix"
        )
    if kind not in MEASURES:
        raise BadInput(f"measure {kind!r} is not known; use one of {', '.join(MEASURES)}")


def cells(
    ids: np.ndarray, pattern, exclude_bos: bool, exclude_current: bool
) -> tuple[np.ndarray, np.ndarray]:
    """D without what is excluded, and the cells that are kept, both [query, key]."""
    n = len(ids)
    kept = np.tril(np.ones((n, n), bool), -int(exclude_current))
    kept[:, 0] &= not exclude_bos
    return target(ids, pattern) * kept, kept


def match(on_target, kept, count: float, n: int, kind: str):
    """The score from sum(A * D), the mass on all cells that are kept, |D| and n. 0 where nothing is
    left to attend to; "mul" is between 0 and 1."""
    if kind == "mul":
        return np.where(kept > 0, np.minimum(on_target, kept) / np.where(kept > 0, kept, 1.0), 0.0)
    return 1 - np.round((count + kept - 2 * on_target) / n, 3)


def match_text(
    model,
    text: str,
    pattern,
    *,
    kind: str = "mul",
    exclude_bos: bool = False,
    exclude_current: bool = False,
) -> xr.DataArray:
    """Score (layer, head) of every head on one text. Average over texts to score several.

    Raises BadInput for an unknown measure or pattern, or a text of fewer than two tokens.
    """
    check_names(pattern, kind)
    ids = np.array(model.tokenizer(text)["input_ids"])
    wanted, kept = cells(ids, pattern, exclude_bos, exclude_current)
    first = np.zeros_like(wanted)
    first[0, 0] = 1  # there is always something to measure, also where the text has no target
    query = np.flatnonzero(kept.any(1))  # whose cells are neighbours: one span a query
    rest = (
        query[None],
        kept.argmax(1)[None, query],
        kept.argmax(1)[None, query] + kept.sum(1)[None, query],
    )
    spans = {"first": _spans(first), "target": _spans(wanted), "kept": rest}
    prompts = span_dataset(ids[None], np.ones((1, len(ids)), int), spans)
    scores = measure(model, prompts)["mass"].isel(batch=0)
    shape = scores.sel(kind="first").drop_vars("kind")
    zero = np.zeros(shape.shape)
    mass = {
        str(name): scores.sel(kind=name).values * spans[str(name)][0].size
        for name in scores["kind"].values
    }
    values = match(mass.get("target", zero), mass.get("kept", zero), wanted.sum(), len(ids), kind)
    name = pattern if isinstance(pattern, str) else "own pattern"
    return shape.copy(data=values.astype("float32")).assign_attrs(
        long_name=f"{kind} match with {name}", units="1", source="TransformerLens head_detector"
    )


def _spans(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    query, key = np.nonzero(matrix)
    return query[None], key[None], key[None] + 1
