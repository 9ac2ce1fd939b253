"""Random tokens, then the same tokens again: the stimulus of all head types defined by an offset.

Random tokens carry no meaning, so what a head does on them is mechanical:
    previous_token   query i -> key i - 1
    duplicate_token  query i of the second copy -> the same token in the first
    induction        query i of the second copy -> the token after the same one in the first
    attention_sink   query i -> the very first position
    current_token    query i -> itself
The null of each kind, `<kind>~null`, is drawn here, in `_with_nulls`: `null_spans` picks for each
query keys at random among those that it can see, but for the first token.

The second copy starts at another token in each example (and goes on with those before it at the
end), so that a copy is never at the same distance in more than one example of DISTANCES: a head
that looks a fixed distance back is at its target in too few of them to pass the margin of
`stats.calibrate`.
Sources: Wang et al. 2022, arXiv 2211.00593, appendix H; Olsson et al. 2022, arXiv 2209.11895.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Int

from nnheads.errors import BadInput, Untypable
from nnheads.models.texts import prefix
from nnheads.prompts.checks import check_count
from nnheads.spans.layout import Spans, span_dataset
from nnheads.spans.nulls import NULL, NULL_DRAWS, null_spans

# a fixed distance meets 1 / 21 of the targets of many examples, less than `stats.MARGIN`
DISTANCES = 21
NULL_OF_REPEATED = (
    "random keys that the same query can see, but for the first token: `spans.nulls.null_spans`,"
    " drawn by `prompts.repeated`."
)
KINDS = ("previous_token", "duplicate_token", "induction", "attention_sink", "current_token")
SOURCE = "Wang et al. 2022, arXiv 2211.00593"


def repeated(tokenizer, n: int = 32, *, length: int = 50, seed: int = 0) -> xr.Dataset:
    """Draw n sequences of `length` random tokens and the same again.

    They stand after the beginning-of-sequence token if there is one. Example i repeats them from
    token i on, modulo DISTANCES or, if that is less, `length`. Where there is no
    beginning-of-sequence token, the very first token is never a target.

    Returns:
        token, mask (batch, position) and spans of all KINDS with their nulls (see
        `spans.layout.span_dataset`).

    Raises:
        BadInput: n < 1, length < 2, or a vocabulary too small to draw `length` different tokens
            from.
    """
    check_count(n)
    pool = _pool(tokenizer, length)
    generator = np.random.default_rng(seed)
    # Something must stand in front, or the attention sink falls on a token that is also a target.
    prefix = _prefix(tokenizer)
    first = np.stack([generator.choice(pool, length, replace=False) for _ in range(n)])
    start = np.arange(n) % min(DISTANCES, length)
    # where each token of the second copy is in the first
    place = (start[:, None] + np.arange(length)) % length
    before = np.tile(np.array(prefix, np.int64), (n, 1)).reshape(n, -1)
    token = np.concatenate([before, first, np.take_along_axis(first, place, 1)], 1)
    spans = _with_nulls(_targets(len(prefix), place), generator)
    return span_dataset(token, np.ones_like(token), spans).assign_attrs(
        title="random tokens, repeated",
        seed=seed,
        length=length,
        null_draws=NULL_DRAWS,
        source=SOURCE,
    )


def _pool(tokenizer, length: int) -> Int[np.ndarray, " token"]:
    """Return the tokens to draw from; refuse a length that they do not allow."""
    if length < 2:
        raise BadInput(f"{length} tokens are too short to repeat. Give at least 2.")
    pool = ordinary_tokens(tokenizer)
    if len(pool) < length:
        raise Untypable(
            f"This tokenizer has {len(pool)} ordinary tokens; {length} different ones cannot be"
            " drawn. Give a smaller length."
        )
    return pool


def ordinary_tokens(tokenizer) -> Int[np.ndarray, " token"]:
    """Return the token ids that are text: no special tokens."""
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    return np.array([token for token in range(len(tokenizer)) if token not in special])


def _prefix(tokenizer) -> list[int]:
    """Return what stands before every text, if anything does."""
    own = prefix(tokenizer)
    return own or [token for token in [tokenizer.bos_token_id] if token is not None]


def _targets(
    prefix: int, place: Int[np.ndarray, "batch token"]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return kind -> (query, key), [batch, span] or [span] where it is the same in all examples.

    Args:
        place: where each token of the second copy is in the first.
    """
    n, length = place.shape
    total = prefix + 2 * length
    every = np.arange(prefix + 1, total)
    second = np.tile(np.arange(prefix + length, total), (n, 1))
    first = int(prefix == 0)  # without a prefix, key 0 is where sinks rest: no target
    targets = place >= first  # as many in each example
    duplicated = second[targets].reshape(n, -1), prefix + place[targets].reshape(n, -1)
    return {
        "previous_token": (every[first:], every[first:] - 1),
        "duplicate_token": duplicated,
        "induction": (second, prefix + place + 1),
        "attention_sink": (np.arange(total), np.zeros(total, int)),
        "current_token": (every, every),
    }


def _with_nulls(
    targets: dict[str, tuple[np.ndarray, np.ndarray]], generator: np.random.Generator
) -> dict[str, Spans]:
    """Return spans of each kind and of its null, each (query, key_start, key_stop)."""
    n = len(targets["induction"][0])
    spans: dict[str, Spans] = {}
    for kind, target in targets.items():
        query, key = (np.broadcast_to(one, (n, one.shape[-1])) for one in target)
        spans[kind] = (query, key, key + 1)
        spans[f"{kind}{NULL}"] = null_spans(spans[kind], generator, first=1)
    return spans
