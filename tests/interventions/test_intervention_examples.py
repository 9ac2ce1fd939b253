"""The examples in the docstrings of `nnheads.interventions` run, and say what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

import nnheads
from nnheads import interventions

NAMES = ["run", "generate", "save", "load", "as_module", "train", "aligned", "direct_path"]


@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs(name):
    function = getattr(interventions, name)
    home = vars(importlib.import_module(function.__module__))
    tests = doctest.DocTestFinder(recurse=False).find(home[name], name, globs={"nnheads": nnheads})
    assert tests and tests[0].examples
    runner = doctest.DocTestRunner()
    for test in tests:
        runner.run(test)
    assert runner.failures == 0
