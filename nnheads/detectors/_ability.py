"""Does the model do what the prompts ask of it? Heads are named for where they look all the same.

    scores.attrs |= ability(scores, prompts)
    lines(scores.attrs)      # what a reader has to know first

What chance gives is what a model has that always says the most frequent wanted token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from nnheads.stats import greater_than, mean

SURE = 0.05  # p above which a model is not said to do more than guess
MOST_STEPS = 6  # tokens of an answer that are told one by one


def ability(scores: xr.Dataset, prompts: xr.Dataset) -> dict[str, Any]:
    """Return how often a model gives the wanted token, as attributes; empty where none is wanted.

    Args:
        scores: with the coordinates `accuracy` (batch) and `right` (batch, step).
        prompts: with `target` (batch, step), -1 where nothing is wanted.

    Returns:
        `accuracy` with its interval, `accuracy_low` and `accuracy_high`; `accuracy_by_step`;
        `accuracy_of_guessing`, what a model has that always gives the most frequent wanted token;
        `accuracy_p`, of being right no more often than that.
    """
    if "right" not in scores.coords:
        return {}
    share = scores["accuracy"].reset_coords(drop=True).rename("accuracy")
    about = {str(name): float(value) for name, value in mean(share).items()}
    steps = scores["right"].mean("batch").values
    return {
        **about,
        "accuracy_by_step": " ".join(f"{one:.4f}" for one in steps),
        "accuracy_of_guessing": guessing(prompts),
        "accuracy_p": float(greater_than(share.values.astype(float), guessing(prompts))),
    }


def guessing(prompts: xr.Dataset) -> float:
    """Return the accuracy of a model that always gives the most frequent wanted token.

    Args:
        prompts: with `target` (batch, step), -1 where nothing is wanted.
    """
    wanted = prompts["target"].values
    known = wanted[wanted >= 0]
    return float(np.unique(known, return_counts=True)[1].max() / known.size)


def lines(about: Mapping[str, Any]) -> list[str]:
    """Return in words whether the model does what the prompts ask; nothing where they ask nothing.

    Args:
        about: attributes of `ability`.
    """
    if "accuracy" not in about:
        return []
    value, low, high = (float(about[f"accuracy{end}"]) for end in ("", "_low", "_high"))
    chance = float(about["accuracy_of_guessing"])
    reach = f" [{low:.2f}, {high:.2f}]" if low == low else ""
    steps = np.array(str(about["accuracy_by_step"]).split(), float)
    said = f"the model gives {value:.2f}{reach} of the wanted tokens, guessing {chance:.2f}"
    if 1 < steps.size <= MOST_STEPS:  # the first has to be found, the others follow from it
        said = (
            f"the model gives {steps[0]:.2f} of the first wanted tokens, {value:.2f}{reach} of all,"
            f" guessing {chance:.2f}; token by token {' '.join(f'{one:.2f}' for one in steps)}"
        )
    if _only_continues(about):
        return [said, "it does not find the first token: others follow from those before them"]
    if fails(about):
        return [
            said,
            "it does not do this task: a head that looks there does no more than look",
        ]
    return [said]


def fails(about: Mapping[str, Any]) -> bool:
    """Return whether a model does not do what the prompts ask; no where they ask nothing.

    Args:
        about: attributes of `ability`.
    """
    if "accuracy" not in about:
        return False
    return _only_continues(about) or not float(about["accuracy_p"]) < SURE


def _only_continues(about: Mapping[str, Any]) -> bool:
    """Return whether a model finds later tokens of an answer and not the first."""
    chance = float(about["accuracy_of_guessing"])
    steps = np.array(str(about["accuracy_by_step"]).split(), float)
    later = np.nanmean(steps[1:]) if steps.size > 1 else 0.0
    return bool(later >= (1 + chance) / 2 and steps[0] <= chance)
