"""Behaviours with a causal model of how they might come about, and prompts that the model's inputs
describe.

Each is a few lines of Python and a function that draws prompts; an own one is written like these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput
from nnheads.interventions.causal_model import CausalModel, Counterfactual
from nnheads.interventions.counterfactuals import Pairs, padded
from nnheads.prompts.ioi import ioi
from nnheads.prompts.iteration import iteration

STEPS = 12  # of a parity prompt: enough for thousands of them

PARITY = CausalModel(
    {
        "state": lambda bits: sum(bits[:-1]) % 2,
        "bit": lambda bits: bits[-1],
        "answer": lambda state, bit: (state + bit) % 2,
    }
)
IOI = CausalModel(
    {
        "position": lambda first, second, repeated: int(first == repeated),
        "answer": lambda first, second, position: (first, second)[position],
    }
)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Prompts with roles, the inputs of the causal model row by row, and the token of each of its
    answers.
    """

    prompts: xr.Dataset
    inputs: list[dict[str, Any]]
    tokens: Mapping[Any, int]

    def rows(self, chosen: Sequence[int]) -> Drawn:
        return Drawn(
            self.prompts.isel(batch=list(chosen)), [self.inputs[i] for i in chosen], self.tokens
        )

    def texts(self) -> list[tuple]:
        """The tokens of each prompt, to tell whether two are the same."""
        return [
            tuple(row[mask > 0])
            for row, mask in zip(self.prompts["token"].values, self.prompts["mask"].values)
        ]

    def answers(self, model: CausalModel) -> torch.Tensor:
        """Tokens of the causal model's answers to the prompts as they are."""
        return torch.tensor(
            [self.tokens[model.run(one)[model.output]] for one in self.inputs], dtype=torch.long
        )

    def pairs(self, drawn: list[Counterfactual]) -> Pairs:
        """Counterfactual pairs of these prompts."""
        base, source = (
            self.prompts.isel(batch=[getattr(one, side) for one in drawn])
            for side in ("base", "source")
        )
        answer = torch.tensor([self.tokens[one.answer] for one in drawn], dtype=torch.long)
        return Pairs(base, (source,), answer)


@dataclass(frozen=True)
class Task:
    """A causal model; the variable that is looked for if nothing is said; roles of the prompts at
    which it might be; and a function of tokenizer, number and seed that draws them."""

    about: str
    model: CausalModel
    variable: str
    roles: tuple[str, ...]
    draw: Callable[[Any, int, int], Drawn]
    references: str


def draw_parity(tokenizer, n: int, seed: int) -> Drawn:
    """Worked examples cut where the last state is asked for; all have STEPS steps, so that a state
    is looked for at one
    step. `bits` are the inputs. Roles: SEPARATOR (the last token before the states), BEFORE (the
        input before the
    last), INPUT (the last), END."""
    given = iteration(tokenizer, n, steps=STEPS, fewest=STEPS, seed=seed)
    rows, inputs, tokens, places = [], [], {}, []
    read, apart = (
        given["key_start"].values[:, given["kind"] == kind] for kind in ("iteration", "separator")
    )
    for row, text in enumerate(given["text"].values):
        first, end = int(given["mask"].values[row].argmax()), int(given["ask"].values[row, -1])
        rows.append([int(one) for one in given["token"].values[row, first : end + 1]])
        told = text.lower().rpartition("input")[2].partition("parity")
        bits, states = ([int(one) for one in re.findall(r"\d", told[side])] for side in (0, 2))
        inputs.append({"bits": tuple(bits)})
        tokens[states[-1]] = int(given["target"].values[row, -1])
        found = {
            "SEPARATOR": apart[row, 0],
            "BEFORE": read[row, -2],
            "INPUT": read[row, -1],
            "END": end,
        }
        places.append({name: int(place) - first for name, place in found.items()})
    prompts = padded(tokenizer, rows)
    shift = prompts["mask"].values.argmax(1)
    roles = {name: np.array([place[name] for place in places]) + shift for name in places[0]}
    return Drawn(with_roles(prompts, roles), inputs, tokens)


def draw_ioi(tokenizer, n: int, seed: int) -> Drawn:
    """Indirect-object sentences. Roles: FIRST and SECOND name, S2 (the repeated one), END."""
    given = ioi(tokenizer, n, seed=seed)
    subject, other = given["subject"].values, given["indirect_object"].values
    before = given["order"].values == "ABBA"  # the indirect object comes first
    first, second = np.where(before, other, subject), np.where(before, subject, other)
    inputs = [
        {"first": str(a), "second": str(b), "repeated": str(c)}
        for a, b, c in zip(first, second, subject)
    ]
    tokens = {str(name): int(token) for name, token in zip(other, given["answer"].values)}
    tokens |= {str(name): int(token) for name, token in zip(subject, given["wrong"].values)}
    place = {name: given[f"role_{name}"].values for name in ("IO", "S1", "S2", "END")}
    roles = {
        "FIRST": np.where(before, place["IO"], place["S1"]),
        "SECOND": np.where(before, place["S1"], place["IO"]),
    }
    return Drawn(
        with_roles(given[["token", "mask"]], {**roles, "S2": place["S2"], "END": place["END"]}),
        inputs,
        tokens,
    )


def with_roles(prompts: xr.Dataset, roles: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Tokens and mask alone, with roles."""
    plain = xr.Dataset(
        {name: (prompts[name].dims, prompts[name].values) for name in ("token", "mask")}
    )
    return plain.assign_coords(
        {f"role_{name}": ("batch", np.asarray(places)) for name, places in roles.items()}
    )


TASKS = {
    "ioi": Task(
        "the indirect object is the name that is not repeated",
        IOI,
        "position",
        ("FIRST", "SECOND", "S2", "END"),
        draw_ioi,
        "Wang et al. 2022, arXiv 2211.00593",
    ),
    "parity": Task(
        "a state is the parity of the state before it and an input",
        PARITY,
        "state",
        ("SEPARATOR", "BEFORE", "INPUT", "END"),
        draw_parity,
        "Cabannes et al. 2024, arXiv 2406.02128",
    ),
}


def task_of(name: str) -> Task:
    if name not in TASKS:
        raise BadInput(f"task {name!r} is not known; use one of {', '.join(TASKS)}")
    return TASKS[name]
