"""What is measured together: prompts with spans, and the head types that are asked about on them."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import xarray as xr

from nnheads.generation.greedy import tokens_while_answering
from nnheads.generation.prefixes import answer_and_measure, why_plain
from nnheads.models.inputs import check_length
from nnheads.runs import batches
from nnheads.runs.provenance import prompts_hash
from nnheads.spans.measure import assemble, gate, kinds_of, measure
from nnheads.trace.session import remote_of


@dataclasses.dataclass(frozen=True)
class HeadType:
    """A kind of span with what is reported about it. `find` measures types whose spans are only
    known once the model has written, from its `answers`; `learn` measures types that need all
    prompts at once; `contrast` names the coordinate between whose values such a type is compared,
    `counts` the one that is 1 for the prompts that count."""

    name: str
    headline: str
    source: str
    beside: tuple[str, ...] = ()
    find: Callable[..., xr.Dataset] | None = None
    learn: Callable[..., xr.Dataset] | None = None
    contrast: str | None = None
    counts: str | None = None


@dataclasses.dataclass(frozen=True)
class Stimulus:
    """Prompts that were drawn with some options, and the head types that they serve."""

    key: str
    prompts: xr.Dataset
    kinds: tuple[HeadType, ...]
    options: dict

    def only(self, names: Iterable[str]) -> Stimulus:
        wanted = set(names)
        return dataclasses.replace(
            self, kinds=tuple(kind for kind in self.kinds if kind.name in wanted)
        )


def check_fits(stimulus: Stimulus, config) -> None:
    """Refuse prompts, with what a model will write after them, that are longer than it reads."""
    longest = int(stimulus.prompts["mask"].sum("position").max())
    if any(kind.find for kind in stimulus.kinds):
        longest = max(longest, tokens_while_answering(stimulus.prompts))
    check_length(longest, config)


def measure_all(
    model, stimuli: Iterable[Stimulus], *, batch_size: int, quiet: bool, parts: Path | None
) -> dict[str, xr.Dataset]:
    """type -> statistics (batch, layer, head), with what is known about them in attrs."""
    found = {}
    for stimulus in stimuli:
        if not stimulus.kinds:
            continue
        scores = _measure(model, stimulus, {"size": batch_size, "parts": parts, "quiet": quiet})
        options = {f"stimulus_{option}": str(value) for option, value in stimulus.options.items()}
        for kind in stimulus.kinds:
            named = {"contrast": kind.contrast, "counts": kind.counts}
            named = {role: coordinate for role, coordinate in named.items() if coordinate}
            found[kind.name] = scores[kind.name].assign_attrs(
                headline=kind.headline,
                references=kind.source,
                title=f"{kind.name} heads",
                stimulus=stimulus.key,
                prompts_sha256=prompts_hash(stimulus.prompts),
                **named,
                **options,
            )
    return found


def _measure(model, stimulus: Stimulus, how: dict) -> dict[str, xr.Dataset]:
    """One forward per batch for all types that only read; one run for all that write; one for each
    that learns.
    """
    prompts, found = stimulus.prompts, {}
    learning = [kind for kind in stimulus.kinds if kind.learn is not None]
    reading = [kind for kind in stimulus.kinds if kind.find is None and kind.learn is None]
    if reading:
        kinds = list(
            dict.fromkeys(
                name for kind in reading for name in kinds_of(prompts, kind.name, kind.beside)
            )
        )
        scores = batches.run(
            partial(_measure_and_gate, model, kinds),
            prompts,
            name=f"{stimulus.key}-{zlib.crc32(repr(kinds).encode()):08x}",
            title=stimulus.key,
            model=model,
            **how,
        )
        found = {
            kind.name: assemble(scores, kind.name, kind.beside, kind.source) for kind in reading
        }
    writing = [kind for kind in stimulus.kinds if kind.find is not None]
    if writing:
        names = [kind.name for kind in writing]
        scores = _by_haystack(
            partial(_write_and_find, model, writing),
            model,
            prompts,
            name="-".join([stimulus.key, *names]),
            title=", ".join(names),
            **how,
        )
        found |= {name: _own(scores, name) for name in names}
    again = {"batch_size": how["size"], "parts": how["parts"], "quiet": how["quiet"]}
    return found | {
        kind.name: kind.learn(model, prompts, **again) for kind in learning if kind.learn
    }


def _write_and_find(model, kinds: list[HeadType], part: xr.Dataset) -> xr.Dataset:
    """The statistics of all types about the same answers, as `<type>.<statistic>`."""
    answers = answer_and_measure(model, part)
    each = {kind.name: kind.find(model, part, answers=answers) for kind in kinds if kind.find}
    named = [
        own.rename({variable: f"{name}.{variable}" for variable in own.data_vars})
        for name, own in each.items()
    ]
    return xr.merge(named, join="exact", compat="identical", combine_attrs="drop_conflicts")


def _own(scores: xr.Dataset, name: str) -> xr.Dataset:
    """What `_write_and_find` says of one type."""
    own = {
        variable: str(variable).partition(".")[2]
        for variable in scores
        if str(variable).startswith(f"{name}.")
    }
    return scores[list(own)].rename(own).assign_attrs(kind=name)


def _by_haystack(find: Callable, model, prompts: xr.Dataset, *, size: int, **how) -> xr.Dataset:
    """Prompts in one haystack are answered together where that spares reading what they share;
    others in batches.

    What was computed for a single batch (`token_layers`) is not said of all."""
    found = []
    apart = xr.zeros_like(prompts["batch"])
    numbers = (
        apart if remote_of(model) else prompts.get("haystack_number", apart)
    ).values  # servers take the plain way
    for number in dict.fromkeys(numbers.tolist()):
        part = prompts.isel(batch=numbers == number)
        together = size if why_plain(model, part) else part.sizes["batch"]
        found.append(batches.run(find, part, size=together, model=model, **how))
    scores = xr.concat(
        found,
        "batch",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        combine_attrs="drop_conflicts",
    )
    scores.attrs = {
        name: value for name, value in scores.attrs.items() if not name.startswith("token_layers")
    }
    return scores


def _measure_and_gate(model, kinds: list[str], part: xr.Dataset) -> xr.Dataset:
    return measure(model, part, kinds=kinds).assign_coords(gate(model, part))
