"""A causal model: variables, each a function of others, in a few lines of Python.

    parity = CausalModel({
        "state": lambda bits: sum(bits[:-1]) % 2,
        "bit": lambda bits: bits[-1],
        "answer": lambda state, bit: (state + bit) % 2,
    })
    parity.run({"bits": (1, 0, 1)})["answer"]                             # 0
    parity.interchange({"bits": (1, 0, 1)}, state={"bits": (0, 0, 1)})    # 1: the state is now 0

The names of a function's arguments say what it reads; what no function gives is an input. What
such a model cannot be, or does not have, raises BadInput.
Source: Geiger et al. 2021, arXiv 2106.02997.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnheads.errors import BadInput

TRIES = 200  # draws for each pair that is asked for, before none is thought to exist


@dataclass(frozen=True)
class CausalModel:
    """Variables, each a function of other variables and of inputs.

    Args:
        functions: variable -> function of other variables and of inputs.
        output: the variable that is the answer.

    Raises:
        BadInput: an output that no function gives, arguments without a name, variables that depend
            on themselves.
    """

    functions: Mapping[str, Callable]
    output: str = "answer"

    def __post_init__(self) -> None:
        if self.output not in self.functions:
            known = ", ".join(self.functions) or "none"
            raise BadInput(f"no function gives the output {self.output!r}; known: {known}")
        done: set[str] = set()
        while len(done) < len(self.functions):
            left = self.functions.keys() - done
            ready = {name for name in left if not left & set(self.parents(name))}
            if not ready:
                raise BadInput(f"variables {', '.join(sorted(left))} depend on themselves")
            done |= ready

    def parents(self, name: str) -> tuple[str, ...]:
        """Return what a variable is computed from."""
        parameters = inspect.signature(self.functions[name]).parameters
        if not all(map(_is_named, parameters.values())):
            raise BadInput(
                f"the function of {name!r} must name its arguments: they say what it reads"
            )
        return tuple(parameters)

    def run(self, inputs: Mapping[str, Any], **fixed: Any) -> dict[str, Any]:
        """Return every variable's value.

        Args:
            fixed: variables that have this value, whatever their function says.

        Raises:
            BadInput: an input that is missing, a variable that does not exist.
        """
        for name in fixed:
            self.check(name)
        values = {**inputs, **fixed}
        return {name: self._value(name, values, inputs) for name in self.functions}

    def _value(self, name: str, values: dict[str, Any], inputs: Mapping[str, Any]) -> Any:
        """Return a variable's value, and keep it and those that it is computed from in `values`."""
        if name not in values:
            if name not in self.functions:
                raise BadInput(f"input {name!r} is missing; got: {', '.join(inputs) or 'none'}")
            parents = {one: self._value(one, values, inputs) for one in self.parents(name)}
            values[name] = self.functions[name](**parents)
        return values[name]

    def interchange(self, base: Mapping[str, Any], **sources: Mapping[str, Any]) -> Any:
        """Return the answer to a base once each named variable has its value from its source."""
        for name in sources:
            self.check(name)
        values = {name: self.run(source)[name] for name, source in sources.items()}
        return self.run(base, **values)[self.output]

    def check(self, variable: str) -> None:
        """Refuse a variable that this model does not have."""
        if variable not in self.functions:
            known = ", ".join(self.functions)
            raise BadInput(f"variable {variable!r} is not known; this causal model has {known}")


def _is_named(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Counterfactual:
    """A base, a source and the counterfactual answer.

    Args:
        base, source: their numbers among the inputs.
        answer: what the causal model says.
        changes: whether it is another than the base's.
    """

    base: int
    source: int
    answer: Any
    changes: bool


def draw_counterfactuals(
    model: CausalModel, inputs: Sequence[Mapping[str, Any]], variable: str, n: int, *, seed: int = 0
) -> list[Counterfactual]:
    """Draw n pairs of inputs and derive their answers.

    In every second pair the interchange changes the answer, so that a network that ignores it is
    right half the time at most; in every pair where none is found that keeps it, as with answers of
    many sorts.

    Args:
        variable: whose value comes from the source.

    Returns:
        The pairs, with numbers of inputs and the causal model's answers.

    Raises:
        BadInput: too few inputs, an unknown variable, and inputs of which no pair changes the
            answer.
    """
    model.check(variable)
    if n < 1 or len(inputs) < 2:
        raise BadInput(
            f"{n} pairs of {len(inputs)} inputs are not possible; ask for 1 or more, of 2 inputs or"
            " more"
        )
    draw = _Draw(model, inputs, variable, np.random.default_rng(seed))
    pairs: list[Counterfactual] = []
    some_keep = True
    for number in range(n):
        changes = bool(number % 2) or not some_keep
        pair = draw(changes)
        if pair is None and not changes:
            some_keep, pair = False, draw(True)
        if pair is None:
            raise BadInput(
                f"no pair of these inputs changes the answer by its {variable}; give other inputs"
            )
        pairs.append(pair)
    return pairs


class _Draw:
    """Draw pairs until one changes the answer, or keeps it."""

    def __init__(
        self,
        model: CausalModel,
        inputs: Sequence[Mapping[str, Any]],
        variable: str,
        generator: np.random.Generator,
    ) -> None:
        self.model, self.inputs, self.variable = model, inputs, variable
        self.generator = generator
        self.runs = [model.run(one) for one in inputs]

    def __call__(self, changes: bool) -> Counterfactual | None:
        output = self.model.output
        for _ in range(TRIES):
            drawn = self.generator.choice(len(self.inputs), 2, replace=False)
            base, source = (int(number) for number in drawn)
            value = self.runs[source][self.variable]
            answer = self.model.run(self.inputs[base], **{self.variable: value})[output]
            if bool(answer != self.runs[base][output]) == changes:
                return Counterfactual(base, source, answer, changes)
        return None
