"""Measures of claims about what heads do: patching, ablation, path patching, knockouts."""

from __future__ import annotations

from typing import Any

import xarray as xr

from nnheads.claims.setting import Setting, in_batches, pairs_of

GAPS = ("clean_logit_difference", "corrupted_logit_difference")


def patch_effects(
    model,
    setting: Setting,
    pairs: list | None = None,
    limit: int | None = None,
    site: str = "z",
    noising: bool = False,
) -> xr.Dataset:
    """Return `effect` of every head as a ratio of means, and what the model says of both texts."""
    from nnheads.patching.direction import direction_of
    from nnheads.patching.patch import patch
    from nnheads.stats import ratio_of_means

    prompts = pairs_of(model, setting, pairs, limit)
    scores = in_batches(
        model,
        setting,
        prompts,
        lambda part: patch(model, part, site=site, noising=noising, gap=0.0),
    )
    direction = direction_of(noising)
    change = (scores["logit_difference"] - scores[direction.before()]).rename("effect")
    heads = ratio_of_means(change, direction.gap(scores), seed=setting.seed)
    for name in GAPS:
        heads[name] = scores[name].mean("batch")
    heads["accuracy"] = (scores["clean_logit_difference"] > 0).mean("batch")
    return heads.rename(kv_head="head") if "kv_head" in heads.dims else heads


def ablation_changes(
    model,
    setting: Setting,
    pairs: list | None = None,
    limit: int | None = None,
    ablation: str = "zero",
    at: str | None = None,
) -> xr.Dataset:
    """Return `logit_difference` without each head, its `change`, and `base_logit_difference`."""
    from nnheads.patching.ablate import ablate

    prompts = pairs_of(model, setting, pairs, limit)
    scores = ablate(model, prompts, ablation, at=at, seed=setting.seed)
    return scores[["logit_difference", "change", "base_logit_difference"]].mean("batch")


def path_changes(
    model,
    setting: Setting,
    limit: int = 32,
    receivers: list[str] | None = None,
    via: str = "q",
    at: str | None = None,
) -> xr.Dataset:
    """Return the `relative` change of the logit difference by every head's paths to receivers.

    Every sender says what it says of three other names. Without receivers, paths lead to the
    logits.
    """
    from nnheads.models.names import parse_head
    from nnheads.patching.path_patching import path_patch
    from nnheads.prompts.ioi import ioi

    heads = None if receivers is None else [parse_head(one) for one in receivers]
    scores = in_batches(
        model,
        setting,
        ioi(model.tokenizer, limit, seed=setting.seed, corruption="abc"),
        lambda part: path_patch(model, part, receivers=heads, via=via, at=at),
    )
    relative = scores["change"].mean("batch") / scores["base_logit_difference"].mean("batch")
    return relative.to_dataset(name="relative")


def estimated_effects(
    model,
    setting: Setting,
    pairs: list | None = None,
    limit: int | None = None,
    method: str = "atp",
) -> xr.Dataset:
    """Return the `effect` of every head as gradients estimate it."""
    from nnheads.patching.attribution import attribute

    prompts = pairs_of(model, setting, pairs, limit)
    scores = in_batches(
        model, setting, prompts, lambda part: attribute(model, part, method=method)
    ).mean("batch")
    clean, corrupted = (scores[name] for name in GAPS)
    return (scores["estimate"] / (clean - corrupted)).to_dataset(name="effect")


def knockout_loss(
    model,
    setting: Setting,
    behaviour: str,
    heads: list[str],
    ablation: str = "mean",
    limit: int = 24,
    length: int | None = None,
) -> xr.Dataset:
    """Return the metric as it is (`base`), `without` some heads, and the share that is `lost`."""
    from nnheads.models.names import parse_head
    from nnheads.patching.behaviours import BEHAVIOURS, ask_for, with_others
    from nnheads.patching.knockout import knockout

    prompts, others = ask_for(behaviour, model.tokenizer, limit, seed=setting.seed, length=length)
    if ablation in ("mean", "resample"):
        prompts = prompts.isel(batch=with_others(prompts, others))
    listed, metric = [parse_head(one) for one in heads], BEHAVIOURS[behaviour].metric
    options: dict[str, Any] = {"ablation": ablation, "reference": others, "metric": metric}
    options |= {"ks": [len(listed)], "draws": 0, "seed": setting.seed}
    scores = in_batches(
        model, setting, prompts, lambda part: knockout(model, part, listed, **options)
    )
    base, without = float(scores[f"base_{metric}"].mean()), float(scores[metric].mean())
    lost = (base - without) / base if base else float("nan")
    return xr.Dataset({"base": base, "without": without, "lost": lost})
