"""What does a head say when it looks at a word? Copying heads raise that word's own logit, others
lower it.

A head's output circuit is W_O W_V: what it writes when it attends to a token. It is read here for
    tokens by
themselves: the stream after the first block, where the token follows the tokenizer's
    beginning-of-text token if there
is one, goes into every layer's attention (layer 0 too, which in a run reads the embedding), and
what each head then writes goes through the final norm and the unembedding.
Sources: Wang et al. 2022, arXiv 2211.00593 (copy score); McDougall et al. 2023, arXiv 2310.04625
    (copy suppression).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from scipy import stats as scipy_stats

from nnheads.errors import BadInput
from nnheads.models.inputs import inputs
from nnheads.models.labels import check_finite
from nnheads.prompts.ioi_words import NAMES
from nnheads.prompts.pairs import next_token, token_texts
from nnheads.stats import CONFIDENCE, adjusted
from nnheads.trace.vocabulary import Ranked, read_outputs
from nnheads.writing.logit_attribution import writing_form

SOURCE = "Wang et al. 2022, arXiv 2211.00593"
SUPPRESSION_SOURCE = "McDougall et al. 2023, arXiv 2310.04625"
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


def copy_scores(model, words: Sequence[str] | None = None, *, top: int = 5) -> xr.Dataset:
    """How often a head that looks at a word has it among its `top` outputs, and how often when its
    sign is turned.

    Args:
        words: what is looked at; those that are one token after a space count. Default: the names
            of the indirect-object task.

    Returns:
        (layer, head): `copy` and `negative`, shares of words, each with its Wilson interval
        (`_low`, `_high`), what another word of the list gets (`_null`), and the q value of a share
        as high as that by chance (`_q_value`).

    Raises:
        BadInput: fewer than two usable words, or a `top` that is not possible. RunError: values
            that are not finite.
    """
    return summary(word_scores(model, words, top=top))


def word_scores(
    model,
    words: Sequence[str] | np.ndarray | None = None,
    *,
    pool: np.ndarray | None = None,
    top: int = 5,
) -> xr.Dataset:
    """The same for each word: `copy`, `negative` (1 or 0), `copy_null`, `negative_null` (share of
    the other words that are among the top), and `rank` of the word (0 is the highest), all (batch,
    layer, head).

    Args:
        words: as for `copy_scores`, or token ids. pool: ids of all words, where `words` are only
            some of them.
    """
    ids = chosen_tokens(model.tokenizer, NAMES if words is None else words)
    pool = ids if pool is None else pool
    found = outputs(model, ids, pool=pool, top=top)
    hits = {"copy": found["rank"] < top, "negative": found["turned"] < top}
    others = {"copy": found["others"], "negative": found["turned_others"]}
    meanings = {
        "copy": "the word is among the head's top",
        "negative": "among the top of the head with its sign turned",
    }
    data = {}
    for name, hit in hits.items():
        data[name] = cases_of(hit, meanings[name])
        data[f"{name}_null"] = cases_of(
            others[name] / max(1, len(pool) - 1), f"share of other words that are: {name}"
        )
    data["rank"] = cases_of(
        found["rank"], "rank of the word in what the head writes, 0 is the highest"
    )
    return labelled(model, data, ids).assign_attrs(top=top, scores="copy negative")


def suppression_scores(
    model,
    words: Sequence[str] | np.ndarray | None = None,
    *,
    n: int = 300,
    pool: np.ndarray | None = None,
    top: int = 10,
    seed: int = 0,
) -> xr.Dataset:
    """Does a head lower the logit of the token that it looks at?

    Args:
        words: what is looked at, or token ids. Default: `n` tokens drawn from the whole vocabulary.
        pool: ids of all words, where `words` are only some of them.

    Returns:
        (batch, layer, head): `suppression`, 1 where the token's own logit is below the vocabulary's
        mean in what the head writes; `lowest`, 1 where it is among the `top` lowest; for each,
        `_null`, the share of the other words that are; and `own_logit`, the own logit minus the
        vocabulary's mean. `summary` reduces it.

    Raises:
        BadInput: as `copy_scores`.
    """
    ids = drawn_tokens(model, n, seed) if words is None else chosen_tokens(model.tokenizer, words)
    pool = ids if pool is None else pool
    found, others = outputs(model, ids, pool=pool, top=top), max(1, len(pool) - 1)
    source = SUPPRESSION_SOURCE
    data = {
        "suppression": cases_of(
            found["own"] < 0, "the token's own logit is below the mean", source
        ),
        "suppression_null": cases_of(
            found["below_others"] / others, "share of other tokens below the mean", source
        ),
        "lowest": cases_of(found["bottom"] < top, f"the token is among the {top} lowest", source),
        "lowest_null": cases_of(
            found["bottom_others"] / others, f"share of other tokens among the {top} lowest", source
        ),
        "own_logit": cases_of(
            found["own"], "own logit minus the vocabulary's mean", SUPPRESSION_SOURCE, "logit"
        ),
    }
    return labelled(model, data, ids).assign_attrs(top=top, scores="suppression lowest")


def outputs(
    model,
    ids: np.ndarray,
    *,
    pool: np.ndarray | None = None,
    members: np.ndarray | None = None,
    top: int = 5,
) -> dict[str, np.ndarray]:
    """Readings of what every head writes at each token, each [token, layer, head]; see
    `vocabulary.rank_outputs`.

    Args:
        pool: tokens of which those among a head's top are counted, other than the token itself;
            default `ids`.
        members: [token, member]: also return the logits of these tokens, as `members` [token,
            layer, head, member].
    """
    if not 1 <= top < model.config.vocab_size:
        raise BadInput(
            f"a top of {top} is not possible; the vocabulary has {model.config.vocab_size} tokens"
        )
    start = model.tokenizer.bos_token_id
    rows = np.stack([np.full_like(ids, start), ids], 1) if start is not None else ids[:, None]
    texts = xr.Dataset(
        {
            "token": (("batch", "position"), rows),
            "mask": (("batch", "position"), np.ones_like(rows)),
        }
    )
    fed, alone = inputs(model, texts), inputs(model, texts.isel(position=[-1]))
    tokens, others = torch.from_numpy(ids), torch.from_numpy(ids if pool is None else pool)
    asked = torch.from_numpy(ids[:, None][:, :0] if members is None else members)
    ranked = Ranked(ids=tokens, members=asked, pool=others, top=top)
    found = read_outputs(model, fed, alone, ranked, writing_form(model)).cpu()
    check_finite(found, "what heads write")
    values = found.numpy()
    return {
        **{name: values[..., place] for place, name in enumerate(READINGS)},
        "members": values[..., len(READINGS) :],
    }


def chosen_tokens(tokenizer, words: Sequence[str] | np.ndarray) -> np.ndarray:
    """Token ids as they are, or those of words."""
    return words if isinstance(words, np.ndarray) else single_tokens(tokenizer, words)


def single_tokens(tokenizer, words: Sequence[str]) -> np.ndarray:
    """Ids of those words that are one token after a space.

    Raises BadInput if there are fewer than two.
    """
    found = [next_token(tokenizer, BEFORE, word) for word in dict.fromkeys(words)]
    ids = list(dict.fromkeys(token for token in found if token is not None))
    if len(ids) < 2:
        raise BadInput(
            f"{len(ids)} of {len(found)} words are single tokens of this tokenizer; at least 2 are"
            " needed"
        )
    return np.array(ids)


def drawn_tokens(model, n: int, seed: int) -> np.ndarray:
    """Tokens drawn from the vocabulary, without special ones."""
    if n < 2:
        raise BadInput(f"{n} tokens are not enough; draw at least 2")
    special = set(model.tokenizer.all_special_ids)
    usable = [
        i for i in range(min(len(model.tokenizer), model.config.vocab_size)) if i not in special
    ]
    return np.sort(np.random.default_rng(seed).choice(usable, min(n, len(usable)), replace=False))


def summary(cases: xr.Dataset) -> xr.Dataset:
    """Shares over tokens: for each score that `cases.attrs["scores"]` names, the share with its
    Wilson interval, the mean of its null, and the q value (Benjamini and Hochberg) of a one-sided
    binomial test against that null."""
    data: dict[str, tuple] = {}
    dims = ("layer", "head")
    for name in str(cases.attrs["scores"]).split():
        hits = cases[name].transpose("batch", *dims)
        count, known = hits.sum("batch").values, hits.notnull().sum("batch").values
        null = cases[f"{name}_null"].mean("batch").transpose(*dims).values
        low, high = wilson(count, known)
        floor = (
            cases.attrs.get("top", 1) / cases.attrs["vocabulary"]
        )  # no test is against a chance of zero
        p_value = scipy_stats.binom.sf(count - 1, known, np.clip(null, floor, 1))
        about = {key: hits.attrs[key] for key in ("units", "source")}
        meaning = hits.attrs["long_name"]
        each = {
            name: (count / known, f"share of tokens: {meaning}"),
            f"{name}_low": (low, f"lower end of the 95% Wilson interval of {name}"),
            f"{name}_high": (high, f"upper end of the 95% Wilson interval of {name}"),
            f"{name}_null": (null, cases[f"{name}_null"].attrs["long_name"]),
            f"{name}_q_value": (
                adjusted(p_value),
                f"p of {name} by chance, adjusted for all heads",
            ),
        }
        data |= {
            key: (dims, np.asarray(value, np.float32), {"long_name": text, **about})
            for key, (value, text) in each.items()
        }
    reduced = xr.Dataset(data).assign_coords({name: cases[name] for name in dims})
    return reduced.assign_attrs({**cases.attrs, "tokens": cases.sizes["batch"]})


def wilson(successes: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval of a share, which stays sound at 0 and 1."""
    z = scipy_stats.norm.ppf((1 + CONFIDENCE) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = successes / count
        centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
        half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    low, high = (
        np.where(successes == 0, 0.0, centre - half),
        np.where(successes == count, 1.0, centre + half),
    )
    return low, high  # exact at the ends, where rounding would put the share outside


def cases_of(values: np.ndarray, long_name: str, source: str = SOURCE, units: str = "1") -> tuple:
    """A variable (batch, layer, head) with its attributes."""
    about = {"long_name": long_name, "units": units, "source": source}
    return ("batch", "layer", "head"), values.astype(np.float32), about


def labelled(model, data: dict, ids: np.ndarray) -> xr.Dataset:
    """Variables of `cases_of` with the tokens that they are about as coordinates."""
    shape = next(iter(data.values()))[1].shape
    index = {"layer": list(range(shape[1])), "head": list(range(shape[2]))}
    texts = {
        "token": ("batch", ids),
        "token_text": ("batch", token_texts(model.tokenizer, ids.tolist())),
    }
    return (
        xr.Dataset(data)
        .assign_coords({"batch": list(range(len(ids))), **index, **texts})
        .assign_attrs(vocabulary=int(model.config.vocab_size))
    )
