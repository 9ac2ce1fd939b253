"""Iteration heads: at the step that emits state t, attend to input t.

Attention to input t from the position that is about to emit state t of a step-by-step computation.

Such heads walk along the input while the chain of thought grows; an MLP then combines the input
with the state before it.
"""

from __future__ import annotations

from nnheads.detectors._head_type import HeadType
from nnheads.prompts.iteration import iteration

HEAD_TYPE = HeadType(
    name="iteration",
    prompts=iteration,
    span="iteration",
    beside=("wrong_offset", "separator", "previous_state"),
    null="other inputs of the same sequence, at random, drawn by `prompts.iteration`.",
    returns=(
        "float32 (batch, layer, head), all in [0, 1]: `mass` (headline), `hit`, `above`, `uniform`;"
        " `null` (other inputs of the same sequence), `wrong_offset` (inputs t-1 and t+1),"
        " `separator`, `previous_state`; `by_step` (batch, layer, head, step), NaN where an example"
        " has fewer steps. Coordinate `accuracy` (batch): does the model compute the states at all?"
    ),
    misleads=(
        "where `accuracy` is near chance. Attention that does not vary between cases is not"
        " iteration: compare with `null` and `wrong_offset`, which such a head does not beat. Where"
        " all prompts have as many steps (`fewest` = `steps`), a head that looks a fixed distance"
        " back passes; with fewer than 15 `steps`, one that spreads over several distances can."
    ),
    source="Cabannes et al. 2024, arXiv 2406.02128",
)
