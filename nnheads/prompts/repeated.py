"""Random tokens, then the same tokens again: the stimulus for every head type that is defined by an
offset.

Random tokens carry no meaning, so what a head does on them is mechanical:
    previous_token   query i -> key i - 1
    duplicate_token  query i of the second copy -> the same token in the first
    induction        query i of the second copy -> the token after the same one in the first
    attention_sink   query i -> the very first position
    current_token    query i -> itself
Each kind comes with `<kind>~null`: the same queries, keys drawn at random from those they can see.
The second copy starts at another token in each example (and goes on with those before it at the
end), so that a copy is never at the same distance in more than one example of DISTANCES: a head
that looks a fixed distance back is at its target in too few of them to pass the margin of
`stats.calibrate`.
Sources: Wang et al. 2022, arXiv 2211.00593, appendix H; Olsson et al. 2022, arXiv 2209.11895.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.spans.layout import NULL_DRAWS, Spans, null_spans, span_dataset

DISTANCES = (
    21  # a fixed distance meets 1 / 21 of the targets of many examples, less than `stats.MARGIN`
)
NULL_OF_REPEATED = (
    "random keys that the same query can see, but for the first token: `spans.layout.null_spans`,"
    " drawn by `prompts.repeated`."
)
KINDS = ("previous_token", "duplicate_token", "induction", "attention_sink", "current_token")


def repeated(tokenizer, n: int = 32, *, length: int = 50, seed: int = 0) -> xr.Dataset:
    """n sequences of `length` random tokens and the same again, after the beginning-of-sequence
    token if there is one.

    Example i repeats them from token i on, modulo DISTANCES or, if that is less, `length`. Where
    there is no beginning-of-sequence token, the very first token is never a target.

    Returns:
        token, mask (batch, position) and spans of all KINDS with their nulls (see `prompts.spans`).

    Raises:
        BadInput: n < 1, length < 2, or a vocabulary too small to draw `length` different tokens
            from.
    """
    if n < 1:
        raise BadInput(f"{n} prompts were asked for; ask for at least 1")
    if length < 2:
        raise BadInput(f"{length} tokens are too short to repeat; at least 2")
    pool = ordinary_tokens(tokenizer)
    if len(pool) < length:
        raise BadInput(
            f"this tokenizer has {len(pool)} ordinary tokens; {length} different ones cannot be"
            " drawn"
        )
    generator = np.random.default_rng(seed)
    # Something must stand in front, or the attention sink falls on a token that is also a target.
    prefix = tokenizer("")["input_ids"] or [
        token for token in [tokenizer.bos_token_id] if token is not None
    ]
    copies = np.stack([generator.choice(pool, length, replace=False) for _ in range(n)])
    start = np.arange(n) % min(DISTANCES, length)
    place = (
        start[:, None] + np.arange(length)
    ) % length  # where each token of the second copy is in the first
    again = np.take_along_axis(copies, place, 1)
    token = np.concatenate(
        [np.tile(np.array(prefix, np.int64), (n, 1)).reshape(n, -1), copies, again], 1
    )
    spans = _spans(len(prefix), place, generator)
    dataset = span_dataset(token, np.ones_like(token), spans)
    dataset.attrs.update(
        title="random tokens, repeated",
        seed=seed,
        length=length,
        null_draws=NULL_DRAWS,
        source="Wang et al. 2022, arXiv 2211.00593",
    )
    return dataset


def ordinary_tokens(tokenizer) -> np.ndarray:
    """Token ids that are text: no special tokens, nothing that decodes to nothing."""
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    return np.array([token for token in range(len(tokenizer)) if token not in special])


def _spans(prefix: int, place: np.ndarray, generator: np.random.Generator) -> dict[str, Spans]:
    """kind -> (query, key_start, key_stop), each [batch, span].

    Args:
        place: [batch, token of the second copy] where it is in the first.
    """
    n, length = place.shape
    total = prefix + 2 * length
    every, second = np.arange(prefix + 1, total), np.tile(np.arange(prefix + length, total), (n, 1))
    first = int(prefix == 0)  # without a prefix, key 0 is where sinks rest: no target
    targets = place >= first  # as many in each example
    keys = {
        "previous_token": (every[first:], every[first:] - 1),
        "duplicate_token": (second[targets].reshape(n, -1), prefix + place[targets].reshape(n, -1)),
        "induction": (second, prefix + place + 1),
        "attention_sink": (np.arange(total), np.zeros(total, int)),
        "current_token": (every, every),
    }
    spans: dict[str, Spans] = {}
    for kind, (query, key) in keys.items():
        query, key = (np.broadcast_to(one, (n, one.shape[-1])) for one in (query, key))
        spans[kind] = (query, key, key + 1)
        spans[f"{kind}~null"] = null_spans(spans[kind], generator, first=1)
    return spans
