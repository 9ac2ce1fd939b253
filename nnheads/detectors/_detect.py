"""Find heads by type: draw the prompts, measure, calibrate.

    heads = nnheads.detect(model, "induction")     # (layer, head): mass, interval, null, flag

A head type is a value (`_head_type.py`), one in each file of this folder. Types that share prompts
share forwards. What cannot be drawn or read is refused with BadInput before any forward.
"""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from nnheads.detectors._catalog import ALL, head_types
from nnheads.detectors._head_type import HeadType
from nnheads.detectors._scores import measure_all, raw_scores
from nnheads.detectors._stimulus import prepare_spans
from nnheads.models.load import load
from nnheads.runs.store import save
from nnheads.stats import calibrate, contrast, ranked_heads
from nnheads.truth.accuracy import chosen, judge

# options of `load` that `detect_heads` takes
LOADING = ("revision", "dtype", "quantization", "device_map", "remote")


def detect(
    model,
    head_type: str | HeadType,
    *,
    n: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    quiet: bool = True,
    parts: Path | None = None,
    **options,
) -> xr.Dataset | dict[str, xr.Dataset]:
    """Return scores and calibration of every head for one head type, or for all.

    Args:
        model: from `nnheads.load`.
        head_type: a name, an alias, "all", or a `HeadType` of one's own.
        n: how many prompts (32 unless given); for truthfulness: how many questions (all).
        seed: of the prompts, and of the bootstrap.
        batch_size: prompts a forward.
        quiet: draw no progress bar.
        parts: folder in which finished batches are kept for a later call.
        options: further arguments of the prompt sets that know them, such as length=50, or
            data="TruthfulQA.csv".

    Returns:
        Dataset (layer, head), float32: for every statistic of the type (its units are in its attrs,
        mostly shares between 0 and 1) the mean over prompts, with `_low` and `_high`, a 95 %
        bootstrap interval, of the headline; `null`, `excess`, `p_value`, `q_value` and `flag` (1
        for heads beyond chance at a false discovery rate of 5 %). The attribute `headline` names
        the statistic that ranks. For "all" a dict from type to dataset, without truthfulness where
        this model needs `data` for it and has none.

    Raises:
        BadInput: an unknown type or option, prompts that cannot be drawn with this tokenizer, or
            that are longer than the model reads.

    Source: of each type, in the attribute `references`; `nnheads heads` lists them.

    Example:
        >>> model = nnheads.load("reference")
        >>> heads = nnheads.detect(model, "induction", n=8)
        >>> heads["mass"].dims, heads.attrs["headline"]
        (('layer', 'head'), 'mass')
        >>> int(heads["flag"].sum()) >= 3
        True
    """
    requested = head_types(head_type)
    raw = raw_scores(
        model,
        requested,
        n=n,
        seed=seed,
        batch_size=batch_size,
        quiet=quiet,
        parts=parts,
        **options,
    )
    heads = {name: calibrated(scores, seed=seed) for name, scores in raw.items()}
    return heads if head_type == ALL else heads[requested[0].name]


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
    """Return scores and calibration of heads that look where one's own spans say.

    Args:
        path: JSON lines with texts and spans, see `spans.files.read_spans`.
        n: only the first n lines. Others as for `detect`.

    Returns:
        Kind of span -> dataset (layer, head) as `detect` returns it; the headline is `mass`, a
        share of attention between 0 and 1.

    Raises:
        BadInput: a file that is missing or no text, a line that does not fit, which is named, or a
            text that is longer than the model reads.

    Source: the name of the file, in the attribute `references`.

    Example:
        >>> import json, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "spans.jsonl"
        >>> span = {"kind": "second_number", "query": "answer", "key": "5"}
        >>> texts = [f"input : {first} 5 copy : answer" for first in (1, 2, 3)]
        >>> lines = [json.dumps({"text": text, "spans": [span]}) for text in texts]
        >>> _ = path.write_text("\\n".join(lines))
        >>> heads = nnheads.detect_spans(nnheads.load("reference"), path)
        >>> list(heads), dict(heads["second_number"].sizes)
        (['second_number'], {'layer': 4, 'head': 8})
    """
    stimuli = prepare_spans(model, path, n=n, seed=seed)
    raw = measure_all(model, stimuli, batch_size=batch_size, quiet=quiet, parts=parts)
    return {kind: calibrated(scores, seed=seed) for kind, scores in raw.items()}


def calibrated(scores: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """Reduce the scores (batch, layer, head) of a type to (layer, head), against its null.

    The null is random targets, or, for types that contrast two sorts of prompts (`contrast` in
    attrs), the other sort. Where `counts` in attrs names a coordinate, only prompts for which it is
    1 count, in every number; `cases_counted` says how many of `cases` these are. With none of them
    all values are NaN and nothing is flagged.
    """
    if "counts" in scores.attrs:
        scores = _counted(scores)
    if "decision" in scores:
        heads = chosen(judge(scores, seed=seed), scores.attrs["num_heads"])
        return heads.assign_attrs(scores.attrs)
    if "contrast" in scores.attrs:
        return _contrasted(scores, seed)
    return calibrate(scores, seed=seed)


def _counted(scores: xr.Dataset) -> xr.Dataset:
    counting = scores[scores.attrs["counts"]].values == 1
    about = {"cases": counting.size, "cases_counted": int(counting.sum())}
    return scores.isel(batch=counting).assign_attrs(about)


def _contrasted(scores: xr.Dataset, seed: int) -> xr.Dataset:
    sorts = scores[scores.attrs["contrast"]]
    heads = contrast(scores[scores.attrs["headline"]], sorts)
    counts = {"cases": sorts.size, "cases_of_one": int((sorts == 1).sum())}
    plain = calibrate(scores, seed=seed)
    further = plain[[name for name in plain.data_vars if name not in (*heads, "strong")]]
    heads = heads.merge(further, combine_attrs="drop_conflicts")
    return heads.assign_attrs({**scores.attrs, **counts, "headline": "difference"})


def detect_heads(
    model_name: str,
    head_type: str = ALL,
    save_path: str | Path | None = None,
    *,
    flagged: bool = False,
    **options,
) -> list[tuple[int, int]] | dict[str, list[tuple[int, int]]]:
    """Return the heads of a type, strongest first, of a model that is loaded by name.

    Args:
        model_name: Hub id, folder, or "reference".
        head_type: as for `detect`.
        save_path: folder in which each type's dataset is written as `<type>.nc`.
        flagged: only heads beyond chance.
        options: as for `detect`; `revision`, `dtype`, `quantization`, `device_map` and `remote` go
            to `load`.

    Returns:
        [(layer, head), ...], counted from 0; for "all" a dict from type to such a list.

    Raises:
        BadInput: as for `detect`, and ModelError, which is one, as for `load`.

    Source: of each type, as for `detect`.

    Example:
        >>> nnheads.detect_heads("reference", "iteration", flagged=True, n=14)
        [(2, 0)]
    """
    loading = {key: options.pop(key) for key in LOADING if key in options}
    requested = head_types(head_type)
    found = detect(load(model_name, **loading), head_type, **options)
    datasets = found if isinstance(found, dict) else {requested[0].name: found}
    if save_path is not None:
        for name, heads in datasets.items():
            save(Path(save_path) / f"{name}.nc", heads)
    ranked = {name: ranking(heads, flagged=flagged) for name, heads in datasets.items()}
    return ranked if head_type == ALL else ranked[requested[0].name]


def ranking(heads: xr.Dataset, *, flagged: bool = False) -> list[tuple[int, int]]:
    """Return (layer, head) by the headline statistic, strongest first."""
    values = heads[heads.attrs["headline"]]
    values = values.where(heads["flag"] == 1) if flagged else values
    return ranked_heads(values)
