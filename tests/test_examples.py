"""Every public name says what it is and shows it: complete docstrings, examples that run."""

from __future__ import annotations

import doctest
import functools
import inspect

import pytest

import nnheads
from nnheads.models.load import load

FUNCTIONS = [name for name in nnheads.__all__ if inspect.isfunction(getattr(nnheads, name))]


@functools.cache
def reference():
    return load()


@pytest.fixture(scope="module")
def scope():
    """What an example finds: the package, and a model that is loaded once for all of them."""
    plain = nnheads.load

    @functools.wraps(plain)
    def shared(name="reference", **options):
        return plain(name, **options) if options or name != "reference" else reference()

    nnheads.load = shared
    yield {"nnheads": nnheads}
    del nnheads.load


@pytest.mark.parametrize("name", nnheads.__all__)
def test_a_public_name_has_an_example_that_runs(name, scope, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(getattr(nnheads, name)) or ""
    examples = doctest.DocTestParser().get_doctest(text, dict(scope), name, None, 0)
    assert examples.examples, f"{name} shows no example"
    said: list[str] = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed = doctest.DocTestRunner(optionflags=flags).run(examples, out=said.append).failed
    assert not failed, "".join(said)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_docstring_says_what_to_do_and_what_comes_back(name):
    text = inspect.getdoc(getattr(nnheads, name)) or ""
    first = text.split("\n")[0]
    assert first.endswith((".", "?")) and not first.startswith(("The ", "A ", "An ", "What ")), (
        first
    )
    if getattr(nnheads, name).__annotations__.get("return") != "None":
        assert "Returns:" in text, f"{name} does not say what it returns"
    assert "Raises:" in text or name == "command", f"{name} does not say what it raises"
