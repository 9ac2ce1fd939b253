"""nnheads: which attention heads do this, and how sure are we?

The public names below are imported when they are first used, so that `import nnheads` costs nothing.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_WHERE = {
    "load": "nnheads.model",
    "geometry": "nnheads.model",
    "ioi": "nnheads.prompts.ioi",
    "read_pairs": "nnheads.prompts.pairs",
    "tokenize": "nnheads.prompts.pairs",
    "Pair": "nnheads.prompts.pairs",
    "answers": "nnheads.answering",
    "correct": "nnheads.answering",
    "patch": "nnheads.patching.patch",
    "ablate": "nnheads.patching.patch",
    "knockout": "nnheads.patching.knockout",
    "interactions": "nnheads.patching.interaction",
    "path_patch": "nnheads.patching.paths",
    "attribute": "nnheads.patching.gradients",
    "screen": "nnheads.patching.screening",
    "role_table": "nnheads.roles",
    "direct_logit_attribution": "nnheads.direct",
    "write_coupling": "nnheads.direct",
    "coupling": "nnheads.direct",
    "copy_scores": "nnheads.copying",
    "suppression_scores": "nnheads.copying",
    "successor_scores": "nnheads.successor",
    "composition_scores": "nnheads.composition",
    "look": "nnheads.lens",
    "measure": "nnheads.attention",
    "detect": "nnheads.detection",
    "detect_heads": "nnheads.detection",
    "detect_spans": "nnheads.detection",
    "read_heads": "nnheads.interchange.read",
    "write_heads": "nnheads.interchange.write",
    "command": "cli",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"nnheads has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
