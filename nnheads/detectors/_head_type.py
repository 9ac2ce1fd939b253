"""What a head type is: one frozen value.

It says on which prompts the type is measured, where such heads look, which statistic ranks them,
what they are compared with, what misleads, and who described them:

    HEAD_TYPE = HeadType(
        name="induction", prompts=repeated, span="induction", null=..., misleads=..., source=...
    )

Each file in this folder whose name does not begin with `_` holds one, under the name HEAD_TYPE.
`detect` runs this value, `nnheads heads` and the pages in docs/heads print it, and `check_detector`
tests it. Nothing goes around it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable

import xarray as xr

SPAN_STATISTICS = (
    "float32 (batch, layer, head), all in [0, 1]: `mass` (headline), `hit`, `above`, `uniform`,"
    " `null`."
)
DRAWN_BY_DETECT = {"tokenizer", "n", "seed"}


@dataclasses.dataclass(frozen=True)
class HeadType:
    """A kind of head, and all that `nnheads.detect` needs in order to find such heads.

    Most types are spans: `span` names the kind of span (query, first key, last key) that `prompts`
    lay out, one forward measures it, and there is nothing else to write. A type whose spans are
    only known once the model has written has `of_answers` instead; a type that learns from all
    prompts at once has `learn`.

    Attributes:
        name: of the type, and of its file.
        prompts: draws the stimulus: (tokenizer, n, *, seed, ...) -> dataset with `token`, `mask`
            (batch, position) and spans. Types with the same function share forwards.
        misleads: how a reader could be fooled. There is always a way.
        source: paper that described such heads, as data sets carry it.
        source_details: what a page adds to it: a section, a further paper.
        span: kind of span in the prompts, between which queries and keys heads of the type look.
        headline: statistic that ranks heads.
        beside: kinds of span that are reported next to the type's own.
        null: what the type is compared with, and where that is drawn.
        returns: what scores there are, with their bounds.
        of_answers: (answers) -> scores (batch, layer, head), from what
            `generation.prefixes.answer_and_measure` returns.
        learn: (model, prompts, *, batch_size, parts, quiet) -> scores (batch, layer, head).
        contrast: coordinate (batch) of 0 and 1 between whose values the headline is compared.
        counts: coordinate (batch) that is 1 for the prompts that count.

    Example:
        >>> from nnheads.prompts.repeated import repeated
        >>> one = nnheads.HeadType(
        ...     name="copy", prompts=repeated, span="duplicate_token", source="here",
        ...     null="drawn by `prompts.repeated`", misleads="texts without copies")
        >>> one.stimulus, one.options
        ('repeated', {'length'})
    """

    name: str
    prompts: Callable[..., xr.Dataset]
    misleads: str
    source: str
    source_details: str = ""
    span: str | None = None
    headline: str = "mass"
    beside: tuple[str, ...] = ()
    null: str = ""
    returns: str = SPAN_STATISTICS
    of_answers: Callable[[xr.Dataset], xr.Dataset] | None = None
    learn: Callable[..., xr.Dataset] | None = None
    contrast: str | None = None
    counts: str | None = None

    @property
    def stimulus(self) -> str:
        """Return the name of its prompts: that of the function, `ioi` for `ioi_spans`."""
        return str(getattr(self.prompts, "__name__", "prompts")).removesuffix("_spans")

    @property
    def options(self) -> set[str]:
        """Return what its prompts can be asked for, besides tokenizer, n and seed."""
        return set(inspect.signature(self.prompts).parameters) - DRAWN_BY_DETECT

    @property
    def roles(self) -> dict[str, str]:
        """Return the coordinates that reduce its scores: `contrast` and `counts`, if it has any."""
        named = {"contrast": self.contrast, "counts": self.counts}
        return {role: coordinate for role, coordinate in named.items() if coordinate}
