"""Pattern match on a text, as TransformerLens scores it, from spans instead of whole patterns.

The target D is a lower-triangular 0/1 matrix. With A the attention and n tokens,
    mul = sum(A * D) / sum(A)            abs = 1 - round(sum |A - D| / n, 3)
after zeroing column 0 (`exclude_bos`) and/or the diagonal (`exclude_current`). Both need only the
attention on D's cells and on all that is kept: with A >= 0 and D in {0, 1},
    sum |A - D| = |D| + sum(A) - 2 sum(A * D).
What is kept is measured: what the first token leaves over can be less than the rounding of its
mass.

These scores depend on the text and on its length; `abs` is negative for most heads. They are here
to compare with published numbers; `nnheads detect` is the better question.
Source: TransformerLens `head_detector`.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.texts import encode
from nnheads.spans.layout import span_dataset
from nnheads.spans.measure import measure

PATTERNS = ("previous_token", "duplicate_token", "induction")
MEASURES = ("mul", "abs")


def target(ids: np.ndarray, pattern: str | np.ndarray) -> np.ndarray:
    """Return the target D [query, key] of a text.

    Args:
        pattern: "previous_token", "duplicate_token" (all earlier copies), "induction" (the token
            after each earlier copy), or a lower-triangular 0/1 matrix of one's own.
    """
    n = len(ids)
    if n < 2:
        raise BadInput(f"a text of {n} tokens has no pattern; at least 2 are needed")
    if not isinstance(pattern, str):
        return _checked(np.asarray(pattern, float), n)
    check_names(pattern, MEASURES[0])
    if pattern == "previous_token":
        return np.eye(n, k=-1)
    copies = np.tril(ids[:, None] == ids[None, :], -1).astype(float)
    if pattern == "duplicate_token":
        return copies
    shifted = np.zeros_like(copies)
    shifted[:, 1:] = copies[:, :-1]
    return np.tril(shifted)


def _checked(matrix: np.ndarray, n: int) -> np.ndarray:
    """Return a matrix of the user's own. Raise BadInput for one that is no target."""
    if matrix.shape != (n, n):
        raise BadInput(f"the pattern has shape {matrix.shape}; this text needs ({n}, {n})")
    if not np.array_equal(matrix, np.tril(matrix)) or not np.isin(matrix, (0, 1)).all():
        shape = "lower triangular, of zeros and ones"
        raise BadInput(f"the pattern must be {shape}: no head attends to the future")
    return matrix


def check_names(pattern: str | np.ndarray, kind: str) -> None:
    """Refuse a pattern or a measure that is not known."""
    if isinstance(pattern, str) and pattern not in PATTERNS:
        known = ", ".join(PATTERNS)
        raise BadInput(f"pattern {pattern!r} is not known; use one of {known} or a matrix")
    if kind not in MEASURES:
        raise BadInput(f"measure {kind!r} is not known; use one of {', '.join(MEASURES)}")


def cells(
    ids: np.ndarray, pattern, exclude_bos: bool, exclude_current: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return D without what is excluded, and the cells that are kept, both [query, key]."""
    n = len(ids)
    kept = np.tril(np.ones((n, n), bool), -int(exclude_current))
    kept[:, 0] &= not exclude_bos
    return target(ids, pattern) * kept, kept


def match(on_target, kept, count: float, n: int, kind: str):
    """Return the score from sum(A * D), the mass on all cells that are kept, |D| and n.

    It is 0 where nothing is left to attend to; "mul" is between 0 and 1.
    """
    if kind == "mul":
        return np.where(kept > 0, np.minimum(on_target, kept) / np.where(kept > 0, kept, 1.0), 0.0)
    return 1 - np.round((count + kept - 2 * on_target) / n, 3)


def match_text(
    model,
    text: str,
    pattern: str | np.ndarray,
    *,
    kind: str = "mul",
    exclude_bos: bool = False,
    exclude_current: bool = False,
) -> xr.DataArray:
    """Return the pattern match (layer, head) of every head on one text.

    Average over texts to score several.

    Raises:
        BadInput: an unknown measure or pattern, or a text of fewer than two tokens.
    """
    check_names(pattern, kind)
    ids = np.array(encode(model.tokenizer, text))
    wanted, kept = cells(ids, pattern, exclude_bos, exclude_current)
    prompts = _prompts(ids, wanted, kept)
    means = measure(model, prompts)["mass"].isel(batch=0)
    shape = means.sel(kind="first").drop_vars("kind")
    on_target, on_kept = (_mass(means, prompts, name) for name in ("target", "kept"))
    values = match(on_target, on_kept, wanted.sum(), len(ids), kind)
    name = pattern if isinstance(pattern, str) else "own pattern"
    return shape.copy(data=values.astype("float32")).assign_attrs(
        long_name=f"{kind} match with {name}", units="1", source="TransformerLens head_detector"
    )


def _prompts(ids: np.ndarray, wanted: np.ndarray, kept: np.ndarray) -> xr.Dataset:
    """Return the text with spans on the target's cells and on all that are kept."""
    first = np.zeros_like(wanted)
    first[0, 0] = 1  # there is always something to measure, also where the text has no target
    query = np.flatnonzero(kept.any(1))  # whose cells are neighbours: one span a query
    start, count = kept.argmax(1)[query], kept.sum(1)[query]
    rest = (query[None], start[None], (start + count)[None])
    spans = {"first": _spans(first), "target": _spans(wanted), "kept": rest}
    return span_dataset(ids[None], np.ones((1, len(ids)), int), spans)


def _mass(means: xr.DataArray, prompts: xr.Dataset, kind: str) -> np.ndarray:
    """Return the mass [layer, head] on all spans of a kind; 0 where the text has none of it."""
    count = int((prompts["kind"] == kind).sum())
    if count == 0:
        return np.zeros(means.isel(kind=0).shape)
    return means.sel(kind=kind).values * count


def _spans(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    query, key = np.nonzero(matrix)
    return query[None], key[None], key[None] + 1
