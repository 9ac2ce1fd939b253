"""Draw the prompts of head types: those that share a stimulus are measured together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import xarray as xr

from nnheads.detectors._catalog import head_types
from nnheads.detectors._head_type import HeadType
from nnheads.errors import BadInput, TooLong, Untypable
from nnheads.generation.needle_answers import tokens_while_answering
from nnheads.models.inputs import check_length
from nnheads.prompts.needle import LENGTHS
from nnheads.prompts.truth import knows_reference
from nnheads.spans.files import read_spans
from nnheads.spans.nulls import NULL


@dataclasses.dataclass(frozen=True)
class Stimulus:
    """Prompts that were drawn with some options, and the head types that they serve."""

    key: str
    prompts: xr.Dataset
    head_types: tuple[HeadType, ...]
    options: dict

    def only(self, names: Iterable[str]) -> Stimulus:
        """Return the same prompts for fewer head types."""
        wanted = set(names)
        fewer = tuple(one for one in self.head_types if one.name in wanted)
        return dataclasses.replace(self, head_types=fewer)


def prepare(
    model, names: str | HeadType | Sequence[str | HeadType], *, n: int | None, seed: int, **options
) -> list[Stimulus]:
    """Draw the prompts of all types, and refuse what the model cannot read before any forward.

    Among several types, those whose prompts are made of `data` are left out where data are needed
    and there are none, those whose words the tokenizer does not have, and those that are longer
    than the model reads (`left_out` says why).

    Raises:
        BadInput: an unknown type, an option that no stimulus knows, prompts that cannot be drawn,
            or prompts that are longer than the model reads.
    """
    chosen = head_types(names)
    check_options(chosen, options)
    chosen = _with_data(chosen, model.tokenizer, options.get("data"))
    lengths = list(options.get("lengths") or LENGTHS)
    usual = lengths == list(LENGTHS)
    if not usual:  # before anything that long is drawn
        check_length(max(lengths), model.config)
    prepared, lacking = [], []
    for prompts in dict.fromkeys(one.prompts for one in chosen):
        sharing = tuple(one for one in chosen if one.prompts is prompts)
        try:
            drawn = _drawn(model, sharing, n, seed, options)
            check_fits(drawn, model.config)
        except (Untypable, TooLong) as error:
            # what somebody asked for is not left out
            if isinstance(error, TooLong) and not (usual and "lengths" in sharing[0].options):
                raise
            lacking.append(error)
        else:
            prepared.append(drawn)
    if not prepared:
        raise lacking[0]
    return prepared


def left_out(model, names: Sequence[str], measured: Iterable[str]) -> dict[str, str]:
    """Return why types were not measured, by name."""
    missing = [one for one in head_types(list(names)) if one.name not in set(measured)]
    return {one.name: _why(model, one) for one in missing}


def _why(model, one: HeadType) -> str:
    if "data" in one.options and not knows_reference(model.tokenizer):
        return "it needs --data for a model other than reference"
    try:
        check_fits(_drawn(model, (one,), 1, 0, {}), model.config)
    except (Untypable, TooLong) as error:
        return str(error)
    return "its prompts are longer than this model reads"


def _with_data(chosen: list[HeadType], tokenizer, data: str | None) -> list[HeadType]:
    """Return the types whose prompts can be drawn; one that stands alone is never left out."""
    if len(chosen) == 1 or data is not None or knows_reference(tokenizer):
        return chosen
    return [one for one in chosen if "data" not in one.options]


def _drawn(model, sharing: tuple[HeadType, ...], n: int | None, seed: int, options: dict):
    first = sharing[0]
    own = {option: value for option, value in options.items() if option in first.options}
    count = () if n is None else (n,)  # each stimulus has a number of its own
    prompts = first.prompts(model.tokenizer, *count, seed=seed, **own)
    return Stimulus(first.stimulus, prompts, sharing, own)


def prepare_spans(
    model, path: str | Path, *, n: int | None = None, seed: int = 0
) -> list[Stimulus]:
    """Read prompts from a file of spans; every kind in it is a head type of its own."""
    prompts = read_spans(path, model.tokenizer, n=n, seed=seed)
    present = dict.fromkeys(map(str, prompts["kind"].values))
    kinds = [kind for kind in present if not kind.endswith(NULL)]
    prepared = Stimulus("spans", prompts, tuple(_of_file(path, kind) for kind in kinds), {})
    check_fits(prepared, model.config)
    return [prepared]


def _of_file(path: str | Path, kind: str) -> HeadType:
    """Return the head type that a kind of span in a file defines."""

    def spans(tokenizer, n: int | None = None, *, seed: int = 0) -> xr.Dataset:
        return read_spans(path, tokenizer, n=n, seed=seed)

    return HeadType(
        name=kind,
        prompts=spans,
        span=kind,
        null="random keys that the same query can see, drawn by `spans.nulls.null_in_rows`.",
        misleads="texts that share a template: a head that looks a fixed distance back passes too.",
        source=Path(path).name,
    )


def known_options(chosen: Iterable[HeadType]) -> set[str]:
    """Return what the prompts of some types can be asked for."""
    return set().union(*(one.options for one in chosen))


def check_options(chosen: Sequence[HeadType], options: Iterable[str]) -> None:
    """Refuse an option that none of the stimuli in question knows."""
    known = known_options(chosen)
    for option in options:
        if option not in known:
            names = ", ".join(one.name for one in chosen)
            listed = ", ".join(sorted(known)) or "none"
            raise BadInput(f"Not an option of {names}: {option!r}. Known: {listed}.")


def check_fits(stimulus: Stimulus, config) -> None:
    """Refuse prompts, with what a model will write after them, that are longer than it reads."""
    longest = int(stimulus.prompts["mask"].sum("position").max())
    if any(one.of_answers for one in stimulus.head_types):
        longest = max(longest, tokens_while_answering(stimulus.prompts))
    check_length(longest, config)
