"""Find heads by type: draw the prompts, measure, calibrate.

Types that share prompts share forwards.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import xarray as xr

from nnheads.detectors._stimulus import HeadType, Stimulus, check_fits, measure_all
from nnheads.errors import BadInput
from nnheads.models.inputs import check_length
from nnheads.models.load import load
from nnheads.prompts.ioi import ioi_spans
from nnheads.prompts.iteration import iteration
from nnheads.prompts.needle import needle
from nnheads.prompts.repeated import repeated
from nnheads.prompts.truth import knows_reference
from nnheads.runs.store import save
from nnheads.spans.layout import NULL, read_spans
from nnheads.stats import calibrate, contrast, ranked_heads
from nnheads.truth.chance import chosen, judge
from nnheads.truth.folded_statements import truth

ALIASES = {"duplicate": "duplicate_token", "previous": "previous_token", "sink": "attention_sink"}
LOADING = (
    "revision",
    "dtype",
    "quantization",
    "device_map",
    "remote",
)  # options of `load` that `detect_heads` takes
STIMULI: dict[str, Callable[..., xr.Dataset]] = {
    "repeated": repeated,
    "ioi": ioi_spans,
    "iteration": iteration,
    "needle": needle,
    "truth": truth,
}


def types() -> dict[str, str]:
    """Head type -> what it is, read from the detectors' files without importing them."""
    folder = Path(__file__).parent
    found = {}
    for path in sorted(folder.glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = docstring.partition("\n")[0].partition(": ")[2]
    return found


def canonical(name: str) -> str:
    """The head type that a name or an alias means."""
    plain = name.strip().lower().replace("-", "_")
    plain = ALIASES.get(plain, plain)
    if plain not in types():
        raise BadInput(f"head type {name!r} is not known; use one of {', '.join(types())}, or all")
    return plain


def detector(name: str):
    """The module of a head type."""
    return importlib.import_module(f"nnheads.detectors.{canonical(name)}")


def detect(
    model,
    name: str,
    *,
    n: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    quiet: bool = True,
    parts: Path | None = None,
    **stimulus,
) -> xr.Dataset | dict[str, xr.Dataset]:
    """Scores and calibration of one head type, or of all.

    Args:
        name: a head type, an alias, or "all".
        n: how many prompts (32 unless given), for truthfulness: how many questions (all).
        stimulus: further arguments of the prompt sets that know them, e.g. length=50, or
            data="TruthfulQA.csv".
        parts: folder in which finished batches are kept for a later call.

    Returns:
        (layer, head): means with intervals, null, excess, p and q values and the flag of
        `stats.calibrate`, and `headline` in attrs; for "all" a dict from type to dataset, without
        truthfulness where this model needs `data` for it and has none.
    """
    raw = raw_scores(
        model,
        list(types()) if name == "all" else [canonical(name)],
        n=n,
        seed=seed,
        batch_size=batch_size,
        quiet=quiet,
        parts=parts,
        **stimulus,
    )
    found = {kind: calibrated(scores, seed=seed) for kind, scores in raw.items()}
    return found if name == "all" else found[canonical(name)]


def detect_spans(
    model,
    path: str | Path,
    *,
    n: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    quiet: bool = True,
    parts: Path | None = None,
) -> dict[str, xr.Dataset]:
    """Heads that look where one's own spans say: kind of span -> scores and calibration, as
    `detect` returns them.

    Args:
        path: JSON lines with texts and spans, see `prompts.spans.read_spans`.
        n: only the first n lines.
    """
    stimuli = prepare_spans(model, path, n=n, seed=seed)
    raw = measure_all(model, stimuli, batch_size=batch_size, quiet=quiet, parts=parts)
    return {kind: calibrated(scores, seed=seed) for kind, scores in raw.items()}


def calibrated(scores: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """Scores (batch, layer, head) of a type reduced to (layer, head): against random targets, or,
    for types that contrast two sorts of prompts (`contrast` in attrs), between these.

    Where `counts` in attrs names a coordinate, only prompts for which it is 1 count, in every
    number; `cases_counted` says how many of `cases` these are. With none of them all values are NaN
    and nothing is flagged.
    """
    if "counts" in scores.attrs:
        own = scores[scores.attrs["counts"]].values == 1
        scores = scores.isel(batch=own).assign_attrs(cases=own.size, cases_counted=int(own.sum()))
    if "decision" in scores:
        return chosen(judge(scores, seed=seed), scores.attrs["num_heads"]).assign_attrs(
            scores.attrs
        )
    by = scores.attrs.get("contrast")
    if by is None:
        return calibrate(scores, seed=seed)
    heads = contrast(scores[scores.attrs["headline"]], scores[by])
    plain = calibrate(scores, seed=seed)
    kept = plain[[variable for variable in plain.data_vars if variable not in heads]]
    heads = heads.merge(kept, combine_attrs="drop_conflicts")
    return heads.assign_attrs({**scores.attrs, "headline": "difference"})


def detect_heads(
    model_name: str,
    head_type: str = "all",
    save_path: str | Path | None = None,
    *,
    flagged: bool = False,
    **options,
) -> list[tuple[int, int]] | dict[str, list[tuple[int, int]]]:
    """Ranked heads of a type: [(layer, head), ...], strongest first; for "all" a dict from type to
    list.

    Args:
        model_name: Hub id, folder, or "reference".
        save_path: folder in which each type's dataset is written as `<type>.nc`.
        flagged: only heads beyond chance.
        options: as for `detect`; `revision`, `dtype`, `quantization`, `device_map` go to `load`.
    """
    where = {key: options.pop(key) for key in LOADING if key in options}
    model = load(model_name, **where)
    names = list(types()) if head_type == "all" else [canonical(head_type)]
    found = detect(model, head_type, **options)
    datasets = found if isinstance(found, dict) else {names[0]: found}
    if save_path is not None:
        for name, heads in datasets.items():
            save(Path(save_path) / f"{name}.nc", heads)
    ranked = {name: ranking(heads, flagged=flagged) for name, heads in datasets.items()}
    return ranked if head_type == "all" else ranked[names[0]]


def ranking(heads: xr.Dataset, *, flagged: bool = False) -> list[tuple[int, int]]:
    """(layer, head) by the headline statistic, strongest first."""
    values = heads[heads.attrs["headline"]]
    values = values.where(heads["flag"] == 1) if flagged else values
    return ranked_heads(values)


def raw_scores(
    model,
    names: list[str],
    *,
    n: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    quiet: bool = True,
    parts: Path | None = None,
    **stimulus,
) -> dict[str, xr.Dataset]:
    """type -> statistics (batch, layer, head).

    One forward per batch serves all types of a stimulus.
    """
    stimuli = prepare(model, names, n=n, seed=seed, **stimulus)
    scores = measure_all(model, stimuli, batch_size=batch_size, quiet=quiet, parts=parts)
    return {name: scores[name] for name in names if name in scores}


def prepare(model, names: list[str], *, n: int | None, seed: int, **stimulus) -> list[Stimulus]:
    """Draw the prompts of all types, and refuse those that the model cannot read, before any
    forward.

    Among several types, truthfulness is left out where it needs data and has none."""
    check_options(names, stimulus)
    if len(names) > 1 and stimulus.get("data") is None and not knows_reference(model.tokenizer):
        names = [name for name in names if detector(name).STIMULUS != "truth"]
    check_length(max(stimulus.get("lengths") or [0]), model.config)
    prepared = []
    for key in dict.fromkeys(detector(name).STIMULUS for name in names):
        own = {option: value for option, value in stimulus.items() if option in options_of(key)}
        asked = () if n is None else (n,)  # each stimulus has a number of its own
        prompts = STIMULI[key](model.tokenizer, *asked, seed=seed, **own)
        kinds = tuple(_head_type(name) for name in names if detector(name).STIMULUS == key)
        prepared.append(Stimulus(key, prompts, kinds, own))
        check_fits(prepared[-1], model.config)
    return prepared


def prepare_spans(
    model, path: str | Path, *, n: int | None = None, seed: int = 0
) -> list[Stimulus]:
    """Prompts from a file of spans; every kind in it is a head type of its own."""
    prompts = read_spans(path, model.tokenizer, n=n, seed=seed)
    names = [
        kind for kind in dict.fromkeys(map(str, prompts["kind"].values)) if not kind.endswith(NULL)
    ]
    kinds = tuple(HeadType(name, "mass", Path(path).name) for name in names)
    prepared = Stimulus("spans", prompts, kinds, {})
    check_fits(prepared, model.config)
    return [prepared]


def _head_type(name: str) -> HeadType:
    module = detector(name)
    find = getattr(module, name) if getattr(module, "GENERATES", False) else None
    learn = getattr(module, name) if getattr(module, "LEARNS", False) else None
    named = {field: getattr(module, field.upper(), None) for field in ("contrast", "counts")}
    return HeadType(
        name, module.HEADLINE, module.SOURCE, getattr(module, "BESIDE", ()), find, learn, **named
    )


def options_of(key: str) -> set[str]:
    """What a stimulus can be asked for besides tokenizer, n and seed."""
    return set(inspect.signature(STIMULI[key]).parameters) - {"tokenizer", "n", "seed"}


def check_options(names: list[str], stimulus: dict) -> None:
    """Refuse an option that none of the stimuli in question knows."""
    known = set().union(*(options_of(detector(name).STIMULUS) for name in names))
    for option in stimulus:
        if option not in known:
            raise BadInput(
                f"{', '.join(names)} know no {option!r}; known:"
                f" {', '.join(sorted(known)) or 'none'}"
            )
