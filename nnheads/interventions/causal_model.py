"""A causal model: variables, each a function of others, in a few lines of Python.

    parity = CausalModel({
        "state": lambda bits: sum(bits[:-1]) % 2,
        "bit": lambda bits: bits[-1],
        "answer": lambda state, bit: (state + bit) % 2,
    })
    parity.run({"bits": (1, 0, 1)})["answer"]                             # 0
    parity.interchange({"bits": (1, 0, 1)}, state={"bits": (0, 0, 1)})    # 1: the state is now 0

The names of a function's arguments say what it reads; what no function gives is an input.
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
    """See the module's docstring.

    Args:
        functions: variable -> function of other variables and of inputs. output: the variable that
            is the answer.

    Raises:
        BadInput: an output that no function gives, arguments without a name, variables that depend
            on themselves.
    """

    functions: Mapping[str, Callable]
    output: str = "answer"

    def __post_init__(self) -> None:
        if self.output not in self.functions:
            raise BadInput(
                f"no function gives the output {self.output!r}; known:"
                f" {', '.join(self.functions) or 'none'}"
            )
        done: set[str] = set()
        while len(done) < len(self.functions):
            ready = {
                name
                for name in self.functions.keys() - done
                if not (set(self.parents(name)) & self.functions.keys()) - done
            }
            if not ready:
                raise BadInput(
                    f"variables {', '.join(sorted(self.functions.keys() - done))} depend on"
                    " themselves"
                )
            done |= ready

    def parents(self, name: str) -> tuple[str, ...]:
        """What a variable is computed from."""
        found = inspect.signature(self.functions[name]).parameters.values()
        if any(
            one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD, one.POSITIONAL_ONLY) for one in found
        ):
            raise BadInput(
                f"the function of {name!r} must name its arguments: they say what it reads"
            )
        return tuple(one.name for one in found)

    def run(self, inputs: Mapping[str, Any], **fixed: Any) -> dict[str, Any]:
        """Every variable's value; those in `fixed` have the value given there, whatever their
        function says.

        Raises:
            BadInput: an input that is missing, a variable that does not exist.
        """
        for name in fixed:
            self.check(name)
        values = {**inputs, **fixed}

        def value(name: str):
            if name not in values:
                if name not in self.functions:
                    raise BadInput(
                        f"input {name!r} is missing; given: {', '.join(inputs) or 'none'}"
                    )
                values[name] = self.functions[name](
                    **{parent: value(parent) for parent in self.parents(name)}
                )
            return values[name]

        return {name: value(name) for name in self.functions}

    def interchange(self, base: Mapping[str, Any], **sources: Mapping[str, Any]) -> Any:
        """The answer to a base once each named variable has the value that it has in its source."""
        for name in sources:
            self.check(name)
        return self.run(base, **{name: self.run(source)[name] for name, source in sources.items()})[
            self.output
        ]

    def check(self, variable: str) -> None:
        if variable not in self.functions:
            raise BadInput(
                f"variable {variable!r} is not known; this causal model has"
                f" {', '.join(self.functions)}"
            )


@dataclass(frozen=True)
class Counterfactual:
    """Numbers of the base and the source among the inputs, and the answer; whether it is another
    than the base's.
    """

    base: int
    source: int
    answer: Any
    changes: bool


def draw_counterfactuals(
    model: CausalModel, inputs: Sequence[Mapping[str, Any]], variable: str, n: int, *, seed: int = 0
) -> list[Counterfactual]:
    """Draw n pairs of inputs and derive their answers; in every second pair the interchange changes
    the answer, so that a network that ignores it is right half the time at most; in every pair
    where none is found that keeps it, as with answers of many sorts.

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
    runs = [model.run(one) for one in inputs]
    generator = np.random.default_rng(seed)

    def drawn(changes: bool) -> Counterfactual | None:
        for _ in range(TRIES):
            base, source = (int(one) for one in generator.choice(len(inputs), 2, replace=False))
            answer = model.run(inputs[base], **{variable: runs[source][variable]})[model.output]
            if bool(answer != runs[base][model.output]) == changes:
                return Counterfactual(base, source, answer, changes)
        return None

    found: list[Counterfactual] = []
    some_keep = True
    for number in range(n):
        wanted = bool(number % 2) or not some_keep
        one = drawn(wanted)
        if one is None and not wanted:
            some_keep, one = False, drawn(True)
        if one is None:
            raise BadInput(
                f"no pair of these inputs changes the answer by its {variable}; give other inputs"
            )
        found.append(one)
    return found
