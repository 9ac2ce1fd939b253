"""Where the traces of a model run: here, in a rehearsal, or on a server. The model itself says so.

    with model.session(remote=remote_of(model)): ...

A model that was not made by `load` runs here.
"""

from __future__ import annotations

from typing import Any

# where nnsight looks for the way to a server, and `remote.place` puts ours
PLACE = "_remote_backend"
# where a model that runs here has what is told how far its sweep is
TOLD = "_nnheads_told"


def remote_of(model: Any) -> bool | str:
    """Return where a model's sessions run, as nnsight's `remote`.

    False is here, "local" a rehearsal, True is NDIF, else a URL.
    """
    remote: bool | str = getattr(vars(model).get(PLACE), "remote", False)
    return remote


def on_server(model: Any) -> bool:
    """Return whether a model runs on a server, and not here or in a rehearsal."""
    return remote_of(model) not in (False, "local")


def tell(model: Any, share: float) -> None:
    """Say how much of a sweep is done, from 0 to 1, to whoever watches the model."""
    told = vars(model).get(TOLD)
    if told is not None:
        told(share)
