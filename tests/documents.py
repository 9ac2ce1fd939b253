"""Texts with numbers, compared: the same words, and numbers that differ by no more than machines do."""

from __future__ import annotations

import re

NUMBER = re.compile(r"-?\d+\.\d+")


def assert_alike(ours: str, theirs: str, within: float = 0.02) -> None:
    """The same text, but for decimal numbers, which may differ a little."""
    assert NUMBER.sub("#", ours) == NUMBER.sub("#", theirs)
    for one, other in zip(NUMBER.findall(ours), NUMBER.findall(theirs), strict=True):
        assert abs(float(one) - float(other)) <= within, f"{one} is not {other} in {theirs!r}"
