"""Measure head types on their prompts: dataset in, scores (batch, layer, head) out.

Types that only read take one forward per batch together; types about what the model writes share
its answers; a type that learns runs by itself.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import xarray as xr

from nnheads.detectors._ability import ability
from nnheads.detectors._catalog import head_types
from nnheads.detectors._head_type import HeadType
from nnheads.detectors._stimulus import Stimulus, prepare
from nnheads.generation.prefixes import answer_and_measure, why_plain
from nnheads.runs import batches
from nnheads.runs.provenance import prompts_hash
from nnheads.spans.measure import measure_and_gate
from nnheads.spans.scores import assemble, kinds_of
from nnheads.trace.session import remote_of

Scores = dict[str, xr.Dataset]


@dataclasses.dataclass(frozen=True)
class Batching:
    """How many prompts a forward takes, where finished batches are kept, how quiet it is."""

    size: int
    parts: Path | None
    quiet: bool

    def run(self, function: Callable, prompts: xr.Dataset, *, model, name: str, title: str):
        """Apply a function to batches of prompts and concatenate what it returns."""
        return batches.run(
            function,
            prompts,
            size=self.size,
            parts=self.parts,
            quiet=self.quiet,
            model=model,
            name=name,
            title=title,
        )


def raw_scores(
    model,
    names: str | HeadType | Sequence[str | HeadType],
    *,
    n: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    quiet: bool = True,
    parts: Path | None = None,
    **options,
) -> Scores:
    """Return the statistics (batch, layer, head) of some head types, by name.

    One forward per batch serves all types of a stimulus. Arguments and errors as for `detect`.
    """
    chosen = head_types(names)
    stimuli = prepare(model, chosen, n=n, seed=seed, **options)
    scores = measure_all(model, stimuli, batch_size=batch_size, quiet=quiet, parts=parts)
    return {one.name: scores[one.name] for one in chosen if one.name in scores}


def measure_all(
    model, stimuli: Iterable[Stimulus], *, batch_size: int, quiet: bool, parts: Path | None
) -> Scores:
    """Return what `measure_each` gives, by name."""
    each = measure_each(model, stimuli, batch_size=batch_size, quiet=quiet, parts=parts)
    return dict(each)


def measure_each(
    model, stimuli: Iterable[Stimulus], *, batch_size: int, quiet: bool, parts: Path | None
) -> Iterator[tuple[str, xr.Dataset]]:
    """Give every type that the prompts serve and its statistics (batch, layer, head), once known.

    attrs hold what is known about them: headline, references, stimulus, its options and hash.
    """
    batching = Batching(batch_size, parts, quiet)
    for stimulus in stimuli:
        types = {one.name: one for one in stimulus.head_types}
        for way in (_of_reading, _of_writing, _of_learning):
            for name, own in way(model, stimulus, batching).items():
                about = {**_attributes(types[name], stimulus), **ability(own, stimulus.prompts)}
                yield name, own.assign_attrs(about)


def _attributes(one: HeadType, stimulus: Stimulus) -> dict[str, str]:
    options = {f"stimulus_{option}": str(value) for option, value in stimulus.options.items()}
    return {
        "headline": one.headline,
        "references": one.source,
        "title": f"{one.name} heads",
        "stimulus": stimulus.key,
        "prompts_sha256": prompts_hash(stimulus.prompts),
        **one.roles,
        **options,
    }


def _of_reading(model, stimulus: Stimulus, batching: Batching) -> Scores:
    """Measure all types that are spans in the prompts, in one forward per batch."""
    spans = {one: one.span for one in stimulus.head_types if one.span is not None}
    if not spans:
        return {}
    each = [kinds_of(stimulus.prompts, span, one.beside) for one, span in spans.items()]
    kinds = list(dict.fromkeys(kind for own in each for kind in own))
    scores = batching.run(
        partial(measure_and_gate, model, kinds=kinds),
        stimulus.prompts,
        model=model,
        name=f"{stimulus.key}-{zlib.crc32(repr(kinds).encode()):08x}",
        title=stimulus.key,
    )
    return {
        one.name: assemble(scores, span, one.beside, one.source, one.headline).assign_attrs(
            kind=one.name
        )
        for one, span in spans.items()
    }


def _of_writing(model, stimulus: Stimulus, batching: Batching) -> Scores:
    """Measure all types about what the model writes, on the same answers."""
    writing = [one for one in stimulus.head_types if one.of_answers is not None]
    if not writing:
        return {}
    names = [one.name for one in writing]
    scores = _by_haystack(
        partial(_answer_and_score, model, writing),
        model,
        stimulus.prompts,
        batching,
        name="-".join([stimulus.key, *names]),
        title=", ".join(names),
    )
    return {name: _scores_of_type(scores, name) for name in names}


def _answer_and_score(model, writing: list[HeadType], part: xr.Dataset) -> xr.Dataset:
    """Return the statistics of all types about the same answers, as `<type>.<statistic>`."""
    answers = answer_and_measure(model, part)
    named = [_prefixed(one.of_answers(answers), one.name) for one in writing if one.of_answers]
    return xr.merge(named, join="exact", compat="identical", combine_attrs="drop_conflicts")


def _prefixed(scores: xr.Dataset, name: str) -> xr.Dataset:
    return scores.rename({variable: f"{name}.{variable}" for variable in scores.data_vars})


def _scores_of_type(scores: xr.Dataset, name: str) -> xr.Dataset:
    """Return what `_answer_and_score` says of one type."""
    variables = [str(variable) for variable in scores if str(variable).startswith(f"{name}.")]
    plain = {variable: variable.partition(".")[2] for variable in variables}
    return scores[variables].rename(plain).assign_attrs(kind=name)


def _by_haystack(
    function: Callable, model, prompts: xr.Dataset, batching: Batching, *, name: str, title: str
) -> xr.Dataset:
    """Answer prompts in one haystack together where that spares reading what they share.

    Others are answered in batches. What was computed for a single batch (`token_layers`) is not
    said of all.
    """
    scores = []
    for part in _haystacks(model, prompts):
        size = batching.size if why_plain(model, part) else part.sizes["batch"]
        own = dataclasses.replace(batching, size=size)
        scores.append(own.run(function, part, model=model, name=name, title=title))
    whole = xr.concat(
        scores,
        "batch",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        combine_attrs="drop_conflicts",
    )
    spent = [name for name in whole.attrs if name.startswith("token_layers")]
    whole.attrs = {name: value for name, value in whole.attrs.items() if name not in spent}
    return whole


def _haystacks(model, prompts: xr.Dataset) -> list[xr.Dataset]:
    """Return the prompts by the text they share; on a server, which takes the plain way, all."""
    apart = xr.zeros_like(prompts["batch"])
    numbers = apart if remote_of(model) else prompts.get("haystack_number", apart)
    different = dict.fromkeys(numbers.values.tolist())
    return [prompts.isel(batch=numbers.values == number) for number in different]


def _of_learning(model, stimulus: Stimulus, batching: Batching) -> Scores:
    """Measure each type that needs all prompts at once."""
    options = {"batch_size": batching.size, "parts": batching.parts, "quiet": batching.quiet}
    learning = [one for one in stimulus.head_types if one.learn is not None]
    return {
        one.name: one.learn(model, stimulus.prompts, **options) for one in learning if one.learn
    }
