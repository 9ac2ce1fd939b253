"""The folder in which nnheads keeps things between runs, and how a text is put there.

It is $NNHEADS_CACHE, or nnheads in $XDG_CACHE_HOME, or ~/.cache/nnheads.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache() -> Path:
    """Return the folder that nnheads keeps things in between runs."""
    own, shared = os.environ.get("NNHEADS_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own or Path(shared or Path.home() / ".cache") / "nnheads").expanduser()


def keep(path: Path, text: str) -> None:
    """Write a text down, whole or not at all; a cache that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, delete=False, encoding="utf-8"
        ) as part:
            part.write(text)
        Path(part.name).replace(path)
    except OSError:
        return
