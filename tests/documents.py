"""What docs/ holds: its scripts as modules; and texts compared: the same words, and numbers that
differ by no more than machines do."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"

NUMBER = re.compile(r"-?\d+\.\d+")


def script(name: str):
    """A script of docs/, which is no package, as a module; scripts import each other by name."""
    if str(DOCS) not in sys.path:
        sys.path.append(str(DOCS))
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


def assert_alike(ours: str, theirs: str, within: float = 0.02) -> None:
    """The same text, but for decimal numbers, which may differ a little."""
    assert NUMBER.sub("#", ours) == NUMBER.sub("#", theirs)
    for one, other in zip(NUMBER.findall(ours), NUMBER.findall(theirs), strict=True):
        assert abs(float(one) - float(other)) <= within, f"{one} is not {other} in {theirs!r}"
