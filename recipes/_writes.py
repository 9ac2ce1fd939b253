"""What `nnheads writes` measures: one kind of writing a function, and what each is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from nnheads.recipes._study import Study

    from nnheads.runs.folder import Run


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured, of what.

    scores: of each token or prompt (batch, layer, head), or of pairs of heads. heads: what each
        head comes to (layer, head). prompts: or a hash of them.
    """

    scores: xr.Dataset
    heads: xr.Dataset
    prompts: xr.Dataset | str


@dataclass(frozen=True)
class Kind:
    """One kind of writing: what is looked for, whose idea it is, and the statistics that rank."""

    title: str
    source: str
    headlines: tuple[str, ...]
    measure: Callable[[Study, Run], Measured]
    words: bool = False  # whether it takes words of one's own
    signed: bool = False
    opposite: str = ""  # what is taken off in the picture, so that it shows both signs
    both: str = ""  # what the difference is

    def drawn(self, heads: xr.Dataset) -> xr.DataArray:
        """Return what the picture shows (layer, head)."""
        shown = heads[self.headlines[0] if self.headlines else "strongest"]
        if not self.opposite:
            return shown
        return (shown - heads[self.opposite]).assign_attrs(long_name=self.both, units="1")


def copied(study: Study, run: Run) -> Measured:
    """Return whether each head raises or lowers the words that it looks at."""
    from nnheads.writing.copy_score import NAMES, word_scores
    from nnheads.writing.word_outputs import single_tokens

    ids = single_tokens(study.model.tokenizer, run.facts["list"] or NAMES)[: study.limit]
    return of_tokens(study, run, ids, lambda part: word_scores(study.model, part, pool=ids))


def suppressed(study: Study, run: Run) -> Measured:
    """Return whether each head lowers the tokens that it looks at: one's own words, or drawn."""
    from nnheads.writing.copy_score import suppression_scores
    from nnheads.writing.word_outputs import drawn_tokens, single_tokens

    words, model = run.facts["list"], study.model
    if words is None:
        ids = drawn_tokens(model, study.limit, study.seed)
    else:
        ids = single_tokens(model.tokenizer, words)
    ids = ids[: study.limit]
    return of_tokens(study, run, ids, lambda part: suppression_scores(model, part, pool=ids))


def of_tokens(
    study: Study, run: Run, ids: np.ndarray, measure: Callable[[np.ndarray], xr.Dataset]
) -> Measured:
    """Measure what heads say of each token, in batches."""
    import numpy as np
    import xarray as xr

    count = np.arange(len(ids))
    scores = study.in_batches(
        run,
        lambda part: measure(part["token"].values),
        xr.Dataset({"token": ("batch", ids)}, {"batch": count}),
        name=study.kind,
        title=study.kind,
    )
    return summed_up(scores.assign_coords(batch=count), ids)


def succeeded(study: Study, run: Run) -> Measured:
    """Return whether each head raises what comes next in an order: one's own words, or those that
    ship.
    """
    from nnheads.writing.succession import OrderedClass, successor_scores

    words = run.facts["list"]
    classes = None if words is None else [OrderedClass("words", tuple(words))]
    scores = successor_scores(study.model, classes)
    return summed_up(scores, scores["token"].values)


def summed_up(scores: xr.Dataset, ids: np.ndarray) -> Measured:
    """Reduce scores of tokens to heads."""
    import xarray as xr

    from nnheads.runs.provenance import prompts_hash
    from nnheads.writing.shares import summary

    return Measured(scores, summary(scores), prompts_hash(xr.Dataset({"token": ("batch", ids)})))


def coupled(study: Study, run: Run) -> Measured:
    """Return attention to the indirect object and what is written of it, prompt by prompt."""
    from nnheads.prompts.ioi import ioi
    from nnheads.writing.coupling import coupling, write_coupling

    prompts = ioi(study.model.tokenizer, study.limit, seed=study.seed)
    scores = study.in_batches(
        run,
        lambda part: write_coupling(study.model, part),
        prompts,
        name=study.kind,
        title=study.kind,
    )
    return Measured(scores, coupling(scores, seed=study.seed), prompts)


def composed(study: Study, run: Run) -> Measured:
    """Return all pairs of heads, and for each head the strongest pair that it is the first of."""
    from nnheads.writing.composition import composition_scores

    scores = composition_scores(study.model, study.through, seed=study.seed)
    composition = scores["composition"]
    about: dict[str, Any] = {
        **composition.attrs,
        "long_name": "strongest composition with a later head",
        "cell_methods": "to_layer: to_head: maximum",
    }
    strongest = composition.max(["to_layer", "to_head"]).assign_attrs(about)
    heads = scores[["null", "null_high"]].assign(strongest=strongest)
    return Measured(scores, heads, "")


KINDS = {
    "copy": Kind(
        "heads that raise the word they look at, or lower it",
        "Wang et al. 2022, arXiv 2211.00593",
        ("copy", "negative"),
        copied,
        words=True,
        signed=True,
        opposite="negative",
        both="share of words raised into the top minus share lowered to the bottom",
    ),
    "successor": Kind(
        "heads that raise what comes next",
        "Gould et al. 2023, arXiv 2312.09230",
        ("successor",),
        succeeded,
        words=True,
    ),
    "suppression": Kind(
        "heads that lower the token they look at",
        "McDougall et al. 2023, arXiv 2310.04625",
        ("suppression", "lowest"),
        suppressed,
        words=True,
        signed=True,
        opposite="suppression_null",
        both="share of tokens lowered minus that of other tokens; below 0 the head raises them",
    ),
    "coupling": Kind(
        "heads that write the answer where they attend to it",
        "Wang et al. 2022, arXiv 2211.00593",
        ("correlation", "slope"),
        coupled,
        signed=True,
    ),
    "composition": Kind(
        "pairs of heads",
        "Elhage et al. 2021, A mathematical framework for transformer circuits",
        (),
        composed,
    ),
}
