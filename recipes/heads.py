"""The head types that nnheads finds: what each one does, its statistic, and where the idea is from."""

from __future__ import annotations

from nnheads.recipes import _options as options


def main(traceback: options.Traceback = False) -> None:
    """List the head types: meaning, statistic, source."""
    from nnheads.detectors._detect import ALIASES, detector, types

    other = {name: alias for alias, name in ALIASES.items()}
    width = max(map(len, types()))
    for name, meaning in types().items():
        module = detector(name)
        alias = f" (alias {other[name]})" if name in other else ""
        options.say(f"{name:<{width}}  {meaning}{alias}")
        options.say(f"{'':<{width}}  statistic: {module.HEADLINE}; {module.SOURCE}")
