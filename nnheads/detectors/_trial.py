"""A head type on trial: its prompts and scores, as often as the contract asks for them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import nnsight
import xarray as xr

from nnheads.detectors._compared import difference
from nnheads.detectors._head_type import HeadType
from nnheads.detectors._scores import measure_all
from nnheads.detectors._stimulus import Stimulus, check_fits
from nnheads.errors import BadInput, NNHeadsError, first_line
from nnheads.remote.place import place_of, put
from nnheads.trace.session import PLACE

WITHIN = 1e-5  # what batches, padding and a rehearsal may change
WITHIN_PROBES = 1e-3  # the same where probes are fitted, which stop at a tolerance of their own
COUNT, COUNT_OF_LEARNING = 3, 40  # prompts, unless a number is given


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """A head type on some prompts and a model, measured as `detect` measures it."""

    head_type: HeadType
    model: Any
    n: int | None
    seed: int
    options: dict

    @functools.cached_property
    def prompts(self) -> xr.Dataset:
        """The prompts that every check starts from."""
        return self.drawn()

    @functools.cached_property
    def whole(self) -> xr.Dataset:
        """The scores of all prompts in one batch, which everything else is compared with."""
        return self.scores(self.prompts)

    @property
    def within(self) -> float:
        """What batches, padding and a rehearsal may change."""
        return WITHIN if self.head_type.learn is None else WITHIN_PROBES

    @property
    def count(self) -> int:
        """How many prompts are drawn."""
        usual = COUNT if self.head_type.learn is None else COUNT_OF_LEARNING
        return usual if self.n is None else self.n

    def drawn(self, further: int = 0) -> xr.Dataset:
        """Draw the prompts again, or those of a further seed."""
        options = {"seed": self.seed + further, **self.options}
        with self.promised("its prompts can be drawn"):
            return self.head_type.prompts(self.model.tokenizer, self.count, **options)

    @contextlib.contextmanager
    def promised(self, promise: str) -> Iterator[None]:
        """Turn whatever its functions raise into the error of this head type."""
        try:
            yield
        except NNHeadsError:
            raise
        except Exception as error:
            raise self.broken(promise, f"{type(error).__name__}: {first_line(error)}") from error

    def scores(self, prompts: xr.Dataset) -> xr.Dataset:
        """Measure prompts in one batch."""
        stimulus = Stimulus(self.head_type.stimulus, prompts, (self.head_type,), self.options)
        check_fits(stimulus, self.model.config)
        count = prompts.sizes["batch"]
        with self.promised("it can be measured"):
            found = measure_all(self.model, [stimulus], batch_size=count, quiet=True, parts=None)
        return found[self.head_type.name]

    def broken(self, promise: str, detail: str) -> BadInput:
        """Return the error of this head type."""
        return broken(self.head_type, promise, detail)

    def equal(self, scores: xr.Dataset, expected: xr.Dataset, promise: str) -> None:
        """Raise where scores differ from what they should be."""
        found = difference(scores, expected, self.within)
        if found:
            raise self.broken(promise, found)


def broken(one: HeadType, promise: str, detail: str) -> BadInput:
    """Return the one line that names a broken promise."""
    return BadInput(f"Head type {one.name!r} breaks its contract: {promise}. {detail}.")


@contextlib.contextmanager
def rehearsed(model) -> Iterator[None]:
    """Meanwhile run every session of a model as if it were sent to a server."""
    before = place_of(model)
    known = PLACE in vars(model)
    nnsight.register("nnheads")  # its functions travel as source
    put(model, "local")
    try:
        yield
    finally:
        del vars(model)[PLACE]
        if known:
            vars(model)[PLACE] = before
