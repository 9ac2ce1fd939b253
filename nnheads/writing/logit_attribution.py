"""Which parts of a model write the answer? Direct logit attribution to heads, MLPs and biases.

    scores = direct_logit_attribution(model, prompts)
    scores["attribution"]  # (batch, layer, head), in logits

It follows what a part adds to the residual stream straight to the logits, with the final norm's
scale held at what it was in the run; what later layers make of it is counted as theirs. The parts
add up to the logit difference, which is checked in every case: where they do not, it fails.
Sources: Wang et al. 2022, arXiv 2211.00593; Elhage et al. 2021, "A mathematical framework for
transformer circuits".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import xarray as xr
from jaxtyping import Float, Int
from nnsight import save

from nnheads.errors import BadInput, RunError
from nnheads.models.families import family
from nnheads.models.geometry import geometry, model_spec
from nnheads.models.inputs import inputs
from nnheads.models.labels import check_finite, label
from nnheads.trace.plain import ModelSpec
from nnheads.trace.readout import answer_columns
from nnheads.trace.session import remote_of
from nnheads.trace.writes import read_attribution

SOURCE = "Elhage et al. 2021, A mathematical framework for transformer circuits"
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
COARSE = 3e-2  # of 16-bit activations, whose sums are rounded at every layer


@dataclass(frozen=True)
class Attribution:
    """A logit difference, and the parts that it is the sum of, in logits."""

    heads: Float[torch.Tensor, "batch layer head"]
    components: Float[torch.Tensor, "batch component"]
    difference: Float[torch.Tensor, " batch"]

    @property
    def total(self) -> Float[torch.Tensor, " batch"]:
        """Return the sum of all parts, in double precision."""
        return self.heads.double().sum((1, 2)) + self.components.double().sum(1)

    @property
    def size(self) -> Float[torch.Tensor, " batch"]:
        """Return the sum of the parts' sizes, in double precision."""
        return self.heads.double().abs().sum((1, 2)) + self.components.double().abs().sum(1)


def writing_spec(model) -> ModelSpec:
    """Return `model_spec` with the norm between attention and the residual stream.

    `post_norm` is None for most families.

    Raises:
        BadInput: a model that norms the stream itself; nothing that is written there stays as it
            is.
    """
    config = model.config
    norms_after = getattr(config, "apply_residual_connection_post_layernorm", False)
    if norms_after or not getattr(config, "do_layer_norm_before", True):
        raise BadInput(
            f"This {config.model_type} model norms its residual stream after every block, so its"
            " logits are no sum of what heads write. Patch or ablate heads instead."
        )
    return {**model_spec(model), "post_norm": family(model).post_norm}


def logit_scale(model) -> float:
    """Return what the family multiplies its logits with (Cohere)."""
    return float(getattr(model.config.get_text_config(), "logit_scale", None) or 1.0)


def direct_logit_attribution(model, prompts: xr.Dataset, *, token: str = "token") -> xr.Dataset:
    """Split each pair's logit difference at its end into what the parts of the model write.

    Args:
        prompts: pairs as `prompts.pairs.tokenize` lays them out: token, mask (batch, position),
            answer, wrong (batch).
        token: which text is run, "token" or "corrupted".

    Returns:
        `attribution` (batch, layer, head), `component_attribution` (batch, component) and
        `logit_difference` (batch), all in logits. Components: "embedding", "attention bias L0" ...,
        "MLP L0" ..., "final norm bias", "unembedding bias". A case's
        attributions add up to its logit difference, which is that before the final soft cap in
        families that have one (attrs `soft_cap`).

    Raises:
        BadInput: prompts without answer and wrong; a model that norms its residual stream after
            every block. RunError: activations that are not finite, or parts that do not add up.

    Source: Wang et al. 2022, arXiv 2211.00593; Elhage et al. 2021.

    Example:
        >>> model = nnheads.load()
        >>> prompts = nnheads.ioi(model.tokenizer, 4)
        >>> scores = nnheads.direct_logit_attribution(model, prompts)
        >>> parts = scores["attribution"].sum(("layer", "head"))
        >>> total = parts + scores["component_attribution"].sum("component")
        >>> bool(abs(total - scores["logit_difference"]).max() < 1e-3)
        True
    """
    _check_pairs(prompts)
    attribution = _read(model, prompts, token)
    check_finite(attribution.difference, "the model's logits")
    check_sum(attribution, next(model._module.parameters()).dtype)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return _labelled(model, prompts, attribution).assign_attrs(
        soft_cap=float(cap or 0.0), final_norm="scale held at that of the run", run=token
    )


def _read(model, prompts: xr.Dataset, token: str) -> Attribution:
    """Run one text of the pairs once."""
    spec, remote = writing_spec(model), remote_of(model)
    answers = _answers(prompts)
    request = {
        "answers": answers,
        **({} if remote else answer_columns(model, answers)),
    }
    tokens = inputs(model, prompts, token)
    with torch.no_grad(), model.trace(**tokens, use_cache=False, logits_to_keep=1, remote=remote):
        parts = read_attribution(model, request, spec)
        heads, components = save(parts[0].clone()), save(parts[1].clone())
        difference = save(parts[2].clone())
    scale = logit_scale(model)
    return Attribution(*(scale * part.cpu() for part in (heads, components, difference)))


def _check_pairs(prompts: xr.Dataset) -> None:
    """Refuse prompts without answer and wrong."""
    if not {"answer", "wrong"} <= set(prompts.data_vars):
        raise BadInput(
            f"Prompts with {', '.join(map(str, prompts.data_vars))} are no pairs. Give prompts with"
            " answer and wrong (batch)."
        )


def _answers(prompts: xr.Dataset) -> Int[torch.Tensor, "batch 2"]:
    """Return the right and the wrong answer of each pair."""
    pair = [torch.from_numpy(prompts[name].values.astype(int)) for name in ("answer", "wrong")]
    return torch.stack(pair, 1)


def check_sum(attribution: Attribution, dtype: torch.dtype) -> None:
    """Refuse an attribution whose parts do not add up, relative to the parts' sizes.

    Raises:
        RunError: a case whose parts differ from the logit difference by more than `dtype` explains.
    """
    difference, total = attribution.difference, attribution.total
    off = (total - difference.double()).abs() / attribution.size.clamp(min=1e-30)
    if bool((off > TOLERANCE.get(dtype, COARSE)).any()):
        case = int(off.argmax())
        raise RunError(
            f"The parts of case {case} add up to {float(total[case]):.4f}, and the logit difference"
            f" is {float(difference[case]):.4f}: direct logit attribution does not hold for this"
            " model. Patch or ablate heads instead."
        )


def _labelled(model, prompts: xr.Dataset, attribution: Attribution) -> xr.Dataset:
    """Label the parts beside the coordinates of the prompts."""
    sizes = geometry(model)
    each = {"units": "logit", "source": SOURCE}
    data = {
        "attribution": label(
            attribution.heads,
            ("batch", "layer", "head"),
            long_name="logit difference written by the head",
            **each,
        ),
        "component_attribution": label(
            attribution.components,
            ("batch", "component"),
            long_name="logit difference written by the part",
            **each,
        ),
        "logit_difference": label(
            attribution.difference,
            ("batch",),
            long_name="logit(answer) - logit(wrong), before any soft cap",
            units="logit",
        ),
    }
    batch = {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}
    index = {"layer": list(range(sizes.layers)), "head": list(range(sizes.heads))}
    names = _components(sizes.layers)
    return xr.Dataset(data).assign_coords({**batch, **index, "component": names})


def _components(layers: int) -> list[str]:
    """Return the names of the parts that are no heads, as files of results have them."""
    return [
        "embedding",
        *(f"attention bias L{layer}" for layer in range(layers)),
        *(f"MLP L{layer}" for layer in range(layers)),
        "final norm bias",
        "unembedding bias",
    ]
