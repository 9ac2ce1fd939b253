"""Counterfactual pairs: a base, a source, and the answer with a variable from the source."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int

from nnheads.errors import BadInput
from nnheads.interventions.texts import padded
from nnheads.models.texts import encode_all, next_token
from nnheads.spans.lines import numbered_lines

FIELDS = ("base", "source", "answer")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Counterfactual pairs, row by row.

    Args:
        base: prompts as a dataset (token, mask; see `run`), or for any other module its input [row,
            ...].
        sources: inputs of the source runs, of the same kind.
        answer: the counterfactual answers [row], token ids or classes; of prompts, what follows the
            last token.

    Raises:
        BadInput: rows that do not go with each other, answers that are no whole numbers.
    """

    base: Any
    sources: tuple[Any, ...]
    answer: Int[torch.Tensor, " row"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        object.__setattr__(self, "answer", _checked(torch.as_tensor(self.answer)))
        for one in (self.base, *self.sources):
            if type(one) is not type(self.base) or not isinstance(one, (xr.Dataset, torch.Tensor)):
                raise BadInput(
                    "base and sources must both be datasets or both tensors, got a"
                    f" {type(one).__name__}"
                )
            if _count(one) != len(self.answer):
                raise BadInput(
                    f"{_count(one)} inputs for {len(self.answer)} answers; pairs go row by row"
                )
        if not len(self.answer):
            raise BadInput("there are no pairs; give at least one")

    def __len__(self) -> int:
        return len(self.answer)

    def rows(self, chosen: Int[np.ndarray, " row"]) -> Pairs:
        """Return some of the pairs."""
        sources = tuple(taken(source, chosen) for source in self.sources)
        return Pairs(taken(self.base, chosen), sources, self.answer[chosen])

    def shuffled(self, seed: int = 0) -> Pairs:
        """Return the control: the same inputs, each with the answer of another pair.

        No variable explains them.
        """
        order = np.random.default_rng(seed).permutation(len(self))
        return Pairs(self.base, self.sources, self.answer[order])


def _checked(answer: torch.Tensor) -> Int[torch.Tensor, " row"]:
    if answer.dim() != 1 or answer.is_floating_point() or answer.dtype == torch.bool:
        raise BadInput(
            f"answers have shape {tuple(answer.shape)} and are {answer.dtype}; expected an id a row"
        )
    return answer.long()


def _count(inputs: xr.Dataset | torch.Tensor) -> int:
    return inputs.sizes["batch"] if isinstance(inputs, xr.Dataset) else len(inputs)


def taken(inputs: Any, chosen: Int[np.ndarray, " row"]) -> Any:
    """Return some rows of a dataset (batch) or of a tensor."""
    if isinstance(inputs, xr.Dataset):
        return inputs.isel(batch=chosen)
    return inputs[torch.from_numpy(chosen)]


def read_counterfactuals(path: str | Path) -> list[tuple[str, str, str]]:
    """Read pairs of one's own from JSON lines: {"base": text, "source": text, "answer": word}.

    Raises:
        BadInput: naming the line, for anything that does not fit.
    """
    lines = numbered_lines(path, "one pair a line, as JSON with base, source and answer")
    return [_record(where, line) for where, line in lines]


def _record(where: str, line: str) -> tuple[str, str, str]:
    try:
        record = json.loads(line)
        texts = {name: record[name] for name in FIELDS}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadInput(f"{where}: expected an object with base, source and answer") from None
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f"{where}: {name!r} must be words, got {text!r}")
    return texts["base"], texts["source"], texts["answer"]


def from_texts(tokenizer: Any, records: Sequence[tuple[str, str, str]]) -> Pairs:
    """Return pairs of texts (base, source, answer) for a language model.

    Answers follow their base as one token.

    Raises:
        BadInput: an answer that is not one token, with the number of its pair.
    """
    answers = []
    for number, (base, _, answer) in enumerate(records):
        token = next_token(tokenizer, base, answer)
        if token is None:
            raise BadInput(
                f"answer {answer!r} of pair {number} is not one token after its base; use another"
                " word"
            )
        answers.append(token)
    bases = prompts_of(tokenizer, encode_all(tokenizer, [base for base, _, _ in records]))
    sources = prompts_of(tokenizer, encode_all(tokenizer, [source for _, source, _ in records]))
    return Pairs(bases, (sources,), torch.tensor(answers, dtype=torch.long))


def prompts_of(tokenizer: Any, rows: list[list[int]]) -> xr.Dataset:
    """Return token ids of prompts as a dataset (batch, position), padded on the left."""
    if not all(rows):
        raise BadInput("a prompt has no tokens; write at least one word")
    return padded(tokenizer, rows, np.int32)
