"""Who does what in the indirect-object circuit: evidence for every head, and the role it earns.

    table = role_table(model, nnheads.ioi(model.tokenizer, 30, corruption="abc"))
    role_lines.lines(table)

Gathered are attention, direct and total effects, copy scores, and effects through the heads that
write; `role_rules` says which evidence makes which role. Prompts that do not say where the names
stand are refused.
Source: Wang et al. 2022, arXiv 2211.00593.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads import stats
from nnheads.models.names import head_name
from nnheads.patching.head_sets import Head
from nnheads.patching.role_effects import looks_and_effects, through_writers
from nnheads.patching.role_rules import (
    ATTENDS,
    COPIES,
    EFFECT,
    EFFECTS,
    LOOKS,
    OTHER,
    avoids,
    helps,
    hurts,
    roles,
    writing,
)
from nnheads.patching.scores import SOURCE
from nnheads.prompts.ioi_spans import with_spans
from nnheads.runs import batches
from nnheads.runs.folder import item_of
from nnheads.spans.nulls import NULL
from nnheads.writing.copy_score import copy_scores

# effect -> look without which it makes no role: only heads that may have it are measured
SCREENED = {"queries": "subject", "alone": "name_mover"}
COPYING = [
    *("copy", "copy_low", "copy_high", "copy_q_value"),
    *("negative", "negative_low", "negative_high", "negative_q_value"),
]


def role_table(
    model,
    prompts: xr.Dataset,
    *,
    mlps: str = "recompute",
    seed: int = 0,
    batch_size: int = 20,
    parts: Path | None = None,
    quiet: bool = True,
) -> xr.Dataset:
    """Return the evidence for every head in the indirect-object circuit, and its role.

    Effects put the output that a head has on the corrupted prompt into the clean run; negative: the
    head helps. The heads that write are the name movers, the heads that suppress the subject, and
    all others that raise the answer directly and surely do not attend to S2.

    Args:
        prompts: indirect-object pairs of which the corrupted ones name no answer: `ioi(...,
            corruption="abc")`.
        mlps: how direct effects and those through queries pass MLPs, a key of `trace.paths.MLPS`.
        seed: of random targets and of resampled cases.
        batch_size, quiet: as for `batches.run`.
        parts: folder in which finished batches are kept.

    Returns:
        (layer, head), shares without a unit: attention by the keys of `role_rules.LOOKS` and
        effects by those of EFFECTS, each with `_low` and `_high`; `<look>_flag`, 1 where attention
        is beyond random targets; `copy` and `negative` with `_q_value`, for heads with a direct
        effect, without which they make no role, and NaN for others; and `role`, 0 for none, else a
        number from one in the order of ROLES (attrs flag_meanings). attrs `writers`.
        `queries` and `alone` are measured for the heads that could have a role by them, those that
        look at S2 and at IO, and NaN for others, for the writers, and without any.

    Raises:
        BadInput: prompts that do not say where the names stand. RunError: logits that are not
            finite.

    Source: Wang et al. 2022, arXiv 2211.00593.

    Example:
        >>> model = nnheads.load()
        >>> prompts = nnheads.ioi(model.tokenizer, 2, corruption="abc")
        >>> table = nnheads.role_table(model, prompts)
        >>> table["role"].dims
        ('layer', 'head')
    """
    spanned = with_spans(prompts, seed=seed)
    in_batches = partial(batches.run, size=batch_size, parts=parts, quiet=quiet, model=model)
    measured = partial(looks_and_effects, model, mlps=mlps)
    first = in_batches(measured, spanned, name=f"roles-{mlps}", title="heads")
    tables = [reduced_looks(first, seed), reduced(first, ("total", "direct"), seed)]
    table = _merged(tables)
    table = _merged([table, copy_scores(model, heads=direct_heads(table))[COPYING]])
    writers = writing(table)
    asked = {name: candidates(table, kind, writers) for name, kind in SCREENED.items()}
    second = _through_writers(model, spanned, first, writers, asked, mlps, in_batches)
    table = _merged([table, reduced(second, ("queries", "alone"), seed)])
    table["role"] = roles(table)
    table.attrs = {
        "headline": "total",
        "writers": " ".join(head_name(*head) for head in writers),
        "mlps": mlps,
        "references": SOURCE,
        "limits": f"attention {ATTENDS}, effect {EFFECT}, copy score {COPIES}",
        "cases": spanned.sizes["batch"],
    }
    return table


def _merged(tables: list[xr.Dataset]) -> xr.Dataset:
    """Merge tables one after the other."""
    merged = tables[0]
    for table in tables[1:]:
        merged = merged.merge(table, combine_attrs="drop_conflicts")
    return merged


def _through_writers(
    model,
    prompts: xr.Dataset,
    first: xr.Dataset,
    writers: list[Head],
    asked: dict[str, list[Head]],
    mlps: str,
    in_batches: Callable[..., xr.Dataset],
) -> xr.Dataset:
    """Return effects through the writers and without them, beside the base; NaN without writers.

    asked: effect -> heads that it is measured for.
    """
    if writers:
        measured = partial(through_writers, model, writers=writers, asked=asked, mlps=mlps)
        name = item_of("writers", mlps, str(writers), str(asked))
        second = in_batches(measured, prompts, name=name, title="heads that write")
        second["alone"] = second["further"] - first["total"]
    else:
        nothing = xr.full_like(first["total"], np.nan)
        second = xr.Dataset({name: nothing.copy() for name in ("queries", "alone")})
    second["base"] = first["base"]
    return second


def direct_heads(table: xr.Dataset) -> list[Head]:
    """Return the heads that change the answer directly, either way."""
    chosen = helps(table, "direct") | hurts(table, "direct")
    return [(int(layer), int(head)) for layer, head in np.argwhere(chosen.values)]


def candidates(table: xr.Dataset, kind: str, writers: list[Head]) -> list[Head]:
    """Return the heads that may attend so, by their interval, and write nothing themselves."""
    chosen = np.argwhere(~avoids(table, kind).values)
    heads = [(int(layer), int(head)) for layer, head in chosen]
    return [head for head in heads if head not in writers]


def reduced_looks(scores: xr.Dataset, seed: int) -> xr.Dataset:
    """Return the mean attention of each kind with its interval, and whether it is beyond its null.

    The null is the other name where it is measured, and random targets elsewhere.
    """
    variables: dict[str, xr.DataArray] = {}
    for kind in LOOKS:
        variables |= _reduced_look(scores["mass"], kind, seed)
    return xr.Dataset(variables)


def _reduced_look(mass: xr.DataArray, kind: str, seed: int) -> dict[str, xr.DataArray]:
    """Reduce one kind of attention: mean, interval and flag (layer, head)."""
    to_names = kind + OTHER in set(map(str, mass["kind"].values))
    pair = {"mass": kind, "null": kind + (OTHER if to_names else NULL)}
    cases = {name: mass.sel(kind=one).drop_vars("kind") for name, one in pair.items()}
    calibrated = stats.calibrate(xr.Dataset(cases), seed=seed)
    variables = {}
    for end, side in (("", ""), ("_low", "lower"), ("_high", "upper")):
        before = f"{side} end of the 95% interval of " if side else ""
        meaning = f"{before}attention from {LOOKS[kind]}"
        values = calibrated[f"mass{end}"].assign_attrs(source=SOURCE, long_name=meaning)
        values.attrs.pop("ancillary_variables", None)
        variables[kind + end] = values
    null = "the other name" if to_names else "random targets"
    meaning = f"attention from {LOOKS[kind]} beyond that to {null}"
    flag = calibrated["flag"].assign_attrs(long_name=meaning, source=SOURCE)
    return {**variables, f"{kind}_flag": flag}


def reduced(scores: xr.Dataset, names: tuple[str, ...], seed: int) -> xr.Dataset:
    """Return changes (batch, layer, head) over the unchanged logit difference, with intervals."""
    merged = xr.Dataset()
    for name in names:
        about = {"long_name": EFFECTS[name], "units": "1", "source": SOURCE}
        change = scores[name].assign_attrs(about)
        ratio = stats.ratio_of_means(change, scores["base"], seed=seed)
        merged = merged.merge(ratio, combine_attrs="drop_conflicts")
    return merged
