"""What a knockout is measured on: prompts that ask for a behaviour, and the number that says how
much of it is there.

Each row also says which prompts means and other values are drawn from. Where clean and corrupted
texts differ in the one thing that decides the answer, these are the corrupted ones, so that a mean
keeps everything but that.
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
from nnheads.prompts.pairs import Pair, read_pairs, tokenize
from nnheads.prompts.repeated import repeated

MEAN_SENTENCES = 150  # ten of each template of the indirect-object task
KEPT = ("token", "corrupted", "mask", "answer", "wrong", "ask", "target")


@dataclass(frozen=True)
class Behaviour:
    """`prompts(tokenizer, n, seed, length)` asks for the behaviour, `others(tokenizer, prompts,
    seed)` are the prompts that ablations take values from, `metric` is a key of
    `patching.metrics.METRICS`. `head_type` names the detector whose heads are said to do it,
    `length` the default of `prompts`; None where there is none."""

    about: str
    metric: str
    prompts: Callable[..., xr.Dataset]
    others: Callable[..., xr.Dataset]
    source: str
    head_type: str | None = None
    length: int | None = None


def induction_prompts(tokenizer, n: int, seed: int, length: int) -> xr.Dataset:
    """`length` random tokens twice. Asked is every token of the second copy but those that nothing
    announces: the first two, and what follows the place where the first copy ends."""
    prompts = repeated(tokenizer, n, length=length, seed=seed)
    own = prompts.isel(span=prompts["kind"].values == "induction")
    token, query, key = (
        prompts["token"].values,
        own["query"].values[:, 1:-1],
        own["key_start"].values[:, 1:-1],
    )
    follows = np.take_along_axis(token, query + 1, 1)
    known = np.take_along_axis(token, key, 1) == follows
    place = ("batch", "step")
    return prompts.assign(
        ask=(place, np.where(known, query, -1)), target=(place, np.where(known, follows, -1))
    )


def retrieval_prompts(tokenizer, n: int, seed: int, length: int) -> xr.Dataset:
    """Needles at n depths of one text, so that prompts differ in the needle alone."""
    return needle(tokenizer, n, lengths=[length], depths=np.linspace(0, 1, n).tolist(), seed=seed)


def truth_prompts(tokenizer, n: int, seed: int, length: None = None) -> xr.Dataset:
    """Questions of the shipped model, asked where truth is told (`reliable :`); corrupted where it
    is not (`rumor :`). The answer is the true one, the wrong one the common misconception."""
    from nnheads.prompts import world

    if tokenizer.get_vocab() != world.token_ids():
        raise BadInput(
            "the questions of behaviour truth are facts of the shipped model's world, which this"
            " model does not know; use --behaviour pairs with a file of your own"
        )
    questions = world.questions()
    order = np.random.default_rng(seed).permutation(len(questions))[:n]
    asked = [questions[place] for place in order]
    return tokenize(
        tokenizer,
        [Pair(f"reliable : {q.text}", f"rumor : {q.text}", q.true, q.misconception) for q in asked],
    )


def abc_sentences(tokenizer, prompts: xr.Dataset, seed: int) -> xr.Dataset:
    """The sentences with three fresh names, and more of their kind."""
    more = ioi(tokenizer, max(prompts.sizes["batch"], MEAN_SENTENCES), seed=seed, corruption="abc")
    return corrupted_texts(tokenizer, more, seed)


def corrupted_texts(tokenizer, prompts: xr.Dataset, seed: int) -> xr.Dataset:
    return prompts.assign(token=prompts["corrupted"])


def themselves(tokenizer, prompts: xr.Dataset, seed: int) -> xr.Dataset:
    return prompts


BEHAVIOURS = {
    "ioi": Behaviour(
        "names the indirect object",
        "logit_difference",
        lambda tokenizer, n, seed, length: ioi(tokenizer, n, seed=seed),
        abc_sentences,
        "Wang et al. 2022, arXiv 2211.00593",
    ),
    "induction": Behaviour(
        "goes on with repeated random tokens",
        "accuracy",
        induction_prompts,
        themselves,
        "Olsson et al. 2022, arXiv 2209.11895",
        "induction",
        50,
    ),
    "retrieval": Behaviour(
        "repeats a fact that is hidden in a text",
        "accuracy",
        retrieval_prompts,
        themselves,
        "Wu et al. 2024, arXiv 2404.15574",
        "retrieval",
        128,
    ),
    "iteration": Behaviour(
        "computes parities step by step (chance 0.5)",
        "accuracy",
        lambda tokenizer, n, seed, length: iteration(
            tokenizer, n, steps=length, fewest=length, seed=seed
        ),
        themselves,
        "Cabannes et al. 2024, arXiv 2406.02128",
        "iteration",
        8,
    ),
    "truth": Behaviour(
        "prefers a true answer to a common misconception",
        "logit_difference",
        truth_prompts,
        corrupted_texts,
        "Lin et al. 2022, arXiv 2109.07958",
    ),
    "pairs": Behaviour(
        "prefers the answer to the wrong one",
        "logit_difference",
        lambda tokenizer, n, seed, path: tokenize(tokenizer, read_pairs(path)[:n]),
        corrupted_texts,
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
    """n prompts that ask for a behaviour, and the prompts that its ablations take values from.

    Args:
        name: a key of BEHAVIOURS. length: random tokens before they are repeated (induction),
            tokens of a prompt (retrieval), steps (iteration). path: .jsonl or .csv with clean,
                corrupted, answer, wrong (pairs).

    Raises:
        BadInput: an unknown behaviour, an option that it does not know, or a tokenizer or file that
            does not serve.
    """
    if name not in BEHAVIOURS:
        raise BadInput(f"behaviour {name!r} is not known; use one of {', '.join(BEHAVIOURS)}")
    if (path is not None) != (name == "pairs"):
        missing = (
            "needs a file of pairs (--prompts)"
            if path is None
            else "takes no file of pairs; use pairs"
        )
        raise BadInput(f"behaviour {name} {missing}")
    behaviour = BEHAVIOURS[name]
    if length is not None and behaviour.length is None:
        raise BadInput(f"behaviour {name} has no length; leave it out")
    option = path if path is not None else (length if length is not None else behaviour.length)
    prompts = behaviour.prompts(tokenizer, n, seed, option)
    others = behaviour.others(tokenizer, prompts, seed)
    kept = [variable for variable in KEPT if variable in prompts]
    return prompts[kept].drop_vars("kind", errors="ignore"), others[["token", "mask"]].drop_vars(
        "kind", errors="ignore"
    )


def with_others(prompts: xr.Dataset, reference: xr.Dataset) -> np.ndarray:
    """[case] whether another text of the same template and length is in the reference: a prompt's
    own value in its place would ablate nothing."""
    return np.asarray(sources(prompts, reference).any(1))
