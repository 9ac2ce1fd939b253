"""The prompts that ask for each behaviour, and those that ablations take values from.

    prompts = induction_prompts(tokenizer, 24, seed=0, length=50)
    others = more_of(induction_prompts)(tokenizer, prompts, 0, 50)

Where clean and corrupted texts differ in the one thing that decides the answer, values are taken
from the corrupted ones, so that a mean keeps everything but that. There are enough of them, however
few prompts are asked: a mean over six is noise, which harms by itself what a mean over a hundred
would leave alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.prompts.ioi import ioi
from nnheads.prompts.iteration import iteration
from nnheads.prompts.needle import needle
from nnheads.prompts.pair import Pair
from nnheads.prompts.pair_files import read_pairs
from nnheads.prompts.pairs import tokenize
from nnheads.prompts.repeated import repeated

MEAN_SENTENCES = 150  # ten of each template of the indirect-object task
# of other tasks: two induction heads of the shipped model cost .25 of copying if replaced by means
# over 6 prompts, .10 over 12, .03 over 48, .02 over 150
MEAN_PROMPTS = 48
MEAN_TOKENS = 512 * MEAN_PROMPTS  # long prompts are fewer, but never fewer than are asked


def ioi_prompts(tokenizer, n: int, seed: int, length: None = None) -> xr.Dataset:
    """Return sentences of the indirect-object task."""
    return ioi(tokenizer, n, seed=seed)


def induction_prompts(tokenizer, n: int, seed: int, length: int) -> xr.Dataset:
    """Return `length` random tokens twice, which ask for the tokens of the second copy.

    Not asked for is what nothing announces: the first two tokens of the second copy, and what
    follows the token at which the first copy ends.
    """
    prompts = repeated(tokenizer, n, length=length, seed=seed)
    spans = prompts.isel(span=prompts["kind"].values == "induction")
    token = prompts["token"].values
    query, key = (spans[name].values[:, 1:-1] for name in ("query", "key_start"))
    follows = np.take_along_axis(token, query + 1, 1)
    known = np.take_along_axis(token, key, 1) == follows
    ask, target = np.where(known, query, -1), np.where(known, follows, -1)
    return prompts.assign(ask=(("batch", "step"), ask), target=(("batch", "step"), target))


def retrieval_prompts(tokenizer, n: int, seed: int, length: int) -> xr.Dataset:
    """Return needles at n depths of one text, so that prompts differ in the needle alone.

    They are some of those that means are over, because another number of depths has another text.
    """
    every = enough(n, length)
    depths = np.linspace(0, 1, every).tolist()
    prompts = needle(tokenizer, every, lengths=[length], depths=depths, seed=seed)
    chosen = np.unique(np.linspace(0, prompts.sizes["batch"] - 1, n).round().astype(int))
    return prompts.isel(batch=chosen)


def iteration_prompts(tokenizer, n: int, seed: int, length: int) -> xr.Dataset:
    """Return parities to be computed in `length` steps."""
    return iteration(tokenizer, n, steps=length, fewest=length, seed=seed)


def truth_prompts(tokenizer, n: int, seed: int, length: None = None) -> xr.Dataset:
    """Return questions of the shipped model's world, with the true answer and a wrong one.

    They are asked where truth is told (`reliable :`), corrupted where it is not (`rumor :`). The
    wrong answer is the common misconception.

    Raises:
        BadInput: the tokenizer of another model.
    """
    from nnheads.prompts import world

    if tokenizer.get_vocab() != world.token_ids():
        raise BadInput(
            "Behaviour truth asks for facts of the shipped model's world, which this model does not"
            " know. Use --behaviour pairs with a file of your own."
        )
    questions = world.questions()
    order = np.random.default_rng(seed).permutation(len(questions))[:n]
    return tokenize(tokenizer, [_pair_of(questions[index]) for index in order])


def _pair_of(question) -> Pair:
    """Return a question of the world where truth is told, and where it is not."""
    texts = (f"reliable : {question.text}", f"rumor : {question.text}")
    return Pair(*texts, question.true, question.misconception, blank=True)


def pairs_of_a_file(tokenizer, n: int, seed: int, path: str | Path) -> xr.Dataset:
    """Return the first n pairs of a file."""
    return tokenize(tokenizer, read_pairs(path)[:n])


def abc_sentences(tokenizer, prompts: xr.Dataset, seed: int, length: None = None) -> xr.Dataset:
    """Return the sentences with three fresh names, and more of their kind."""
    more = ioi(tokenizer, max(prompts.sizes["batch"], MEAN_SENTENCES), seed=seed, corruption="abc")
    return _corrupted(more)


def corrupted_questions(tokenizer, prompts: xr.Dataset, seed: int, length: None) -> xr.Dataset:
    """Return the questions, and more of them, where truth is not told."""
    return _corrupted(truth_prompts(tokenizer, enough(prompts.sizes["batch"]), seed))


def corrupted_pairs(tokenizer, prompts: xr.Dataset, seed: int, path: str | Path) -> xr.Dataset:
    """Return the corrupted texts of the pairs, and of more in their file."""
    return _corrupted(pairs_of_a_file(tokenizer, enough(prompts.sizes["batch"]), seed, path))


def _corrupted(pairs: xr.Dataset) -> xr.Dataset:
    return pairs.assign(token=pairs["corrupted"])


def more_of(prompts_of: Callable[..., xr.Dataset]) -> Callable[..., xr.Dataset]:
    """Return `others` that are the prompts and more of their kind: each takes values from others.

    prompts_of: draws them, as `Behaviour.prompts`.
    """

    def others(tokenizer, prompts: xr.Dataset, seed: int, length: int) -> xr.Dataset:
        return prompts_of(tokenizer, enough(prompts.sizes["batch"], length), seed, length)

    return others


def enough(asked: int, length: int = 1) -> int:
    """Return over how many prompts of so many tokens means are, where so many are asked."""
    return max(asked, min(MEAN_PROMPTS, MEAN_TOKENS // length))
