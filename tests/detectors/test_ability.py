"""Whether a model does what prompts ask: counted by hand, and told in words."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from nnheads.detectors._ability import ability, fails, lines

WANTED = np.array([[7, 8, 9], [7, 8, -1], [7, 9, 8], [7, 7, 7]])


def told(right) -> dict:
    """What is known of a model that is right there, NaN where nothing is wanted."""
    right = np.where(WANTED >= 0, right, np.nan).astype("float32")
    coordinates = {"accuracy": ("batch", np.nanmean(right, 1)), "right": (("batch", "step"), right)}
    scores = xr.Dataset(coords=coordinates)
    return ability(scores, xr.Dataset({"target": (("batch", "step"), WANTED)}))


def test_shares_are_counted_by_prompt_and_by_token():
    right = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 1], [1, 1, 0]])
    found = told(right)
    assert found["accuracy"] == pytest.approx((1 + 0.5 + 1 + 2 / 3) / 4)
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]
    assert found["accuracy_by_step"] == "1.0000 0.7500 0.6667"
    assert found["accuracy_of_guessing"] == pytest.approx(6 / 11), "7 is wanted 6 times of 11"


def test_a_model_at_chance_is_said_not_to_do_it():
    (able,) = lines(told(np.ones((4, 3))))
    assert able.startswith("the model gives 1.00 of the first wanted tokens, 1.00 ")
    assert "guessing 0.55" in able and "token by token 1.00 1.00 1.00" in able
    said = lines(told(np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]])))
    assert len(said) == 2 and "does not do this task" in said[1]
    assert not fails(told(np.ones((4, 3)))) and fails(told(np.array([[1, 0, 0]] * 4)))
    assert fails(told(np.array([[0, 1, 1]] * 4))) and not fails({})


def test_the_first_token_is_told_before_those_that_follow_from_it():
    said = lines(told(np.array([[1, 1, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1]])))[0]
    assert said.startswith("the model gives 0.75 of the first wanted tokens, 0.88 [0.62, 1.00] of")


def test_a_model_that_only_goes_on_is_said_to():
    said = lines(told(np.array([[0, 1, 1]] * 4)))
    assert len(said) == 2 and "does not find the first token" in said[1]


def test_a_weak_first_token_alone_is_not_said_to_be_followed():
    said = lines(told(np.array([[0, 1, 0], [0, 1, 0], [1, 0, 1], [0, 1, 0]])))
    assert len(said) == 2 and "does not do this task" in said[1]


def test_prompts_that_ask_nothing_say_nothing():
    assert ability(xr.Dataset(), xr.Dataset()) == {} and lines({}) == []
