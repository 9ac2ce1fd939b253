"""Where the traces of a model run: here, in a rehearsal, or on a server.

The model itself says so.
"""

from __future__ import annotations

PLACE = (
    "_remote_backend"  # where nnsight looks for the way to a server, and `remote.place` puts ours
)


def remote_of(model) -> bool | str:
    """Return where a model's sessions run, as nnsight's `remote`: False (here), "local" (a
    rehearsal), True (NDIF), a URL.
    """
    return getattr(vars(model).get(PLACE), "remote", False)


def on_server(model) -> bool:
    """Return whether a model runs on a server, and not here or in a rehearsal."""
    return remote_of(model) not in (False, "local")
