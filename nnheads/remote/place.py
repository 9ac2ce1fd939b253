"""Where the sessions of a model run, and the ledger that their jobs are written to.

    model = load("meta-llama/Llama-3.1-70B", remote=True)  # every trace of it is a job on NDIF
    place_of(model).belong_to(Ledger(folder))              # its jobs are written there

`models.load` puts the place into a model.

A model that was not made by `load` runs here.
"""

from __future__ import annotations

import contextlib
import functools
import re
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from nnheads.errors import BadInput
from nnheads.remote.jobs import job_class
from nnheads.remote.ledger import Ledger
from nnheads.remote.server import plain_key
from nnheads.trace.session import PLACE

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


def remote_value(given: Any) -> bool | str:
    """Return where a model runs as nnsight takes it: False, True (NDIF), "local" or a URL.

    Raises:
        BadInput: anything else.
    """
    if given is None or given is False:
        return False
    if given is True or given == "ndif":
        return True
    if isinstance(given, str) and (given == "local" or is_address(given)):
        return given
    shown = re.sub(r"(://).*@", r"\1***@", repr(given))
    raise BadInput(f"remote {shown} is not possible; use ndif, local or a URL")


def is_address(text: str) -> bool:
    """Return whether a text is the address of a server."""
    if not text.startswith(("http://", "https://")) or re.search(r"\s", text):
        return False
    import httpx

    try:
        return bool(httpx.URL(text).host and urllib.parse.urlsplit(text).hostname)
    except (httpx.InvalidURL, ValueError):
        return False


class RemoteArgument(DeprecationWarning):
    """A function was given `remote=`, which the model says itself."""


class PlainKey(UserWarning):
    """The user's key travels where everybody on the way can read it."""


class Place:
    """Say where a model's sessions run. nnsight asks it for the way that a job goes.

    remote: as nnsight takes it: False for here, "local" for a rehearsal, True for NDIF, or a URL.
    waiting: whether results are waited for. If not, they are taken where they are there, and
        `Pending` is raised else.
    ledger: where jobs are written down.

    It does not travel with a model's job.
    """

    def __init__(self, model: Any, remote: bool | str = False, *, waiting: bool = True) -> None:
        self.model, self.remote, self.waiting = model, remote, waiting
        self.ledger = Ledger()

    def __call__(
        self,
        remote: bool | str,
        blocking: bool = True,
        job_id: str | None = None,
        verbose: bool = False,
    ) -> Any:
        """Return nnsight's backend of a session: its own for a rehearsal, else a job of ours."""
        if remote == "local" or not blocking or job_id is not None:
            return type(self.model)._remote_backend(self.model, remote, blocking, job_id, verbose)
        host = remote if isinstance(remote, str) else None
        return job_class()(
            self, self.model.to_model_key(), host=host, env=self.model._remoteable_get_env()
        )

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return dict, ()

    @property
    def on_server(self) -> bool:
        """Whether sessions are jobs on a server."""
        return self.remote not in (False, "local")

    def belong_to(self, ledger: Ledger) -> None:
        """Let jobs belong to a run from now on, and those that were sent before it was opened."""
        before, self.ledger = self.ledger, ledger
        if before is not ledger:
            ledger.take_over(before)

    @contextlib.contextmanager
    def not_waiting(self) -> Iterator[None]:
        """Meanwhile do not wait for results."""
        before, self.waiting = self.waiting, False
        try:
            yield
        finally:
            self.waiting = before


def place_of(model: Any) -> Place:
    """Return where a model's sessions run."""
    found = vars(model).get(PLACE)
    return found if isinstance(found, Place) else Place(model)


def put(model: Any, remote: bool | str | None = False, *, waiting: bool = True) -> None:
    """Let a model's sessions run somewhere from now on.

    Raises BadInput for what `remote_value` refuses.
    """
    value = remote_value(remote)
    for text in plain_key(value) if isinstance(value, str) and value != "local" else ():
        warnings.warn(text, PlainKey, stacklevel=3)
    vars(model)[PLACE] = Place(model, value, waiting=waiting)


def refusing_remote(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Wrap a function of a model so that a `remote=` of earlier releases gets a clear answer.

    A `remote` that agrees with the model's own is accepted for one release, with a warning
    (`RemoteArgument`). Name, signature and docstring stay those of the function.

    Raises:
        BadInput: a `remote` that contradicts where the model runs.
    """

    @functools.wraps(function)
    def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        if "remote" in kwargs:
            model = args[0] if args else kwargs.get("model")
            _check_remote(function.__name__, kwargs.pop("remote"), place_of(model).remote)
        return function(*args, **kwargs)

    return checked


def _check_remote(name: str, remote: object, own: bool | str) -> None:
    if remote_value(remote) != own:
        raise BadInput(
            f"{name} got remote={remote!r}, but this model runs with remote={own!r}."
            " Leave it out here, and give it to nnheads.load."
        )
    warnings.warn(
        f"{name} no longer takes remote: the model says where it runs. Leave it out.",
        RemoteArgument,
        stacklevel=3,
    )
