"""What every head writes when it attends to a token by itself, read through the unembedding.

    read = outputs(model, ids, top=5)
    read["rank"]  # [token, layer, head]: the token's own rank in what the head writes

The stream after the first block, where the token follows the tokenizer's beginning-of-text token if
there is one, goes into every layer's attention (layer 0 too, which in a run reads the embedding).
What each head then writes goes through the final norm and the unembedding. Fewer than two usable
words are refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int

from nnheads.errors import BadInput
from nnheads.models.geometry import Geometry, geometry
from nnheads.models.inputs import inputs
from nnheads.models.labels import check_finite
from nnheads.models.texts import next_tokens
from nnheads.prompts.pairs import token_texts
from nnheads.trace.vocabulary import Ranked, read_outputs
from nnheads.writing.logit_attribution import writing_spec

BEFORE = "and"  # any word: what follows it starts with a space where the tokenizer writes spaces
READINGS = (
    "rank",
    "turned",
    "bottom",
    "own",
    "others",
    "turned_others",
    "bottom_others",
    "below_others",
)
Tokens = Int[np.ndarray, " token"]


def outputs(
    model,
    ids: Tokens,
    *,
    pool: Tokens | None = None,
    members: Int[np.ndarray, "token member"] | None = None,
    top: int = 5,
    heads: Sequence[tuple[int, int]] | None = None,
) -> dict[str, np.ndarray]:
    """Return the READINGS of what every head writes at each token, see `vocabulary.rank_outputs`.

    Args:
        pool: tokens of which those among a head's top are counted, other than the token itself;
            default `ids`.
        members: also return the logits of these tokens, as `members` [token, layer, head, member].
        heads: (layer, head); default all. Each costs a pass over the vocabulary.

    Returns:
        each reading [token, layer, head], NaN for heads that were not asked for.

    Raises:
        BadInput: a `top` that is not possible. RunError: values that are not finite.
    """
    _check_top(top, model.config.get_text_config().vocab_size)
    texts = _texts(model.tokenizer, ids)
    tokens, last = inputs(model, texts), inputs(model, texts.isel(position=[-1]))
    others = ids if pool is None else pool
    wanted = ids[:, None][:, :0] if members is None else members
    sizes = geometry(model)
    asked_of = _places(heads, sizes)
    asked = Ranked(
        ids=torch.from_numpy(ids),
        members=torch.from_numpy(wanted),
        pool=torch.from_numpy(others),
        top=top,
        heads=[np.flatnonzero(layer).tolist() for layer in asked_of],
    )
    if not asked_of.any():
        return _named(np.full((len(ids), *asked_of.shape, len(READINGS)), np.nan, np.float32))
    read = read_outputs(model, tokens, last, asked, writing_spec(model)).cpu()
    check_finite(read, "what heads write")
    values = np.full((len(ids), *asked_of.shape, read.shape[-1]), np.nan, np.float32)
    values[:, asked_of] = read.numpy()
    return _named(values)


def _places(heads: Sequence[tuple[int, int]] | None, sizes: Geometry) -> np.ndarray:
    """Return where the heads stand, [layer, head]; everywhere for None."""
    places = np.full((sizes.layers, sizes.heads), heads is None)
    for layer, head in heads or ():
        places[layer, head] = True
    return places


def _check_top(top: int, vocabulary: int) -> None:
    """Refuse a top that holds nothing, or everything."""
    if not 1 <= top < vocabulary:
        raise BadInput(f"Not a number of top tokens: {top}. Ask for 1 to {vocabulary - 1}.")


def _named(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return the readings by name."""
    named = {name: values[..., number] for number, name in enumerate(READINGS)}
    return {**named, "members": values[..., len(READINGS) :]}


def _texts(tokenizer, ids: Tokens) -> xr.Dataset:
    """Return each token as a text, behind the beginning-of-text token if there is one."""
    start, dims = tokenizer.bos_token_id, ("batch", "position")
    rows = ids[:, None] if start is None else np.stack([np.full_like(ids, start), ids], 1)
    return xr.Dataset({"token": (dims, rows), "mask": (dims, np.ones_like(rows))})


def chosen_tokens(tokenizer, words: Sequence[str] | Tokens) -> Tokens:
    """Return token ids as they are, or those of words."""
    return words if isinstance(words, np.ndarray) else single_tokens(tokenizer, words)


def single_tokens(tokenizer, words: Sequence[str]) -> Tokens:
    """Return the ids of those words that are one token after a space.

    Raises:
        BadInput: fewer than two of them.
    """
    each = next_tokens(tokenizer, BEFORE, list(dict.fromkeys(words)), blank=True)
    ids = list(dict.fromkeys(token for token in each if token is not None))
    if len(ids) < 2:
        raise BadInput(
            f"{len(ids)} of {len(each)} words are single tokens of this tokenizer. Give at least 2"
            " that are."
        )
    return np.array(ids)


def drawn_tokens(model, n: int, seed: int) -> Tokens:
    """Return tokens drawn from the vocabulary, without special ones.

    Raises:
        BadInput: fewer than two.
    """
    if n < 2:
        raise BadInput(f"Not a number of tokens: {n}. Draw at least 2.")
    special = set(model.tokenizer.all_special_ids)
    size = min(len(model.tokenizer), model.config.get_text_config().vocab_size)
    usable = [number for number in range(size) if number not in special]
    return np.sort(np.random.default_rng(seed).choice(usable, min(n, len(usable)), replace=False))


def labelled(model, data: dict[str, tuple], ids: Tokens) -> xr.Dataset:
    """Return variables of `shares.cases_of` with the tokens that they are about as coordinates."""
    cases, layers, heads = next(iter(data.values()))[1].shape
    index = {"batch": list(range(cases)), "layer": list(range(layers)), "head": list(range(heads))}
    texts = token_texts(model.tokenizer, ids.tolist())
    tokens = {"token": ("batch", ids), "token_text": ("batch", texts)}
    scores = xr.Dataset(data).assign_coords({**index, **tokens})
    return scores.assign_attrs(vocabulary=int(model.config.get_text_config().vocab_size))
