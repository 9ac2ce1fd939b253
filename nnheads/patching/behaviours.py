"""What a knockout is measured on: prompts that ask for a behaviour, and the metric of it.

    prompts, reference = ask_for("induction", model.tokenizer, 24)

Each row of BEHAVIOURS also says which prompts means and other values are drawn from. Where clean
and corrupted texts differ in the one thing that decides the answer, these are the corrupted ones,
so that a mean keeps everything but that. There are enough of them, however few prompts are asked: a
mean over six is noise, which harms by itself what a mean over a hundred would leave alone. A model
without the behaviour gets prompts all the same: the metric of the intact model says how much there
is to lose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.patching.ablation_values import sources
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
KEPT = ("token", "corrupted", "mask", "answer", "wrong", "ask", "target")


@dataclass(frozen=True)
class Behaviour:
    """A behaviour, the prompts that ask for it, and the metric that says how much of it is there.

    prompts: (tokenizer, n, seed, option) -> prompts; the option is a length, or a file of pairs.
    others: (tokenizer, prompts, seed, option) -> the prompts that ablations take values from.
    metric: a key of `patching.metrics.METRICS`.
    head_type: the detector whose heads are said to do it; None where there is none.
    length: the default option of `prompts`; None where it takes no length.
    """

    about: str
    metric: str
    prompts: Callable[..., xr.Dataset]
    others: Callable[..., xr.Dataset]
    source: str
    head_type: str | None = None
    length: int | None = None


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


BEHAVIOURS = {
    "ioi": Behaviour(
        "names the indirect object",
        "logit_difference",
        ioi_prompts,
        abc_sentences,
        "Wang et al. 2022, arXiv 2211.00593",
    ),
    "induction": Behaviour(
        "goes on with repeated random tokens",
        "accuracy",
        induction_prompts,
        more_of(induction_prompts),
        "Olsson et al. 2022, arXiv 2209.11895",
        "induction",
        50,
    ),
    "retrieval": Behaviour(
        "repeats a fact that is hidden in a text",
        "accuracy",
        retrieval_prompts,
        more_of(retrieval_prompts),
        "Wu et al. 2024, arXiv 2404.15574",
        "retrieval",
        128,
    ),
    "iteration": Behaviour(
        "computes parities step by step (chance 0.5)",
        "accuracy",
        iteration_prompts,
        more_of(iteration_prompts),
        "Cabannes et al. 2024, arXiv 2406.02128",
        "iteration",
        8,
    ),
    "truth": Behaviour(
        "prefers a true answer to a common misconception",
        "logit_difference",
        truth_prompts,
        corrupted_questions,
        "Lin et al. 2022, arXiv 2109.07958",
    ),
    "pairs": Behaviour(
        "prefers the answer to the wrong one",
        "logit_difference",
        pairs_of_a_file,
        corrupted_pairs,
        "",
    ),
}


def ask_for(
    name: str,
    tokenizer,
    n: int,
    *,
    seed: int = 0,
    length: int | None = None,
    path: str | Path | None = None,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Return n prompts that ask for a behaviour, and those that its ablations take values from.

    Args:
        name: a key of BEHAVIOURS.
        length: random tokens before they are repeated (induction), tokens of a prompt (retrieval),
            steps (iteration).
        path: .jsonl or .csv with clean, corrupted, answer, wrong (pairs).

    Returns:
        prompts with token, mask (batch, position), and answer, wrong (batch) or ask, target (batch,
        step); and others with token, mask (batch, position).

    Raises:
        BadInput: an unknown behaviour, an option that it does not know, or a tokenizer or file that
            does not serve.
    """
    _check(name, length, path)
    behaviour = BEHAVIOURS[name]
    length = behaviour.length if length is None else length
    option = length if path is None else path
    prompts = behaviour.prompts(tokenizer, n, seed, option)
    others = behaviour.others(tokenizer, prompts, seed, option)
    kept = [variable for variable in KEPT if variable in prompts]
    asked, reference = prompts[kept], others[["token", "mask"]]
    return asked.drop_vars("kind", errors="ignore"), reference.drop_vars("kind", errors="ignore")


def _check(name: str, length: int | None, path: str | Path | None) -> None:
    """Refuse an unknown behaviour, and options that it does not take."""
    if name not in BEHAVIOURS:
        raise BadInput(f"Not a behaviour: {name!r}. Use one of {', '.join(BEHAVIOURS)}.")
    if path is None and name == "pairs":
        raise BadInput("Behaviour pairs needs a file of pairs. Name it with --prompts.")
    if path is not None and name != "pairs":
        raise BadInput(f"Behaviour {name} takes no file of pairs. Use --behaviour pairs.")
    if length is not None and BEHAVIOURS[name].length is None:
        raise BadInput(f"Behaviour {name} has no length. Leave it out.")


def fewest_others(prompts: xr.Dataset, reference: xr.Dataset) -> int:
    """Return over how many texts of the reference a case's mean is, of the case with the fewest."""
    return int(sources(prompts, reference).sum(1).min())


def with_others(prompts: xr.Dataset, reference: xr.Dataset) -> np.ndarray:
    """Return whether each case has another text of its template and length in the reference.

    A prompt's own value in place of its value would ablate nothing.

    Returns:
        bool [case].
    """
    return np.asarray(sources(prompts, reference).any(1))
