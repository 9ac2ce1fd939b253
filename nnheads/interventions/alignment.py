"""Where does a network hold a variable of a causal model? Interchange it there, and see whether the
answer follows.

A pair is a base and a source input, and the answer that the causal model gives once the variable's
value in the base is that in the source. `evaluate` says how often an intervention makes the network
say so; `training.train` looks for
the directions with which it does. Two controls belong to it: answers that are shuffled, and
    directions at random.
Source: Geiger et al. 2021, arXiv 2106.02997 (interchange interventions); Geiger et al. 2023, arXiv
    2303.02536 (DAS);
Wu et al. 2023, arXiv 2305.08809 (boundless).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from nnheads.errors import BadInput
from nnheads.interventions.apply import run
from nnheads.interventions.counterfactuals import Pairs, taken
from nnheads.interventions.module import KERNEL, Call, as_module
from nnheads.interventions.operations import is_whole
from nnheads.interventions.schema import (
    ALL,
    At,
    Boundless,
    Edit,
    FromSource,
    Intervention,
    LowRank,
    Mask,
    Rotate,
)
from nnheads.models.inputs import inputs
from nnheads.trace.session import remote_of

KINDS = ("das", "lowrank", "boundless", "mask")
SOURCE = (
    "interchange interventions: arXiv 2106.02997; DAS: arXiv 2303.02536; boundless DAS: arXiv"
    " 2305.08809"
)


@dataclass(frozen=True, eq=False)
class Known:
    """What edits take from source runs: number of the edit -> features [row, place, feature],
    positions [row, place]. Nothing that is trained acts on these runs, so they are the same at
    every step."""

    found: dict[int, tuple[torch.Tensor, torch.Tensor]]

    def rows(self, chosen: np.ndarray) -> Known:
        """Those of some pairs, with as many places as one of them has."""
        found = {}
        for number, (features, where) in self.found.items():
            own = where[torch.from_numpy(chosen).to(where.device)]
            width = max(1, int((own >= 0).sum(1).max()))
            found[number] = (
                features[torch.from_numpy(chosen).to(features.device)][:, :width],
                own[:, :width],
            )
        return Known(found)


def aligned(
    site: str,
    layer: int | None,
    at: At = ALL,
    *,
    features: int,
    kind: str = "das",
    directions: int | None = None,
    source_at: At | None = None,
    units: tuple[int, ...] | None = None,
    neurons: tuple[int, ...] | None = None,
    path: str | None = None,
    seed: int = 0,
) -> Intervention:
    """Where training starts: an interchange along random orthonormal directions.

    Args:
        features: of the site, all chosen units and neurons side by side.
        kind: das (some directions), lowrank (fewer than features), boundless (how many is learned
            too) or mask (a weight for each feature, or each direction if their number is given).
        directions: default 1 for das and lowrank, all for boundless, the features themselves for
            mask.
        source_at: positions in the source, if they are others.

    Raises:
        BadInput: an unknown kind, more directions than features.
    """
    if kind not in KINDS:
        raise BadInput(f"kind {kind!r} is not known; use one of {', '.join(KINDS)}")
    if not is_whole(features) or features < 1:
        raise BadInput(f"features {features!r} are not possible; give the width of the site")
    wanted = directions if directions is not None else features if kind == "boundless" else 1
    if not is_whole(wanted) or not 1 <= wanted <= features:
        raise BadInput(
            f"directions {wanted!r} are not possible; a site of {features} features has 1 to"
            f" {features}"
        )
    tensors = {
        "rotation": orthonormal(
            torch.randn(features, wanted, generator=torch.Generator().manual_seed(seed))
        )
    }
    do: FromSource = {"das": Rotate, "lowrank": LowRank, "boundless": Boundless, "mask": Mask}[
        kind
    ](source_at=source_at)
    if kind == "boundless":
        tensors["boundary"] = torch.tensor(0.5)
    if kind == "mask" and directions is None:
        tensors = {"mask": torch.zeros(features)}
    elif kind == "mask":
        tensors["mask"] = torch.zeros(wanted)
        do = Mask(source_at=source_at, rotation="rotation")
    edit = Edit(site, do, layer=layer, units=units, neurons=neurons, at=at, path=path)
    return Intervention(edit, tensors=tensors)


def orthonormal(
    matrix: Float[torch.Tensor, "feature direction"],
) -> Float[torch.Tensor, "feature direction"]:
    """The nearest orthonormal columns of the same span in the same order: Q of a QR decomposition
    whose R has a positive diagonal. In double precision, because errors would add up over thousands
    of steps."""
    q, r = torch.linalg.qr(matrix.double())
    return (q * torch.where(r.diagonal() < 0, -1.0, 1.0)).to(matrix.dtype)


def random_directions(intervention: Intervention, seed: int = 0) -> Intervention:
    """The control: the same intervention, its rotations in place of what was learned drawn at
    random.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = dict(intervention.tensors)
    named = {getattr(edit.do, "rotation", None) for edit in intervention.edits} - {None}
    for name in sorted(str(name) for name in named):
        tensors[name] = orthonormal(torch.randn(tensors[name].shape, generator=generator)).to(
            tensors[name]
        )
    return Intervention(*intervention.edits, tensors=tensors, mode=intervention.mode)


def accuracy(
    logits: Float[torch.Tensor, "row answer"], answer: Int[torch.Tensor, "row"]
) -> torch.Tensor:
    """1 where the likeliest answer is the counterfactual one, else 0."""
    return (logits.argmax(-1) == answer).float()


def evaluate(
    model,
    intervention: Intervention,
    pairs: Pairs,
    *,
    metric: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = accuracy,
    batch_size: int = 64,
    known: Known | None = None,
) -> xr.Dataset:
    """How often an intervention makes a network give the counterfactual answer.

    Args:
        model: from `nnheads.load`, or any torch.nn.Module that returns [row, answer] or [row,
            position, answer].
        metric: from logits [row, answer] and answers [row] to a number for each row.
        known: what the edits take from the sources, if `read_sources` has read it for edits at the
            same sites.

    Returns:
        `score` (batch); its mean is the interchange accuracy.

    Raises:
        BadInput: a metric that gives no number for each row, and what the model or the prompts do
            not have.
    """
    if not is_whole(batch_size) or batch_size < 1:
        raise BadInput(f"batch_size {batch_size!r} is not possible; it must be at least 1")
    scores = []
    with torch.no_grad(), frozen(model):
        for first in range(0, len(pairs), batch_size):
            chosen = np.arange(first, min(first + batch_size, len(pairs)))
            part, own = pairs.rows(chosen), None if known is None else known.rows(chosen)
            logits = predicted(model, intervention, part, own)
            found = torch.as_tensor(metric(logits, part.answer.to(logits.device)))
            if found.shape != (len(part),):
                raise BadInput(
                    f"the metric gave shape {tuple(found.shape)} for {len(part)} pairs; expected"
                    " one a pair"
                )
            scores.append(found.float().cpu())
    name = getattr(metric, "__name__", "metric")
    about = {"long_name": f"counterfactual {name}", "units": "1", "source": SOURCE}
    return xr.Dataset(
        {"score": ("batch", torch.cat(scores).numpy(), about)}, attrs={"source": SOURCE}
    )


def predicted(
    model, intervention: Intervention, pairs: Pairs, known: Known | None = None
) -> torch.Tensor:
    """Logits [row, answer] with the intervention in place: through hooks, or through a trace where
    hooks do not reach and on other machines. `known` are the sources' features (`read_sources`), if
    they were read before."""
    if by_trace(model, intervention):
        if not isinstance(pairs.base, xr.Dataset):
            raise BadInput("this needs prompts as datasets; tensors are for modules that run here")
        found: Any = run(
            model, intervention, pairs.base, pairs.sources, original=False, keep=1
        ).edited
    else:
        module, base = as_module(model, intervention), fed(model, pairs.base)
        if known is not None:
            call = Call.of(base)
            with module.hooks(call, list(range(len(intervention.edits))), known.found, None):
                found = module.module(*call.inputs, **call.options)
        else:
            sources = [fed(model, one) for one in pairs.sources]
            found = (
                module(**base, sources=sources)
                if isinstance(base, dict)
                else module(base, sources=sources)
            )
        found = getattr(found, "logits", found[0] if isinstance(found, tuple) else found)
    logits = found[:, -1] if found.dim() == 3 else found
    low, high = int(pairs.answer.min()), int(pairs.answer.max())
    if logits.dim() != 2 or low < 0 or high >= logits.shape[-1]:
        raise BadInput(
            f"answers {low} to {high} do not go with an output of shape {tuple(found.shape)};"
            " expected [row, answer]"
        )
    return logits


def by_trace(model, intervention: Intervention) -> bool:
    """Whether this takes a trace: hooks do not reach into the attention kernel, nor other machines."""
    return bool(remote_of(model)) or any(edit.site in KERNEL for edit in intervention.edits)


def read_sources(
    model, intervention: Intervention, pairs: Pairs, batch_size: int = 64
) -> Known | None:
    """One run of every source, for all steps of a training; None where the sources change from step
    to step (each of several in serial mode runs with the one before it in place) or where hooks do
    not reach."""
    if by_trace(model, intervention) or (
        intervention.mode == "serial" and intervention.sources > 1
    ):
        return None
    module, parts = as_module(model, intervention), []
    for first in range(0, len(pairs), batch_size):
        part: dict[int, tuple] = {}
        for number, source in enumerate(pairs.sources):
            call = Call.of(
                fed(model, taken(source, np.arange(first, min(first + batch_size, len(pairs)))))
            )
            with torch.no_grad(), frozen(model), module.reads(call, number, part):
                module.module(*call.inputs, **call.options)
        parts.append(part)
    found = {}
    for number in parts[0]:
        features, where = zip(*(part[number] for part in parts))
        found[number] = (joined(features, 0), joined(where, -1))
    return Known(found)


def joined(parts: Sequence[torch.Tensor], fill: int) -> torch.Tensor:
    """Batches [row, place, ...] as one, filled up to as many places as any has."""
    width = max(part.shape[1] for part in parts)
    rest = [
        part.new_full((len(part), width - part.shape[1], *part.shape[2:]), fill) for part in parts
    ]
    return torch.cat([torch.cat(both, 1) for both in zip(parts, rest)])


def fed(model, given: xr.Dataset | torch.Tensor) -> dict | torch.Tensor:
    """What a hooked module takes: a tensor as it is, prompts as keywords on the model's device."""
    if not isinstance(given, xr.Dataset):
        return given
    device = next(model._module.parameters()).device
    roles = {
        str(name).removeprefix("role_"): given[name].values
        for name in given.coords
        if str(name).startswith("role_")
    }
    asked = given["prompt_length"].values if "prompt_length" in given.coords else None
    ids = {name: tensor.to(device) for name, tensor in inputs(model, given).items()}
    return {**ids, "use_cache": False, "logits_to_keep": 1, "roles": roles, "prompt_length": asked}


@contextlib.contextmanager
def frozen(model) -> Iterator[None]:
    """A network whose weights take no gradients and whose dropout is off; both as they were
    afterwards.
    """
    module = getattr(model, "_module", model)
    learning = [weight for weight in module.parameters() if weight.requires_grad]
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)
        for part, mode in modes:
            part.training = mode
