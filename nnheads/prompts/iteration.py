"""Worked examples of step-by-step tasks, with every state's and every input's tokens marked.

    prompts = iteration(tokenizer, 32, task="parity", steps=16)

"Input: 0 1 1 0", "Parity: 0 1 0 0": state t follows from state t-1 and input t. The states are
teacher-forced, so one forward shows where each head looks at the position that is about to emit
state t. Offsets of the tokenizer say where the tokens of a number are, whatever the tokenizer.

Prompts have different numbers of steps, so that input t is not equally far from state t in all of
them: a head that looks a fixed distance back is at its target in the prompts of one number alone,
and in the others at wrong inputs. The null, `iteration~null`, is drawn here, in `_other_inputs`:
random inputs of the same sequence other than input t.
Source: Cabannes et al. 2024, arXiv 2406.02128 (tasks and definition; the prompts are our own).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import xarray as xr
from jaxtyping import Int

from nnheads.models.texts import encode_with_offsets
from nnheads.prompts.checks import check_count
from nnheads.prompts.iteration_tasks import FEWEST, Solved, Span, check_task, draw, style_of
from nnheads.prompts.tokens import following, step_variables
from nnheads.spans.characters import covering
from nnheads.spans.layout import Spans, pad_left, span_dataset, stack_spans
from nnheads.spans.nulls import NULL, NULL_DRAWS

KINDS = ("iteration", "wrong_offset", "separator", "previous_state")
ASKED = "position that predicts the state; -1: no such step"
WANTED = "first token of the state; -1: no such step"
SOURCE = "Cabannes et al. 2024, arXiv 2406.02128"


@dataclasses.dataclass(frozen=True)
class Row:
    """A prompt as tokens, before padding: tokens of each input, and spans of each kind."""

    ids: list[int]
    inputs: list[Span]
    spans: dict[str, list[tuple[int, int, int]]]


def iteration(
    tokenizer,
    n: int = 32,
    *,
    task: str = "parity",
    steps: int = 16,
    fewest: int = FEWEST,
    examples: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Draw n prompts with `examples` solved sequences in front of one whose states are measured.

    Prompts have `steps` steps, one less, and so on down to `fewest` (at most `steps`), in turn.
    From 15 down to 3, or from more, a head that prefers certain distances and nothing else stays
    below the margin of `stats.calibrate`.

    Kinds of spans, all asked at the token that predicts the first token of state t:
        iteration          input t (all its tokens)
        iteration~null     other inputs of the same sequence, at random
        iteration@t        input t at step t alone
        wrong_offset       inputs t-1 and t+1
        separator          the last token before the states
        previous_state     state t-1

    Returns:
        A span dataset, with `target` (batch, step), the token that should follow each query, and
        `ask` (batch, step), its position, both -1 where an example has fewer steps; coordinate
        `text` (batch).

    Raises:
        BadInput: unknown task, fewer than 3 steps, or a tokenizer without offsets.
    """
    check_count(n)
    fewest = min(fewest, steps)
    check_task(task, fewest)
    style = style_of(tokenizer, task)
    shown = (0 if style == "terse" else 3) if examples is None else examples
    generator = np.random.default_rng(seed)
    # the longest first, so that there is always a prompt with all steps
    numbers = range(steps, fewest - 1, -1)
    drawn = [draw(generator, task, numbers[case % len(numbers)], shown, style) for case in range(n)]
    dataset = _dataset([_encoded(tokenizer, one) for one in drawn], tokenizer, steps, generator)
    dataset = dataset.assign_coords(text=("batch", [one.text for one in drawn]))
    return dataset.assign_attrs(
        title=f"{task}, step by step",
        seed=seed,
        task=task,
        steps=steps,
        fewest=fewest,
        examples=shown,
        style=style,
        null_draws=NULL_DRAWS,
        source=SOURCE,
    )


def _encoded(tokenizer, solved: Solved) -> Row:
    """Return the tokens and spans of one prompt, before padding."""
    ids, offsets = encode_with_offsets(tokenizer, solved.text)
    inputs = [_tokens(offsets, span) for span in solved.inputs]
    states = [_tokens(offsets, span) for span in solved.states]
    queries = [start - 1 for start, _ in states]
    spans = {
        "iteration": [(query, *key) for query, key in zip(queries, inputs)],
        "wrong_offset": _neighbours(queries, inputs),
        "separator": [(query, queries[0], queries[0] + 1) for query in queries],
        "previous_state": [(query, *key) for query, key in zip(queries[1:], states)],
    }
    return Row(ids, inputs, spans)


def _tokens(offsets: list[tuple[int, int]], characters: Span) -> Span:
    """Return the first token of a number and the end of its tokens."""
    covered = covering(offsets, *characters)
    return covered[0], covered[-1] + 1


def _neighbours(queries: list[int], inputs: list[Span]) -> list[tuple[int, int, int]]:
    """Return the spans from the query of step t to inputs t-1 and t+1."""
    last = len(inputs) - 1
    pairs = [(step, other) for step in range(len(queries)) for other in (step - 1, step + 1)]
    return [(queries[step], *inputs[other]) for step, other in pairs if 0 <= other <= last]


def _dataset(rows: list[Row], tokenizer, steps: int, generator: np.random.Generator) -> xr.Dataset:
    """Lay rows out as a dataset with their null, single steps, and what has to follow."""
    token, mask, shift = pad_left([row.ids for row in rows], tokenizer.pad_token_id or 0)
    spans = {kind: stack_spans([row.spans[kind] for row in rows], shift) for kind in KINDS}
    spans[f"iteration{NULL}"] = _other_inputs(rows, shift, generator)
    each = [row.spans["iteration"] for row in rows]
    for step in range(steps):
        spans[f"iteration@{step}"] = stack_spans([own[step : step + 1] for own in each], shift)
    ask = spans["iteration"][0]
    states = step_variables(ask, following(token, ask), ASKED, WANTED)
    return span_dataset(token, mask, spans).assign(states)


def _other_inputs(
    rows: list[Row], shift: Int[np.ndarray, " batch"], generator: np.random.Generator
) -> Spans:
    """Draw the null of iteration: random inputs of the same sequence other than input t."""
    return stack_spans([_others(row, generator) for row in rows], shift)


def _others(row: Row, generator: np.random.Generator) -> list[tuple[int, int, int]]:
    spans = []
    for step, (query, *_) in enumerate(row.spans["iteration"]):
        others = [other for other in range(len(row.inputs)) if other != step]
        drawn = generator.choice(others, NULL_DRAWS)
        spans += [(query, *row.inputs[int(other)]) for other in drawn]
    return spans
