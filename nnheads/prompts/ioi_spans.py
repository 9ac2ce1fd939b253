"""Indirect-object sentences with spans between their roles: where would a head of this job look?

    prompts = ioi_spans(tokenizer, 32)            # END -> IO, END -> S2, and the null of each
    prompts = with_spans(nnheads.ioi(tokenizer))  # every kind of SPANS

The null of each kind, `<kind>~null`, is drawn here: `null_in_rows` picks random tokens of the same
sentence that the same query can see.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from nnheads.errors import BadInput
from nnheads.prompts.ioi import ioi
from nnheads.spans.layout import Spans, span_dataset
from nnheads.spans.nulls import NULL, null_in_rows

ROLES = ("IO", "S1", "S2", "END")
# kind -> where the query and the key stand: a role, and how many tokens further
SPANS = {
    "name_mover": (("END", 0), ("IO", 0)),
    "subject": (("END", 0), ("S2", 0)),
    "duplicate": (("S2", 0), ("S1", 0)),
    "induction": (("S2", 0), ("S1", 1)),
    "previous": (("S1", 1), ("S1", 0)),
    "before_end": (("END", 0), ("END", -1)),
    # the same looks at the other name
    "name_mover_other": (("END", 0), ("S1", 0)),
    "duplicate_other": (("S2", 0), ("IO", 0)),
    "induction_other": (("S2", 0), ("IO", 1)),
}
DETECTED = ("name_mover", "subject")  # kinds that the head types of this stimulus need


def ioi_spans(tokenizer, n: int = 32, *, spread: int = 0, seed: int = 0) -> xr.Dataset:
    """Draw indirect-object sentences with spans from END: to IO (`name_mover`), to S2 (`subject`).

    The null of each comes with it. S2 is always as far away, unless `spread` adjectives vary it
    (see `ioi`, also for the errors).
    """
    return with_spans(ioi(tokenizer, n, seed=seed, spread=spread), DETECTED, seed=seed)


def with_spans(
    prompts: xr.Dataset, kinds: Sequence[str] = tuple(SPANS), *, seed: int = 0
) -> xr.Dataset:
    """Return the clean sentences of a pair dataset with spans between their roles.

    Args:
        prompts: pairs with `role_IO`, `role_S1`, `role_S2` and `role_END` (batch), as `ioi` draws
            them.
        kinds: keys of SPANS. seed: of the random targets.

    Returns:
        prompts with spans of each kind and of its null (see `spans.layout.span_dataset`), and
        `ask`, `target` (batch, step).

    Raises:
        BadInput: prompts without these roles.
    """
    missing = [role for role in ROLES if f"role_{role}" not in prompts.coords]
    if missing:
        listed = ", ".join(missing)
        raise BadInput(f"These prompts have no role {listed}. Draw them with nnheads.ioi.")
    spans = _between_roles(prompts, kinds, np.random.default_rng(seed))
    spanned = span_dataset(prompts["token"].values, prompts["mask"].values, spans)
    further = prompts.drop_vars(["token", "mask", "batch"])
    step = ("batch", "step")
    ask = (step, prompts["role_END"].values[:, None])
    target = (step, prompts["answer"].values[:, None])
    whole = spanned.merge(further).assign(ask=ask, target=target)
    return whole.assign_coords(batch=prompts["batch"]).assign_attrs(prompts.attrs)


def _between_roles(
    prompts: xr.Dataset, kinds: Sequence[str], generator: np.random.Generator
) -> dict[str, Spans]:
    """Return the spans of each kind and of its null, each [batch, span]."""
    first = prompts.sizes["position"] - prompts["mask"].sum("position").values
    spans = {}
    for kind in kinds:
        query, key = (_position(prompts, *end) for end in SPANS[kind])
        spans[kind] = (query, key, key + 1)
        spans[f"{kind}{NULL}"] = null_in_rows(spans[kind], first, generator)
    return spans


def _position(prompts: xr.Dataset, role: str, further: int) -> np.ndarray:
    """Return where a role stands, or so many tokens after it [batch, 1]."""
    return prompts[f"role_{role}"].values[:, None] + further
