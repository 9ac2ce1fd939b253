"""Which pairs does a model get right?

Only these are patched, and the others are counted with their reasons.
"""

from __future__ import annotations

import json


def answered(model, pairs, name: str, keep: dict, *, strict: bool = False, both: bool = True):
    """The pairs that the model gets right, and how many were dropped for which reason.

    Args:
        keep: of `batches.run`, `remote` among it. strict: the answer is the first choice of all
            tokens. both: right on the corrupted prompt too.

    Raises:
        RunError: none is right.
    """
    import numpy as np

    from nnheads.errors import RunError
    from nnheads.models.answers import correct
    from nnheads.runs import batches

    pool = np.unique(np.concatenate([pairs["answer"], pairs["wrong"]]))
    right = batches.run(
        lambda part: correct(model, part, candidates=pool, strict=strict),
        pairs,
        name="correct",
        title="answers",
        **keep,
    )
    clean, corrupted = (right[f"correct_{which}"].values == 1 for which in ("clean", "corrupted"))
    good = clean & corrupted if both else clean
    dropped = json.loads(pairs.attrs["dropped"])
    dropped["wrong on the clean prompt"] = int((~clean).sum())
    dropped["right on clean, wrong on the corrupted prompt"] = int((clean & ~good).sum())
    if not good.any():
        runs = (
            "right on both runs; nothing can be patched"
            if both
            else "right; there is no path to follow"
        )
        raise RunError(f"{name} answers none of {pairs.attrs['asked']} prompts {runs}")
    return pairs.isel(batch=np.flatnonzero(good)), {
        reason: count for reason, count in dropped.items() if count
    }
