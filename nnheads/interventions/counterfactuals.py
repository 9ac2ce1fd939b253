"""Counterfactual pairs: a base and a source input, and the answer once a variable's value comes
from the source.
"""

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
from nnheads.prompts.pairs import next_token
from nnheads.spans.layout import pad_left
from nnheads.spans.lines import numbered_lines

FIELDS = ("base", "source", "answer")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Counterfactual pairs, row by row.

    Args:
        base: prompts as a dataset (token, mask; see `run`), or for any other module its input [row,
            ...].
        sources: inputs of the source runs, of the same kind. answer: the counterfactual answers
            [row], token ids or classes; of prompts, what follows the last token.

    Raises:
        BadInput: rows that do not go with each other, answers that are no whole numbers.
    """

    base: Any
    sources: tuple[Any, ...]
    answer: Int[torch.Tensor, "row"]

    def __post_init__(self):
        object.__setattr__(self, "sources", tuple(self.sources))
        answer = torch.as_tensor(self.answer)
        if answer.dim() != 1 or answer.is_floating_point() or answer.dtype == torch.bool:
            raise BadInput(
                f"answers have shape {tuple(answer.shape)} and are {answer.dtype}; expected an id"
                " a row"
            )
        object.__setattr__(self, "answer", answer.long())
        for one in (self.base, *self.sources):
            if type(one) is not type(self.base) or not isinstance(one, (xr.Dataset, torch.Tensor)):
                raise BadInput(
                    "base and sources must both be datasets or both tensors, got a"
                    f" {type(one).__name__}"
                )
            if count(one) != len(answer):
                raise BadInput(
                    f"{count(one)} inputs for {len(answer)} answers; pairs go row by row"
                )
        if not len(answer):
            raise BadInput("there are no pairs; give at least one")

    def __len__(self) -> int:
        return len(self.answer)

    def rows(self, chosen: np.ndarray) -> Pairs:
        """Some of the pairs."""
        return Pairs(
            taken(self.base, chosen),
            tuple(taken(one, chosen) for one in self.sources),
            self.answer[chosen],
        )

    def shuffled(self, seed: int = 0) -> Pairs:
        """The control: the same inputs, each with the answer of another pair, so that no variable
        explains them.
        """
        order = np.random.default_rng(seed).permutation(len(self))
        return Pairs(self.base, self.sources, self.answer[order])


def count(given: xr.Dataset | torch.Tensor) -> int:
    return given.sizes["batch"] if isinstance(given, xr.Dataset) else len(given)


def taken(given: Any, chosen: np.ndarray) -> Any:
    return (
        given.isel(batch=chosen)
        if isinstance(given, xr.Dataset)
        else given[torch.from_numpy(chosen)]
    )


def read_counterfactuals(path: str | Path) -> list[tuple[str, str, str]]:
    """Pairs of one's own from JSON lines: {"base": text, "source": text, "answer": word}.

    Raises:
        BadInput: naming the line, for anything that does not fit.
    """
    found = []
    for where, line in numbered_lines(
        path, "one pair a line, as JSON with base, source and answer"
    ):
        try:
            record = json.loads(line)
            texts = [record[name] for name in FIELDS]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadInput(f"{where}: expected an object with base, source and answer") from None
        for name, text in zip(FIELDS, texts):
            if not isinstance(text, str) or not text.strip():
                raise BadInput(f"{where}: {name!r} must be words, got {text!r}")
        found.append((texts[0], texts[1], texts[2]))
    return found


def from_texts(tokenizer, records: Sequence[tuple[str, str, str]]) -> Pairs:
    """Pairs of texts (base, source, answer) for a language model. Answers follow their base as one
    token.

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
    both = [
        padded(tokenizer, [tokenizer(record[side])["input_ids"] for record in records])
        for side in (0, 1)
    ]
    return Pairs(both[0], (both[1],), torch.tensor(answers, dtype=torch.long))


def padded(tokenizer, rows: list[list[int]]) -> xr.Dataset:
    """Token ids of prompts as a dataset, padded on the left."""
    if not all(rows):
        raise BadInput("a prompt has no tokens; write at least one word")
    token, mask, _ = pad_left(rows, tokenizer.pad_token_id or 0)
    place = ("batch", "position")
    return xr.Dataset({"token": (place, token.astype(np.int32)), "mask": (place, mask)})
