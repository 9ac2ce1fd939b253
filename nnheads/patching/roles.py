"""Who does what in the indirect-object circuit: one row of evidence for every head, and the role
that it earns.

Looking is not doing. A role asks for what a head attends to *and* for an effect: on the logits
straight from the head (name movers, writers), through the queries of the heads that write
(S-inhibition), or at all (induction, duplicate and previous token heads). A head with the pattern
alone stays without a role.
Source: Wang et al. 2022, arXiv 2211.00593. The limits below are ours.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from nnheads import stats
from nnheads.models.geometry import geometry
from nnheads.models.names import head_name
from nnheads.patching.patch import SOURCE, patch
from nnheads.patching.path_patching import path_patch
from nnheads.prompts.ioi import with_spans
from nnheads.runs import batches
from nnheads.runs.folder import item_of
from nnheads.spans.layout import NULL
from nnheads.spans.measure import measure
from nnheads.writing.copy_score import copy_scores

ATTENDS = 0.25  # half of what the paper's S-inhibition heads (0.51) and name movers (0.59) show
EFFECT = 0.02  # of the logit difference: at most fifty heads can each carry that much
COPIES = 0.5  # between heads at large (below 0.2 in the paper) and name movers (above 0.95)
RATE = 0.05  # false discovery rate of copying beyond chance
LOOKS = {
    "name_mover": "END to IO",
    "subject": "END to S2",
    "duplicate": "S2 to S1",
    "induction": "S2 to the token after S1",
    "previous": "the token after S1 to S1",
    "before_end": "END to the token before",
}
OTHER = "_other"  # the same look at the other name, which a head that looks at any name has as well
EFFECTS = {
    "total": "share of the logit difference that changes with the head's output",
    "direct": (
        "share of the logit difference that changes with what the head says straight to the logits"
    ),
    "queries": (
        "share of the logit difference that changes with what the head says to queries of heads"
        " that write"
    ),
    "alone": "total once the heads that write are gone, minus total",
}
ROLES = {
    "name_mover": "looks from END at IO, copies what it looks at, and so raises IO directly",
    "negative_name_mover": (
        "looks from END at IO, writes the opposite of it, and so lowers IO directly"
    ),
    "s_inhibition": "looks from END at S2, and acts through the queries of the heads that write",
    "induction": "looks from S2 at what followed S1, and matters",
    "duplicate_token": "looks from S2 at S1, and matters",
    "previous_token": (
        "looks from what follows S1 at S1 and from END at what stands before, and matters"
    ),
    "backup": "looks from END at IO, and acts once the heads that write are gone",
    "writer": "raises IO directly, without the look of a name mover",
}
# what a line says of a head of this role; the last decides the order
EVIDENCE = {
    "name_mover": ("name_mover", "copy", "direct"),
    "negative_name_mover": ("name_mover", "negative", "direct"),
    "s_inhibition": ("subject", "total", "queries"),
    "induction": ("induction", "total"),
    "duplicate_token": ("duplicate", "total"),
    "previous_token": ("previous", "before_end", "total"),
    "backup": ("name_mover", "direct", "alone"),
    "writer": ("total", "direct"),
}
Heads = list[tuple[int, int]]


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
    """Evidence for every head and its role.

    Effects put the output that a head has on the corrupted prompt into the clean run; negative: the
    head helps. The heads that write are the name movers, or, where there is none, those that raise
    the answer directly and do not look at S2.

    Args:
        prompts: indirect-object pairs of which the corrupted ones name no answer: `ioi(...,
            corruption="abc")`.
        mlps: how direct effects and those through queries pass feed-forward parts, a key of
            `patching.paths.MLPS`.
        parts: folder in which finished batches are kept.

    Returns:
        (layer, head): attention by the keys of LOOKS and effects by those of EFFECTS, each with
        `_low` and `_high`; `<look>_flag`, 1 where attention is beyond random targets; `copy` and
        `negative` with `_q_value`; and `role`, 0 for none, else a number from one in the order of
        ROLES (attrs flag_meanings). attrs `writers`. `queries` and
        `alone` are NaN where they mean nothing: for the writers themselves, or without any.

    Raises:
        BadInput: prompts that do not say where the names stand. RunError: logits that are not
            finite.
    """
    spanned = with_spans(prompts, seed=seed)
    in_batches = partial(batches.run, size=batch_size, parts=parts, quiet=quiet, model=model)
    first = in_batches(
        partial(looks_and_effects, model, mlps=mlps), spanned, name=f"roles-{mlps}", title="heads"
    )
    table = reduced_looks(first, seed).merge(
        reduced(first, ("total", "direct"), seed), combine_attrs="drop_conflicts"
    )
    copying = copy_scores(model)
    columns = ["copy", "negative", "copy_low", "copy_high", "negative_low", "negative_high"]
    table = table.merge(
        copying[[*columns, "copy_q_value", "negative_q_value"]], combine_attrs="drop_conflicts"
    )
    writers = writing(table)
    if writers:
        second = in_batches(
            partial(through_writers, model, writers=writers, mlps=mlps),
            spanned,
            name=item_of("writers", mlps, str(writers)),
            title="heads that write",
        )
        second["alone"] = second["further"] - first["total"]
    else:
        second = xr.Dataset(
            {name: xr.full_like(first["total"], np.nan) for name in ("queries", "alone")}
        )
    second["base"] = first["base"]
    table = table.merge(reduced(second, ("queries", "alone"), seed), combine_attrs="drop_conflicts")
    table["role"] = roles(table)
    table.attrs = {
        "writers": " ".join(head_name(*head) for head in writers),
        "mlps": mlps,
        "references": SOURCE,
        "limits": f"attention {ATTENDS}, effect {EFFECT}, copy score {COPIES}",
        "cases": spanned.sizes["batch"],
    }
    return table


def looks_and_effects(model, prompts: xr.Dataset, *, mlps: str) -> xr.Dataset:
    """Per case: attention by kind, and what each head changes in all and directly."""
    seen = measure(model, prompts, hit=False)["mass"].to_dataset()
    swapped = patch(model, prompts, noising=True)
    direct = path_patch(model, prompts, mlps=mlps)
    base = swapped["clean_logit_difference"]
    found = {"base": base, "total": swapped["logit_difference"] - base, "direct": direct["change"]}
    return seen.merge(
        xr.Dataset({name: values.reset_coords(drop=True) for name, values in found.items()})
    )


def through_writers(model, prompts: xr.Dataset, *, writers: Heads, mlps: str) -> xr.Dataset:
    """Per case: what each head changes through the writers' queries at END, and together with all
    that the writers say, beyond these alone. NaN for the writers."""
    sizes, cases = geometry(model), prompts.sizes["batch"]
    empty = np.full((cases, sizes.layers, sizes.heads), np.nan, np.float32)
    queries, further = (
        xr.DataArray(empty.copy(), dims=("batch", "layer", "head")) for _ in range(2)
    )
    if any(layer > 0 for layer, _ in writers):
        found = path_patch(model, prompts, receivers=writers, via="q", at="END", mlps=mlps)
        queries[:] = found["change"].values
    others = [
        (i, j) for i in range(sizes.layers) for j in range(sizes.heads) if (i, j) not in writers
    ]
    groups = [writers, *([*writers, head] for head in others)]
    gone = patch(model, prompts, noising=True, groups=groups)["logit_difference"].values
    for place, (layer, head) in enumerate(others, 1):
        further[:, layer, head] = gone[:, place] - gone[:, 0]
    for layer, head in writers:
        queries[:, layer, head] = np.nan
    return xr.Dataset({"queries": queries, "further": further}, {"batch": prompts["batch"]})


def reduced_looks(scores: xr.Dataset, seed: int) -> xr.Dataset:
    """Mean attention of each kind with its interval, and whether it is beyond that to the other
    name, or else to random targets."""
    found, kinds = {}, set(map(str, scores["kind"].values))
    for kind, meaning in LOOKS.items():
        null = kind + OTHER if kind + OTHER in kinds else kind + NULL
        pair = {"mass": kind, "null": null}
        own = xr.Dataset(
            {name: scores["mass"].sel(kind=of).drop_vars("kind") for name, of in pair.items()}
        )
        reduced = stats.calibrate(own, seed=seed)
        text = {
            "": "",
            "_low": "lower end of the 95% interval of ",
            "_high": "upper end of the 95% interval of ",
        }
        for end, before in text.items():
            values = reduced[f"mass{end}"].assign_attrs(
                source=SOURCE, long_name=f"{before}attention from {meaning}"
            )
            values.attrs.pop("ancillary_variables", None)
            found[kind + end] = values
        beyond = "the other name" if null.endswith(OTHER) else "random targets"
        found[f"{kind}_flag"] = reduced["flag"].assign_attrs(
            long_name=f"attention from {meaning} beyond that to {beyond}", source=SOURCE
        )
    return xr.Dataset(found)


def reduced(scores: xr.Dataset, names: tuple[str, ...], seed: int) -> xr.Dataset:
    """Changes (batch, layer, head) over the unchanged logit difference, as ratios of means with
    intervals.
    """
    merged = xr.Dataset()
    for name in names:
        change = scores[name].assign_attrs(about(name))
        merged = merged.merge(
            stats.ratio_of_means(change, scores["base"], seed=seed), combine_attrs="drop_conflicts"
        )
    return merged


def about(name: str) -> dict:
    return {"long_name": EFFECTS[name], "units": "1", "source": SOURCE}


def helps(table: xr.Dataset, effect: str) -> xr.DataArray:
    """The answer loses by the change, beyond its interval and EFFECT."""
    return (table[effect] <= -EFFECT) & (table[f"{effect}_high"] < 0)


def hurts(table: xr.Dataset, effect: str) -> xr.DataArray:
    return (table[effect] >= EFFECT) & (table[f"{effect}_low"] > 0)


def looks(table: xr.Dataset, kind: str) -> xr.DataArray:
    """Attention beyond ATTENDS and beyond random targets."""
    return (table[kind] >= ATTENDS) & (table[f"{kind}_flag"] == 1)


def copies(table: xr.Dataset, score: str) -> xr.DataArray:
    return (table[score] >= COPIES) & (table[f"{score}_q_value"] < RATE)


def writing(table: xr.Dataset) -> Heads:
    """The heads that write the answer: name movers, or else heads that raise it directly and do not
    look at S2.
    """
    movers = looks(table, "name_mover") & helps(table, "direct") & copies(table, "copy")
    chosen = movers if bool(movers.any()) else helps(table, "direct") & ~looks(table, "subject")
    return [
        (int(layer), int(head))
        for layer, head in np.argwhere(chosen.transpose("layer", "head").values)
    ]


def roles(table: xr.Dataset) -> xr.DataArray:
    """(layer, head): the first role of ROLES whose evidence is there, from one; 0 for none."""
    matters = helps(table, "total") | hurts(table, "total")
    evidence = {
        "name_mover": looks(table, "name_mover") & helps(table, "direct") & copies(table, "copy"),
        "negative_name_mover": (
            looks(table, "name_mover") & hurts(table, "direct") & copies(table, "negative")
        ),
        "s_inhibition": looks(table, "subject") & helps(table, "queries"),
        "induction": looks(table, "induction") & matters,
        "duplicate_token": looks(table, "duplicate") & matters,
        "previous_token": looks(table, "previous") & looks(table, "before_end") & matters,
        "backup": looks(table, "name_mover") & helps(table, "alone"),
        "writer": helps(table, "direct"),
    }
    found = xr.zeros_like(table["total"]).astype("int8")
    for number, name in reversed(list(enumerate(ROLES, 1))):
        found = xr.where(evidence[name], np.int8(number), found)
    return found.assign_attrs(
        long_name="role in the indirect-object circuit",
        units="1",
        source=SOURCE,
        flag_values=np.arange(len(ROLES) + 1, dtype=np.int8),
        flag_meanings=" ".join(["none", *ROLES]),
    )


def lines(table: xr.Dataset) -> list[str]:
    """The table for a terminal: each role's heads with the evidence that it took, and looks without
    one.
    """
    named = (
        "name movers"
        if bool((table["role"] == 1).any())
        else "no head is a name mover; they raise IO directly"
    )
    said = [f"heads that write: {table.attrs['writers'] or 'none'} ({named})"]
    for number, (name, meaning) in enumerate(ROLES.items(), 1):
        own = np.argwhere((table["role"] == number).values)
        if len(own):
            said.append(f"{name.replace('_', ' ')}: {meaning}")
            strength = table[EVIDENCE[name][-1]].values
            for layer, head in sorted(own, key=lambda place: -abs(strength[tuple(place)])):
                row = table.isel(layer=layer, head=head)
                shown = ", ".join(shown_value(row, column) for column in EVIDENCE[name])
                said.append(f"  {head_name(layer, head):<7} {shown}")
    for layer, head in np.argwhere((table["role"] == 0).values):
        row = table.isel(layer=layer, head=head)
        seen = [
            kind
            for kind in ("name_mover", "subject", "duplicate", "induction")
            if bool(looks(row, kind))
        ]
        if seen and not bool(helps(row, "total") | hurts(row, "total")):
            shown = ", ".join(shown_value(row, column) for column in (*seen, "total"))
            said.append(f"the look without a sure effect: {head_name(layer, head)} {shown}")
    return said


def shown_value(row: xr.Dataset, name: str) -> str:
    value, low, high = (float(row[name + end]) for end in ("", "_low", "_high"))
    if name in EFFECTS:
        return f"{name} {value:+.2f} [{low:+.2f}, {high:+.2f}]"
    return f"{LOOKS.get(name, f'{name} score')} {value:.2f}"
