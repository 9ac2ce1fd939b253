"""The head types that nnheads finds: what each one does, its statistic, and its source."""

from __future__ import annotations

from nnheads.recipes._options import Traceback
from nnheads.recipes._terminal import say


def main(traceback: Traceback = False) -> None:
    """List the head types: meaning, statistic, source."""
    from nnheads.detectors._catalog import ALIASES, head_type, types

    other = {name: alias for alias, name in ALIASES.items()}
    width = max(map(len, types()))
    for name, meaning in types().items():
        value = head_type(name)
        alias = f" (alias {other[name]})" if name in other else ""
        say(f"{name:<{width}}  {meaning}{alias}")
        say(f"{'':<{width}}  statistic: {value.headline}; {value.source}")
