"""Activation patching as datasets: prompt pairs in, effects per case, layer and head or position out.

Denoising (default) puts the clean run's value into the corrupted run and asks what is *sufficient* to bring
the answer back. Noising puts the corrupted value into the clean run and asks what is *necessary*. They are
different questions and their numbers need not agree.
Sources: Wang et al. 2022, arXiv 2211.00593; Heimersheim & Nanda 2024, arXiv 2404.15255.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from nnheads.answering import check_finite
from nnheads.errors import BadInput
from nnheads.label import inputs, label
from nnheads.model import architecture, geometry
from nnheads.patching.sites import SITES
from nnheads.patching.sweep import sweep
from nnheads.stats import normalised_effect

SOURCE = "Wang et al. 2022, arXiv 2211.00593"
TOKENS_PER_FORWARD = 16384  # rows x positions in one forward: enough to keep a CPU or GPU busy on short prompts


def patch(
    model,
    prompts: xr.Dataset,
    *,
    site: str = "z",
    by_position: bool = False,
    layers: list[int] | None = None,
    noising: bool = False,
    gap: float = 0.1,
    tokens_per_forward: int = TOKENS_PER_FORWARD,
    remote: bool | str = False,
) -> xr.Dataset:
    """Swap one site at a time between the clean and the corrupted run of every pair.

    Args:
        prompts: pairs as `prompts.pairs.tokenize` lays them out.
        site: "z" (head outputs), "resid_pre", "attn_out" or "mlp_out".
        by_position: swap at one position at a time instead of all at once.
        layers: which layers; default all.
        noising: corrupted into clean, instead of clean into corrupted.
        gap: pairs whose logit differences differ by less are left out of `effect` (NaN).

    Returns:
        `logit_difference` and `effect` (batch, layer[, head][, position]), float32, and
        `clean_logit_difference`, `corrupted_logit_difference` (batch). `effect` is 0 where the swap changed
        nothing and 1 where it carried the whole difference over; it is not bounded.

    Raises:
        BadInput: unknown site or layer, or no prompts. RunError: logits that are not finite.
    """
    if site not in SITES:
        raise BadInput(f"site {site!r} is not known; use one of {', '.join(SITES)}")
    sizes = geometry(model)
    chosen = list(range(sizes.layers)) if layers is None else list(layers)
    for layer in chosen:
        if not 0 <= layer < sizes.layers:
            raise BadInput(f"layer {layer} does not exist; this model has layers 0 to {sizes.layers - 1}")
    units = sizes.heads if site == "z" else 1
    cells = one_at_a_time(prompts.sizes["position"], units, by_position)
    logits, base_logits, donor_logits = _sweep(model, prompts, cells, site, chosen, noising, tokens_per_forward, remote)
    for values in (base_logits, donor_logits, logits):
        check_finite(values, "the model's logits")
    swapped = (
        (logits[..., 0] - logits[..., 1]).reshape(len(chosen), units, -1, prompts.sizes["batch"]).permute(3, 0, 1, 2)
    )
    differences = [values[:, 0] - values[:, 1] for values in (base_logits, donor_logits)]
    clean, corrupted = differences if noising else reversed(differences)
    scores = _dataset(prompts, swapped, clean, corrupted, chosen, units, by_position)
    start, end = ("clean", "corrupted") if noising else ("corrupted", "clean")
    effect = normalised_effect(
        scores["logit_difference"], scores[f"{start}_logit_difference"], scores[f"{end}_logit_difference"], gap
    )
    scores["effect"] = effect.assign_attrs(source=SOURCE)
    scores.attrs.update(site=site, site_meaning=SITES[site], direction="noising" if noising else "denoising")
    return scores


def _sweep(model, prompts: xr.Dataset, cells, site: str, layers: list[int], noising: bool, tokens: int, remote):
    """The sweep of a pair dataset: logits of answer and wrong answer after each swap, and of both runs."""
    base, donor = ("token", "corrupted") if noising else ("corrupted", "token")
    return sweep(
        model,
        inputs(model, prompts, base),
        inputs(model, prompts, donor),
        torch.from_numpy(np.stack([prompts["answer"].values, prompts["wrong"].values], 1)).long(),
        cells,
        layers,
        site,
        geometry(model).heads,
        architecture(model).tuple_block,
        rows=max(1, tokens // prompts.sizes["position"]),
        shared=shared_positions(prompts),
        remote=remote,
    )


def shared_positions(prompts: xr.Dataset) -> int:
    """How many first positions are the same in the clean and the corrupted prompt, in every pair. The last
    position is never counted: something has to run."""
    differs = (prompts["token"].values != prompts["corrupted"].values).any(0)
    return int(min(np.argmax(differs) if differs.any() else len(differs), len(differs) - 1))


def one_at_a_time(width: int, units: int, by_position: bool) -> torch.Tensor:
    """Cells [unit (x position), width, units], each of one unit at all positions or at one."""
    unit = torch.eye(units, dtype=torch.bool)
    if not by_position:
        return unit.unsqueeze(1).repeat(1, width, 1)
    place = torch.eye(width, dtype=torch.bool)
    cells = unit[:, None, None, :] & place[None, :, :, None]
    return cells.reshape(units * width, width, units)


def _dataset(prompts, swapped, clean, corrupted, layers, units, by_position) -> xr.Dataset:
    """Name the dimensions and drop those of size one that mean nothing for this site."""
    dims = ["batch", "layer", "head", "position"]
    values = label(
        swapped, tuple(dims), long_name="logit(answer) - logit(wrong) after the swap", units="logit", source=SOURCE
    )
    if not by_position:
        values = values.isel(position=0)
    else:
        values = values.where(prompts["mask"].astype(bool))  # padding is no position of the prompt
    if units == 1:
        values = values.isel(head=0)
    batch = {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}
    index = {"layer": layers, "head": range(units), "position": range(prompts.sizes["position"])}
    coordinates = {**batch, **{name: list(index[name]) for name in values.dims if name in index}}
    data = {
        "logit_difference": values.astype("float32"),
        "clean_logit_difference": label(clean, ("batch",), long_name="logit difference, clean", units="logit"),
        "corrupted_logit_difference": label(
            corrupted, ("batch",), long_name="logit difference, corrupted", units="logit"
        ),
    }
    return xr.Dataset(data).assign_coords(coordinates)
