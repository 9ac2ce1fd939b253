"""What claims are measured with: the detectors, patching, knockouts and scores of this package, by
name.

detect       {"type": head type, "limit", and options of its prompts such as "length"}: what
`detect` returns patch        {"pairs": [{clean, corrupted, answer, wrong}] or "limit": drawn
sentences, "site", "noising"}: `effect` of
             every head, as a ratio of means; `clean_logit_difference`,
             `corrupted_logit_difference`, `accuracy`
ablate       {"pairs" or "limit", "ablation", "at"}: `logit_difference` without each head and its
`change`;
             `base_logit_difference`
path         {"limit", "receivers": [heads], "via": q, k or v, "at": role}: `relative` change of the
logit difference by
             every head's paths to the receivers (none: the logits) when it says what it says of
                 three other names
estimate     {"pairs" or "limit", "method": "atp" or "atp*"}: `effect` as gradients estimate it
attribution  {"pairs" or "limit"}: `attribution` of every head to the logit difference
copy         {"top"}: `copy` and `negative` of every head, for names
knockout     {"behaviour", "heads", "ablation", "limit", "length"}: `base`, `without`, and `lost`,
the share lost truth        {"data", "template", "limit"}: `mc1`, `mc2`, `mc3` of the model as it is
late_edit    {"data", "template", "limit", "at"}: `moved`, the largest change of an answer's log
probability by an edit
             of all head outputs of a layer, at the last position ("last") or everywhere ("all")
file         {"name"}: a list that another tool published, from the folder of --files: `score` of
every head, `listed`,
             the share of its heads that it lists
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from nnheads.errors import BadInput, NNHeadsError, first_line


class Unavailable(Exception):
    """What a claim needs is not here; it is skipped, and the text says why."""


@dataclass(frozen=True)
class Setting:
    """How all measurements of a run are made. files: a folder of published lists."""

    batch_size: int = 8
    seed: int = 0
    quiet: bool = True
    files: Path | None = None


def measure(model, how: Mapping, setting: Setting) -> xr.Dataset:
    """One run.

    Raises BadInput for a measure or an option that is not known, Unavailable for what is not here.
    """
    name = how["measure"]
    if name not in MEASURES:
        raise BadInput(f"measure {name!r} is not known; use one of {', '.join(MEASURES)}")
    options = {key: value for key, value in how.items() if key != "measure"}
    known = inspect.signature(MEASURES[name]).parameters
    free = any(one.kind is one.VAR_KEYWORD for one in known.values())
    for option in options:
        if option not in known and not free:
            own = [one for one in known if one not in ("model", "setting")]
            raise BadInput(f"measure {name} knows no {option!r}; it knows {', '.join(own)}")
    try:
        return MEASURES[name](model, setting, **options)
    except NNHeadsError:
        raise
    except (
        TypeError,
        ValueError,
        KeyError,
        AttributeError,
        OverflowError,
    ) as error:  # an option of a wrong kind
        raise BadInput(
            f"measure {name} cannot be asked for {options}: {first_line(error)}"
        ) from None


def _detect(model, setting: Setting, type: str, limit: int = 16, **stimulus) -> xr.Dataset:
    from nnheads.detectors._detect import detect

    found = detect(
        model,
        type,
        n=limit,
        seed=setting.seed,
        batch_size=setting.batch_size,
        quiet=setting.quiet,
        **stimulus,
    )
    if isinstance(found, dict):
        raise BadInput(f"a claim is about one head type, not about {type!r}")
    return found


def _pairs(model, setting: Setting, pairs: list[dict] | None, limit: int | None) -> xr.Dataset:
    """Sentences that are written out, or drawn."""
    from nnheads.prompts.ioi import ioi
    from nnheads.prompts.pairs import Pair, tokenize

    if pairs is None:
        return ioi(model.tokenizer, limit or 32, seed=setting.seed)
    names = ("clean", "corrupted", "answer", "wrong")
    if not all(isinstance(one, dict) and set(one) == set(names) for one in pairs):
        raise BadInput(f"pairs are objects with {', '.join(names)}")
    return tokenize(model.tokenizer, [Pair(**one) for one in pairs])


def _in_batches(
    model, setting: Setting, prompts: xr.Dataset, run: Callable[[xr.Dataset], xr.Dataset]
) -> xr.Dataset:
    from nnheads.runs import batches

    return batches.run(
        run,
        prompts,
        size=setting.batch_size,
        parts=None,
        name="claims",
        title="claims",
        quiet=setting.quiet,
        model=model,
    )


def _patch(
    model,
    setting: Setting,
    pairs: list | None = None,
    limit: int | None = None,
    site: str = "z",
    noising: bool = False,
) -> xr.Dataset:
    from nnheads.patching.direction import direction_of
    from nnheads.patching.patch import patch
    from nnheads.stats import ratio_of_means

    prompts = _pairs(model, setting, pairs, limit)
    scores = _in_batches(
        model,
        setting,
        prompts,
        lambda part: patch(model, part, site=site, noising=noising, gap=0.0),
    )
    clean, corrupted = scores["clean_logit_difference"], scores["corrupted_logit_difference"]
    direction = direction_of(noising)
    change = (scores["logit_difference"] - scores[direction.before()]).rename("effect")
    found = ratio_of_means(change, direction.gap(scores), seed=setting.seed)
    for name, values in (("clean", clean), ("corrupted", corrupted)):
        found[f"{name}_logit_difference"] = values.mean("batch")
    found["accuracy"] = (clean > 0).mean("batch")
    return found.rename(kv_head="head") if "kv_head" in found.dims else found


def _ablate(
    model,
    setting: Setting,
    pairs: list | None = None,
    limit: int | None = None,
    ablation: str = "zero",
    at: str | None = None,
) -> xr.Dataset:
    from nnheads.patching.patch import ablate

    prompts = _pairs(model, setting, pairs, limit)
    scores = ablate(model, prompts, ablation, at=at, seed=setting.seed)
    return scores[["logit_difference", "change", "base_logit_difference"]].mean("batch")


def _path(
    model,
    setting: Setting,
    limit: int = 32,
    receivers: list[str] | None = None,
    via: str = "q",
    at: str | None = None,
) -> xr.Dataset:
    from nnheads.models.names import parse_head
    from nnheads.patching.path_patching import path_patch
    from nnheads.prompts.ioi import ioi

    heads = None if receivers is None else [parse_head(one) for one in receivers]
    scores = _in_batches(
        model,
        setting,
        ioi(model.tokenizer, limit, seed=setting.seed, corruption="abc"),
        lambda part: path_patch(model, part, receivers=heads, via=via, at=at),
    )
    relative = scores["change"].mean("batch") / scores["base_logit_difference"].mean("batch")
    return relative.to_dataset(name="relative")


def _estimate(
    model,
    setting: Setting,
    pairs: list | None = None,
    limit: int | None = None,
    method: str = "atp",
) -> xr.Dataset:
    from nnheads.patching.attribution import attribute

    prompts = _pairs(model, setting, pairs, limit)
    scores = _in_batches(
        model, setting, prompts, lambda part: attribute(model, part, method=method)
    ).mean("batch")
    gap = scores["clean_logit_difference"] - scores["corrupted_logit_difference"]
    return (scores["estimate"] / gap).to_dataset(name="effect")


def _attribution(
    model, setting: Setting, pairs: list | None = None, limit: int | None = None
) -> xr.Dataset:
    from nnheads.writing.logit_attribution import direct_logit_attribution

    prompts = _pairs(model, setting, pairs, limit)
    return direct_logit_attribution(model, prompts)[["attribution"]].mean("batch")


def _copy(model, setting: Setting, top: int = 5) -> xr.Dataset:
    from nnheads.writing.copy_score import copy_scores

    return copy_scores(model, top=top)


def _knockout(
    model,
    setting: Setting,
    behaviour: str,
    heads: list[str],
    ablation: str = "mean",
    limit: int = 24,
    length: int | None = None,
) -> xr.Dataset:
    from nnheads.models.names import parse_head
    from nnheads.patching.behaviours import BEHAVIOURS, ask_for, with_others
    from nnheads.patching.knockout import knockout

    prompts, others = ask_for(behaviour, model.tokenizer, limit, seed=setting.seed, length=length)
    if ablation in ("mean", "resample"):
        prompts = prompts.isel(batch=with_others(prompts, others))
    listed, metric = [parse_head(one) for one in heads], BEHAVIOURS[behaviour].metric
    scores = _in_batches(
        model,
        setting,
        prompts,
        lambda part: knockout(
            model,
            part,
            listed,
            ks=[len(listed)],
            draws=0,
            ablation=ablation,
            reference=others,
            metric=metric,
            seed=setting.seed,
        ),
    )
    base, without = float(scores[f"base_{metric}"].mean()), float(scores[metric].mean())
    lost = (base - without) / base if base else float("nan")
    return xr.Dataset({"base": base, "without": without, "lost": lost})


def _statements(model, data: str, template: str | None, limit: int | None) -> xr.Dataset:
    from nnheads.prompts.truth import read_questions, statements, template_for

    try:
        questions, dropped = read_questions(data, limit=limit)
    except BadInput as error:
        raise Unavailable(str(error)) from None
    return statements(
        model.tokenizer, questions, template=template or template_for(data), dropped=dropped
    )


def _truth(
    model,
    setting: Setting,
    data: str = "reference",
    template: str | None = None,
    limit: int | None = None,
) -> xr.Dataset:
    from nnheads.interventions.schema import Intervention
    from nnheads.truth.multiple_choice import score

    prompts = _statements(model, data, template, limit)
    return score(
        model, Intervention(), prompts, batch_size=4 * setting.batch_size, quiet=setting.quiet
    ).mean("question")


def _late_edit(
    model,
    setting: Setting,
    data: str = "reference",
    template: str | None = None,
    limit: int = 8,
    at: str = "last",
) -> xr.Dataset:
    from nnheads.interventions.schema import ALL, Add, Edit, Intervention, index
    from nnheads.models.geometry import geometry
    from nnheads.truth.multiple_choice import read

    places = {"last": index(-1), "all": ALL}
    if at not in places:
        raise BadInput(f"at {at!r} is not known; use last or all")
    prompts = _statements(model, data, template, limit)
    edit = Intervention(Edit("z", Add(1.0), layer=geometry(model).layers // 2, at=places[at]))
    plain, edited = (read(model, one, prompts)["log_probability"] for one in (Intervention(), edit))
    return xr.Dataset({"moved": abs(edited - plain).max()})


def _file(model, setting: Setting, name: str) -> xr.Dataset:
    """What a published file says, without the model."""
    from nnheads.interchange.read import read_heads

    if setting.files is None or not (setting.files / Path(name).name).exists():
        raise Unavailable(f"{name} is not here; name its folder with --files")
    heads = read_heads(setting.files / Path(name).name)
    known = heads["rank"] if "rank" in heads else heads["score"]
    return heads[["score"]].assign(listed=known.notnull().mean())


NO_MODEL = ("file",)
MEASURES: dict[str, Callable[..., xr.Dataset]] = {
    "detect": _detect,
    "patch": _patch,
    "ablate": _ablate,
    "path": _path,
    "estimate": _estimate,
    "attribution": _attribution,
    "copy": _copy,
    "knockout": _knockout,
    "truth": _truth,
    "late_edit": _late_edit,
    "file": _file,
}
