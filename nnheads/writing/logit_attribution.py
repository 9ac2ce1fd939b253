"""Which parts of a model write the answer? The logit difference as a sum over heads, feed-forward
parts and biases.

Direct logit attribution follows what a part adds to the residual stream straight to the logits,
with the final norm's scale held at what it was in the run; what later layers make of it is counted
as theirs. The parts add up to the logit difference, which is checked in every case.
Sources: Wang et al. 2022, arXiv 2211.00593; Elhage et al. 2021, "A mathematical framework for
    transformer circuits".
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from nnsight import save

from nnheads.errors import BadInput, RunError
from nnheads.models.families import family
from nnheads.models.geometry import geometry, model_spec
from nnheads.models.inputs import inputs
from nnheads.models.labels import check_finite, label
from nnheads.spans.layout import span_dataset
from nnheads.spans.measure import measure
from nnheads.stats import ends, names_of_ends, resamples
from nnheads.trace.readout import answer_columns
from nnheads.trace.session import remote_of
from nnheads.trace.writes import read_attribution

SOURCE = "Elhage et al. 2021, A mathematical framework for transformer circuits"
COUPLING_SOURCE = "Wang et al. 2022, arXiv 2211.00593"
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
SPREAD = 1e-3  # of attention over cases; below it a slope would blow up noise
COARSE = 3e-2  # of 16-bit activations, whose sums are rounded at every layer


def writing_form(model) -> dict:
    """`model_spec`, and the norm between attention and the residual stream (`post_norm`, None for
    most families).

    Raises BadInput for a model that norms the stream itself: nothing that is written there stays as
        it is.
    """
    config = model.config
    if not getattr(config, "do_layer_norm_before", True) or getattr(
        config, "apply_residual_connection_post_layernorm", False
    ):
        raise BadInput(
            f"this {config.model_type} model norms its residual stream after every block, so its"
            " logits are no sum of what heads write; patch or ablate heads instead"
        )
    return {**model_spec(model), "post_norm": family(model).post_norm}


def logit_scale(model) -> float:
    """What the family multiplies its logits with (Cohere)."""
    return float(getattr(model.config, "logit_scale", None) or 1.0)


def direct_logit_attribution(model, prompts: xr.Dataset, *, token: str = "token") -> xr.Dataset:
    """Split each pair's logit difference at its end into what the parts of the model write.

    Args:
        prompts: pairs as `prompts.pairs.tokenize` lays them out: token, mask (batch, position),
            answer, wrong (batch).
        token: which text is run, "token" or "corrupted".

    Returns:
        `attribution` (batch, layer, head), `component_attribution` (batch, component) and
        `logit_difference` (batch),
        all in logits. Components: "embedding", "attention bias L0" ..., "feed-forward L0" ...,
            "final norm bias",
        "unembedding bias". A case's attributions add up to its logit difference, which is that
        before the final soft cap in families that have one (attrs `soft_cap`).

    Raises:
        BadInput: prompts without answer and wrong; a model that norms its residual stream after
            every block.
        RunError: activations that are not finite, or parts that do not add up.
    """
    if not {"answer", "wrong"} <= set(prompts.data_vars):
        raise BadInput("attribution needs pairs: prompts with answer and wrong (batch)")
    shape, scale, sizes = writing_form(model), logit_scale(model), geometry(model)
    answers = np.stack([prompts["answer"].values, prompts["wrong"].values], 1).astype(int)
    fed = inputs(model, prompts, token)
    asked = {
        "answers": torch.from_numpy(answers),
        **({} if remote_of(model) else answer_columns(model, torch.from_numpy(answers))),
    }
    with (
        torch.no_grad(),
        model.trace(**fed, use_cache=False, logits_to_keep=1, remote=remote_of(model)),
    ):
        found = read_attribution(model, asked, shape)
        heads, parts, difference = (
            save(found[0].clone()),
            save(found[1].clone()),
            save(found[2].clone()),
        )
    heads, parts, difference = (scale * one.cpu() for one in (heads, parts, difference))
    check_finite(difference, "the model's logits")
    check_sum(heads, parts, difference, next(model._module.parameters()).dtype)
    batch = {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}
    names = ["embedding", *(f"attention bias L{layer}" for layer in range(sizes.layers))]
    names += [
        *(f"feed-forward L{layer}" for layer in range(sizes.layers)),
        "final norm bias",
        "unembedding bias",
    ]
    data = {
        "attribution": label(
            heads,
            ("batch", "layer", "head"),
            long_name="logit difference written by the head",
            units="logit",
            source=SOURCE,
        ),
        "component_attribution": label(
            parts,
            ("batch", "component"),
            long_name="logit difference written by the part",
            units="logit",
            source=SOURCE,
        ),
        "logit_difference": label(
            difference,
            ("batch",),
            long_name="logit(answer) - logit(wrong), before any soft cap",
            units="logit",
        ),
    }
    index = {"layer": range(sizes.layers), "head": range(sizes.heads), "component": names}
    cap = getattr(model.config, "final_logit_softcapping", None)
    about = {
        "soft_cap": float(cap or 0.0),
        "final_norm": "scale held at that of the run",
        "run": token,
    }
    return (
        xr.Dataset(data)
        .assign_coords({**batch, **{name: list(each) for name, each in index.items()}})
        .assign_attrs(about)
    )


def check_sum(
    heads: torch.Tensor, parts: torch.Tensor, difference: torch.Tensor, dtype: torch.dtype
) -> None:
    """Refuse an attribution whose parts do not add up to the logit difference, relative to the
    parts' sizes.
    """
    total = heads.double().sum((1, 2)) + parts.double().sum(1)
    size = heads.double().abs().sum((1, 2)) + parts.double().abs().sum(1)
    off = (total - difference.double()).abs() / size.clamp(min=1e-30)
    if bool((off > TOLERANCE.get(dtype, COARSE)).any()):
        case = int(off.argmax())
        raise RunError(
            f"the parts of case {case} add up to {float(total[case]):.4f}, the logit difference is "
            f"{float(difference[case]):.4f}; attribution does not hold for this model"
        )


def write_coupling(model, prompts: xr.Dataset, *, role: str = "IO") -> xr.Dataset:
    """Does a head write the answer where it attends to it? Per case: its attention from the end to
    a role, and what it writes along W_U[answer] - W_U[wrong].

    Args:
        prompts: pairs with the positions of a role (`role_<name>`), such as `nnheads.ioi` makes.
        role: the tokens attended to, by default the indirect object.

    Returns:
        `attention` and `write` (batch, layer, head).

    Raises:
        BadInput: as `direct_logit_attribution`, or a role that the prompts do not have.
    """
    known = [
        str(name).removeprefix("role_") for name in prompts.coords if str(name).startswith("role_")
    ]
    if role not in known:
        raise BadInput(
            f"role {role!r} is not known in these prompts; use one of"
            f" {', '.join(known) or 'none: pairs'}"
        )
    written = direct_logit_attribution(model, prompts)["attribution"]
    key = prompts[f"role_{role}"].values[:, None]
    end = np.full_like(key, prompts.sizes["position"] - 1)
    spans = span_dataset(
        prompts["token"].values, prompts["mask"].values, {role: (end, key, key + 1)}
    )
    mass = measure(model, spans, hit=False)["mass"].isel(kind=0, drop=True)
    attention = mass.drop_vars("batch").assign_attrs(
        long_name=f"attention from END to {role}", source=COUPLING_SOURCE
    )
    return xr.Dataset({"attention": attention, "write": written}).assign_attrs(role=role)


def coupling(cases: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """How what a head writes goes with its attention over cases, from `attention` and `write` of
    `write_coupling`.

    Returns:
        (layer, head): `slope` (logits per unit of attention, least squares) and `correlation`
        (Pearson), each with its percentile bootstrap interval over cases; NaN for heads whose
        attention varies by less than SPREAD.
    """
    dims = ("layer", "head")
    x, y = (
        cases[name].transpose("batch", *dims).values.astype(float)
        for name in ("attention", "write")
    )
    count, shape = len(x), x.shape[1:]
    x, y = (one.reshape(count, -1) - one.reshape(count, -1).mean(0) for one in (x, y))
    x[:, x.std(0) < SPREAD] = np.nan
    drawn = resamples(count, seed) / count
    found = _line(x, y, np.full((1, count), 1 / count))
    resampled = _line(x, y, drawn)
    data, long = (
        {},
        {
            "slope": "logits written per unit of attention",
            "correlation": "correlation of write and attention",
        },
    )
    for place, (name, meaning) in enumerate(long.items()):
        about = {"units": "logit" if name == "slope" else "1", "source": COUPLING_SOURCE}
        bounds = np.stack(ends(resampled[place], skipna=True))
        bounds = bounds if count > 2 else np.full_like(bounds, np.nan)
        each = {name: found[place][0], f"{name}_low": bounds[0], f"{name}_high": bounds[1]}
        for which, values in each.items():
            said = names_of_ends(meaning).get(which.rpartition("_")[2], meaning)
            data[which] = (
                dims,
                values.reshape(shape).astype("float32"),
                {"long_name": said, **about},
            )
    return xr.Dataset(data).assign_coords(
        {name: cases[name] for name in dims if name in cases.coords}
    )


def _line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and correlation [draw, head] of y on x [case, head] under weights [draw, case] that add
    up to 1.
    """
    across = weights @ (x * y) - (weights @ x) * (weights @ y)
    own, other = (weights @ (one * one) - (weights @ one) ** 2 for one in (x, y))
    own, other = (np.where(one > 1e-20, one, np.nan) for one in (own, other))
    return across / own, across / np.sqrt(own * other)
