"""What does a head write when it attends to a word? Copying heads raise that word's own logit.

    scores = copy_scores(model)  # `copy` and `negative` (layer, head), with intervals and q values

A head's output circuit is W_O W_V: what it writes when it attends to a token. It is read here for
tokens by themselves, see `word_outputs`. Copy suppression heads lower the logit of the token that
they attend to. Words that are not one token of the tokenizer do not count.
Sources: Wang et al. 2022, arXiv 2211.00593 (copy score); McDougall et al. 2023, arXiv 2310.04625
(copy suppression).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from nnheads.prompts.ioi_words import NAMES
from nnheads.writing.shares import cases_of, summary
from nnheads.writing.word_outputs import chosen_tokens, drawn_tokens, labelled, outputs

SOURCE = "Wang et al. 2022, arXiv 2211.00593"
SUPPRESSION_SOURCE = "McDougall et al. 2023, arXiv 2310.04625"


def copy_scores(
    model,
    words: Sequence[str] | None = None,
    *,
    top: int = 5,
    heads: Sequence[tuple[int, int]] | None = None,
) -> xr.Dataset:
    """Return how often a head that attends to a word has it among its `top` outputs.

    Args:
        words: what is attended to; those that are one token after a space count. Default: the names
            of the indirect-object task.
        top: how many outputs count.
        heads: (layer, head); default all. Others are NaN, and q is adjusted for these alone.

    Returns:
        (layer, head), shares of words without a unit: `copy`, and `negative`, the same with the
        sign of the output turned; each with its Wilson interval (`_low`, `_high`), what another
        word of the list gets (`_null`), and the q value of a share as high as that by chance
        (`_q_value`).

    Raises:
        BadInput: fewer than two usable words, a `top` that is not possible, or a model that norms
            its residual stream after every block. RunError: values that are not finite.

    Source: Wang et al. 2022, arXiv 2211.00593.

    Example:
        >>> model = nnheads.load()
        >>> scores = nnheads.copy_scores(model, ["Mary", "John", "Tom"])
        >>> scores["copy"].dims
        ('layer', 'head')
        >>> bool((scores["copy"] <= scores["copy_high"]).all())
        True
    """
    return summary(word_scores(model, words, top=top, heads=heads))


def word_scores(
    model,
    words: Sequence[str] | np.ndarray | None = None,
    *,
    pool: np.ndarray | None = None,
    top: int = 5,
    heads: Sequence[tuple[int, int]] | None = None,
) -> xr.Dataset:
    """Return for each word whether a head that attends to it has it among its `top` outputs.

    Args:
        words: as for `copy_scores`, or token ids.
        pool: ids of all words, where `words` are only some of them.
        heads: (layer, head); default all.

    Returns:
        (batch, layer, head): `copy`, `negative` (1 or 0), `copy_null`, `negative_null` (share of
        the other words that are among the top), and `rank` of the word (0 is the highest). NaN for
        heads that were not asked for.

    Raises:
        BadInput: as `copy_scores`.
    """
    ids = chosen_tokens(model.tokenizer, NAMES if words is None else words)
    pool = ids if pool is None else pool
    read = outputs(model, ids, pool=pool, top=top, heads=heads)
    others, known = max(1, len(pool) - 1), np.isfinite(read["rank"])
    table = {
        "copy": (np.where(known, read["rank"] < top, np.nan), "the word is among the head's top"),
        "copy_null": (read["others"] / others, "share of other words that are: copy"),
        "negative": (
            np.where(known, read["turned"] < top, np.nan),
            "among the top of the head with its sign turned",
        ),
        "negative_null": (
            read["turned_others"] / others,
            "share of other words that are: negative",
        ),
        "rank": (read["rank"], "rank of the word in what the head writes, 0 is the highest"),
    }
    scores = labelled(model, _variables(table, SOURCE), ids)
    return scores.assign_attrs(top=top, scores="copy negative")


def _variables(table: dict[str, tuple[np.ndarray, str]], source: str) -> dict[str, tuple]:
    """Return shares as variables, from their values and what they are."""
    return {name: cases_of(values, text, source) for name, (values, text) in table.items()}


def suppression_scores(
    model,
    words: Sequence[str] | np.ndarray | None = None,
    *,
    n: int = 300,
    pool: np.ndarray | None = None,
    top: int = 10,
    seed: int = 0,
) -> xr.Dataset:
    """Return for each token whether a head that attends to it lowers its logit.

    Args:
        words: what is attended to, or token ids. Default: `n` tokens drawn from the whole
            vocabulary.
        pool: ids of all words, where `words` are only some of them.
        top: how many of the lowest tokens count.
        seed: of the tokens drawn.

    Returns:
        (batch, layer, head): `suppression`, 1 where the token's own logit is below the vocabulary's
        mean in what the head writes; `lowest`, 1 where it is among the `top` lowest; for each,
        `_null`, the share of the other words that are; and `own_logit`, the own logit minus the
        vocabulary's mean, in logits. `summary` reduces it.

    Raises:
        BadInput: as `copy_scores`. RunError: values that are not finite.

    Source: McDougall et al. 2023, arXiv 2310.04625.

    Example:
        >>> model = nnheads.load()
        >>> cases = nnheads.suppression_scores(model, n=20, top=3)
        >>> dict(cases["suppression"].sizes)
        {'batch': 20, 'layer': 4, 'head': 8}
    """
    ids = drawn_tokens(model, n, seed) if words is None else chosen_tokens(model.tokenizer, words)
    pool = ids if pool is None else pool
    read, others = outputs(model, ids, pool=pool, top=top), max(1, len(pool) - 1)
    lowest = f"among the {top} lowest"
    table = {
        "suppression": (read["own"] < 0, "the token's own logit is below the mean"),
        "suppression_null": (
            read["below_others"] / others,
            "share of other tokens below the mean",
        ),
        "lowest": (read["bottom"] < top, f"the token is {lowest}"),
        "lowest_null": (read["bottom_others"] / others, f"share of other tokens {lowest}"),
    }
    source = SUPPRESSION_SOURCE
    data = _variables(table, source)
    text = "own logit minus the vocabulary's mean"
    data["own_logit"] = cases_of(read["own"], text, source, "logit")
    return labelled(model, data, ids).assign_attrs(top=top, scores="suppression lowest")
