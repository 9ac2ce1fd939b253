"""Behaviours with a causal model of how they might come about, and prompts of its inputs.

    task = task_of("ioi")
    drawn = task.draw(tokenizer, 64, seed)
    pairs = drawn.pairs(draw_counterfactuals(task.model, drawn.inputs, task.variable, 64))

Each is a few lines of Python and a function that draws prompts; your own is written like these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Int

from nnheads.errors import BadInput
from nnheads.interventions.causal_model import CausalModel, Counterfactual
from nnheads.interventions.counterfactuals import Pairs, prompts_of
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
    """Prompts of a task.

    Args:
        prompts: token, mask (batch, position), and `role_*` (batch).
        inputs: of the causal model, row by row.
        tokens: answer of the causal model -> its token.
    """

    prompts: xr.Dataset
    inputs: list[dict[str, Any]]
    tokens: Mapping[Any, int]

    def rows(self, chosen: Sequence[int]) -> Drawn:
        """Return some of the prompts."""
        inputs = [self.inputs[row] for row in chosen]
        return Drawn(self.prompts.isel(batch=list(chosen)), inputs, self.tokens)

    def texts(self) -> list[tuple]:
        """Return the tokens of each prompt, to tell whether two are the same."""
        rows = zip(self.prompts["token"].values, self.prompts["mask"].values)
        return [tuple(row[mask > 0]) for row, mask in rows]

    def answers(self, model: CausalModel) -> Int[torch.Tensor, " row"]:
        """Return the tokens of the causal model's answers to the prompts as they are."""
        said = [model.run(inputs)[model.output] for inputs in self.inputs]
        return torch.tensor([self.tokens[answer] for answer in said], dtype=torch.long)

    def pairs(self, drawn: list[Counterfactual]) -> Pairs:
        """Return counterfactual pairs of these prompts."""
        base = self.prompts.isel(batch=[one.base for one in drawn])
        source = self.prompts.isel(batch=[one.source for one in drawn])
        answer = torch.tensor([self.tokens[one.answer] for one in drawn], dtype=torch.long)
        return Pairs(base, (source,), answer)


@dataclass(frozen=True)
class Task:
    """A behaviour, and how it might come about.

    Args:
        about: what it is, in one line.
        model: the causal model.
        variable: the one that is looked for if nothing is said.
        roles: of the prompts, where it might be.
        draw: from tokenizer, number and seed to prompts.
        references: its source.
    """

    about: str
    model: CausalModel
    variable: str
    roles: tuple[str, ...]
    draw: Callable[[Any, int, int], Drawn]
    references: str


@dataclass(frozen=True)
class _Example:
    """One worked example of parity, cut where the last state is asked for.

    `roles` count from the first token.
    """

    tokens: list[int]
    bits: tuple[int, ...]
    state: int
    token: int  # of the state
    roles: dict[str, int]


def draw_parity(tokenizer: Any, n: int, seed: int) -> Drawn:
    """Draw worked examples of parity, cut where the last state is asked for.

    All have STEPS steps, so that a state is looked for at one step. `bits` are the inputs. Roles:
    SEPARATOR (the last token before the states), BEFORE (the input before the last), INPUT (the
    last), END.
    """
    drawn = iteration(tokenizer, n, steps=STEPS, fewest=STEPS, seed=seed)
    examples = [_example(drawn, row) for row in range(drawn.sizes["batch"])]
    prompts = prompts_of(tokenizer, [example.tokens for example in examples])
    first = prompts["mask"].values.argmax(1)
    roles = {
        name: np.array([example.roles[name] for example in examples]) + first
        for name in examples[0].roles
    }
    tokens = {example.state: example.token for example in examples}
    inputs: list[dict[str, Any]] = [{"bits": example.bits} for example in examples]
    return Drawn(with_roles(prompts, roles), inputs, tokens)


def _example(drawn: xr.Dataset, row: int) -> _Example:
    """Return one row of an iteration's prompts as an example."""
    first, end = int(drawn["mask"].values[row].argmax()), int(drawn["ask"].values[row, -1])
    read, apart = (
        drawn["key_start"].values[row, drawn["kind"].values == kind]
        for kind in ("iteration", "separator")
    )
    roles = {"SEPARATOR": apart[0], "BEFORE": read[-2], "INPUT": read[-1], "END": end}
    bits, states = _digits(str(drawn["text"].values[row]))
    return _Example(
        tokens=[int(token) for token in drawn["token"].values[row, first : end + 1]],
        bits=tuple(bits),
        state=states[-1],
        token=int(drawn["target"].values[row, -1]),
        roles={name: int(position) - first for name, position in roles.items()},
    )


def _digits(text: str) -> tuple[list[int], list[int]]:
    """Return the inputs and the states that a prompt names."""
    before, _, after = text.lower().rpartition("input")[2].partition("parity")
    bits, states = re.findall(r"\d", before), re.findall(r"\d", after)
    return list(map(int, bits)), list(map(int, states))


def draw_ioi(tokenizer: Any, n: int, seed: int) -> Drawn:
    """Draw indirect-object sentences. Roles: FIRST and SECOND name, S2 (the repeated one), END."""
    drawn = ioi(tokenizer, n, seed=seed)
    subject, other = drawn["subject"].values, drawn["indirect_object"].values
    before = drawn["order"].values == "ABBA"  # the indirect object comes first
    first, second = np.where(before, other, subject), np.where(before, subject, other)
    inputs: list[dict[str, Any]] = [
        {"first": str(one), "second": str(two), "repeated": str(three)}
        for one, two, three in zip(first, second, subject)
    ]
    tokens = _tokens(other, drawn["answer"]) | _tokens(subject, drawn["wrong"])
    return Drawn(with_roles(drawn[["token", "mask"]], _ioi_roles(drawn, before)), inputs, tokens)


def _ioi_roles(drawn: xr.Dataset, before: Bool[np.ndarray, " row"]) -> dict[str, np.ndarray]:
    """Return the positions of the names, in the order in which they come."""
    position = {name: drawn[f"role_{name}"].values for name in ("IO", "S1", "S2", "END")}
    return {
        "FIRST": np.where(before, position["IO"], position["S1"]),
        "SECOND": np.where(before, position["S1"], position["IO"]),
        "S2": position["S2"],
        "END": position["END"],
    }


def _tokens(names: np.ndarray, tokens: xr.DataArray) -> dict[Any, int]:
    return {str(name): int(token) for name, token in zip(names, tokens.values)}


def with_roles(prompts: xr.Dataset, roles: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Return tokens and mask alone (batch, position), with roles (batch)."""
    coordinates = {f"role_{name}": ("batch", np.asarray(where)) for name, where in roles.items()}
    return _bare(prompts).assign_coords(coordinates)


def _bare(prompts: xr.Dataset) -> xr.Dataset:
    names = ("token", "mask")
    return xr.Dataset({name: (prompts[name].dims, prompts[name].values) for name in names})


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
    """Return a task by its name."""
    if name not in TASKS:
        raise BadInput(f"task {name!r} is not known; use one of {', '.join(TASKS)}")
    return TASKS[name]
