"""nnheads: which attention heads do this, and how sure are we?

The public names below are imported when they are first used, so that `import nnheads` costs
nothing.
"""

from __future__ import annotations

import functools
import importlib
import inspect

__version__ = "0.1.0"

_WHERE = {
    "load": "nnheads.models.load",
    "geometry": "nnheads.models.geometry",
    "ioi": "nnheads.prompts.ioi",
    "read_pairs": "nnheads.prompts.pair_files",
    "tokenize": "nnheads.prompts.pairs",
    "Pair": "nnheads.prompts.pair",
    "answers": "nnheads.models.answers",
    "correct": "nnheads.models.answers",
    "patch": "nnheads.patching.patch",
    "ablate": "nnheads.patching.ablate",
    "knockout": "nnheads.patching.knockout",
    "interactions": "nnheads.patching.interaction",
    "path_patch": "nnheads.patching.path_patching",
    "attribute": "nnheads.patching.attribution",
    "screen": "nnheads.patching.screening",
    "role_table": "nnheads.patching.roles",
    "direct_logit_attribution": "nnheads.writing.logit_attribution",
    "write_coupling": "nnheads.writing.coupling",
    "coupling": "nnheads.writing.coupling",
    "copy_scores": "nnheads.writing.copy_score",
    "suppression_scores": "nnheads.writing.copy_score",
    "successor_scores": "nnheads.writing.succession",
    "composition_scores": "nnheads.writing.composition",
    "logit_lens": "nnheads.writing.logit_lens",
    "measure": "nnheads.spans.measure",
    "detect": "nnheads.detectors._detect",
    "detect_heads": "nnheads.detectors._detect",
    "detect_spans": "nnheads.detectors._detect",
    "check_detector": "nnheads.detectors._contract",
    "HeadType": "nnheads.detectors._head_type",
    "read_heads": "nnheads.interchange.read",
    "write_heads": "nnheads.interchange.write",
    "command": "nnheads.recipes._app",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(
            f"nnheads has no attribute {name!r}; public names: {', '.join(__all__)}"
        )
    value = getattr(importlib.import_module(_WHERE[name]), name)
    return _refusing_remote(value) if _takes_model(value) else value


def _takes_model(value) -> bool:
    """Return whether this is a function whose first parameter is `model`."""
    return (
        inspect.isfunction(value) and next(iter(inspect.signature(value).parameters), "") == "model"
    )


@functools.cache
def _refusing_remote(function):
    from nnheads.remote.place import refusing_remote

    return refusing_remote(function)


def __dir__() -> list[str]:
    return __all__
