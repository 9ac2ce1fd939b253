"""What a `remote=` gets that is given to a function, and not to `load`."""

from __future__ import annotations

import importlib
import inspect
from types import SimpleNamespace

import pytest

import nnheads
from nnheads import interventions
from nnheads.errors import BadInput
from nnheads.remote import place
from nnheads.remote.place import RemoteArgument, refusing_remote


def scores(model, prompts, *, noising: bool = False):
    """Return what was given."""
    return model, prompts, noising


def there(remote):
    model = SimpleNamespace()
    place.put(model, remote)
    return model


def test_nothing_changes_without_remote():
    model = there("local")
    assert refusing_remote(scores)(model, 1, noising=True) == (model, 1, True)


@pytest.mark.parametrize("remote", [False, "local", True, "http://localhost:1"])
def test_a_remote_that_agrees_with_the_model_is_a_named_warning(remote):
    model = there(remote)
    with pytest.warns(RemoteArgument, match="remote"):
        assert refusing_remote(scores)(model, 1, remote=remote) == (model, 1, False)
    with pytest.warns(RemoteArgument) as caught:
        refusing_remote(scores)(model=model, prompts=1, remote=remote)
    assert caught[0].filename == __file__, "the warning points at the caller"


@pytest.mark.parametrize("own, remote", [(False, True), (False, "local"), (True, False)])
def test_a_remote_that_contradicts_the_model_is_one_line(own, remote):
    with pytest.raises(BadInput, match="remote") as caught:
        refusing_remote(scores)(there(own), 1, remote=remote)
    assert "\n" not in str(caught.value)


def test_name_signature_and_docstring_stay():
    wrapped = refusing_remote(scores)
    assert wrapped.__name__ == "scores" and wrapped.__doc__ == scores.__doc__
    assert inspect.signature(wrapped) == inspect.signature(scores)
    assert "remote" not in inspect.signature(wrapped).parameters


def test_every_public_function_of_a_model_says_so():
    functions = [getattr(nnheads, name) for name in nnheads.__all__ if name != "load"]
    functions = [one for one in functions if inspect.isfunction(one)]
    functions = [
        one for one in functions if next(iter(inspect.signature(one).parameters), "") == "model"
    ]
    assert nnheads.patch in functions and len(functions) > 10
    edits = [getattr(interventions, name) for name in ("run", "generate", "evaluate", "train")]
    for function in [*functions, *edits]:
        with pytest.raises(BadInput, match=rf"{function.__name__} got remote=True"):
            function(there(False), remote=True)


def test_the_front_door_gives_the_same_function_each_time():
    assert nnheads.patch is nnheads.patch
    assert nnheads.read_pairs is importlib.import_module("nnheads.prompts.pair_files").read_pairs
