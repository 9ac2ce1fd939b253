"""What a knockout is measured on: prompts that ask for a behaviour, and the metric of it.

    prompts, reference = ask_for("induction", model.tokenizer, 24)

Each row of BEHAVIOURS also says which prompts means and other values are drawn from
(`behaviour_prompts`). A model without the behaviour gets prompts all the same: the metric of the
intact model says how much there is to lose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.patching.ablation_values import sources
from nnheads.patching.behaviour_prompts import (
    abc_sentences,
    corrupted_pairs,
    corrupted_questions,
    induction_prompts,
    ioi_prompts,
    iteration_prompts,
    more_of,
    pairs_of_a_file,
    retrieval_prompts,
    truth_prompts,
)

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
