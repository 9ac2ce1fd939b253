"""Where does a network hold a variable of a causal model? Interchange it there and look.

    start = aligned("resid_post", 4, index(-1), features=768)
    evaluate(model, start, pairs)["score"].mean()

A pair is a base and a source input, and the answer that the causal model gives once the variable's
value in the base is that in the source. `evaluate` says how often an intervention makes the network
say so; `training.train` looks for the directions with which it does. Two controls belong to it:
answers that are shuffled, and directions at random.
Source: Geiger et al. 2021, arXiv 2106.02997 (interchange interventions); Geiger et al. 2023, arXiv
2303.02536 (DAS); Wu et al. 2023, arXiv 2305.08809 (boundless).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from nnheads.errors import BadInput
from nnheads.interventions.counterfactuals import Pairs
from nnheads.interventions.operations import Boundless, FromSource, LowRank, Mask, Rotate
from nnheads.interventions.plain_values import is_whole
from nnheads.interventions.positions import ALL, At
from nnheads.interventions.predictions import SourceFeatures, batches_of, frozen, predicted
from nnheads.interventions.schema import Edit, Intervention

KINDS = ("das", "lowrank", "boundless", "mask")
SOURCE = (
    "interchange interventions: arXiv 2106.02997; DAS: arXiv 2303.02536; boundless DAS: arXiv"
    " 2305.08809"
)
Metric = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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
    """Return where training starts: an interchange along random orthonormal directions.

    Args:
        site, layer, at, units, neurons, path: as for `Edit`.
        features: of the site, all chosen units and neurons side by side.
        kind: das (some directions), lowrank (fewer than features), boundless (how many is learned
            too) or mask (a weight for each feature, or each direction if their number is given).
        directions: default 1 for das and lowrank, all for boundless, the features themselves for
            mask.
        source_at: positions in the source, if they are others.
        seed: of the directions.

    Returns:
        One edit, and its tensors: `rotation` [feature, direction], `boundary`, `mask`.

    Raises:
        BadInput: an unknown kind, more directions than features.

    Example:
        >>> from nnheads.interventions import aligned, index
        >>> start = aligned("resid_post", 1, index(-1), features=8, directions=2)
        >>> start.tensors["rotation"].shape
        torch.Size([8, 2])
    """
    count = _directions(kind, features, directions)
    if kind == "mask" and directions is None:
        tensors = {"mask": torch.zeros(features)}
    else:
        tensors = {"rotation": _random_rotation(features, count, seed)}
        if kind == "boundless":
            tensors["boundary"] = torch.tensor(0.5)
        if kind == "mask":
            tensors["mask"] = torch.zeros(count)
    do = _operation(kind, source_at, "rotation" in tensors)
    edit = Edit(site, do, layer=layer, units=units, neurons=neurons, at=at, path=path)
    return Intervention(edit, tensors=tensors)


def _directions(kind: str, features: int, directions: int | None) -> int:
    """Return how many directions an alignment of this kind starts with."""
    if kind not in KINDS:
        raise BadInput(f"kind {kind!r} is not known; use one of {', '.join(KINDS)}")
    if not is_whole(features) or features < 1:
        raise BadInput(f"features {features!r} are not possible; give the width of the site")
    usual = features if kind == "boundless" else 1
    count = usual if directions is None else directions
    if not is_whole(count) or not 1 <= count <= features:
        raise BadInput(
            f"directions {count!r} are not possible; a site of {features} features has 1 to"
            f" {features}"
        )
    return count


def _operation(kind: str, source_at: At | None, rotated: bool) -> FromSource:
    if kind == "mask":
        return Mask(source_at=source_at, rotation="rotation" if rotated else None)
    operations = {"das": Rotate, "lowrank": LowRank, "boundless": Boundless}
    return operations[kind](source_at=source_at)


def _random_rotation(
    features: int, directions: int, seed: int
) -> Float[torch.Tensor, "feature direction"]:
    generator = torch.Generator().manual_seed(seed)
    return orthonormal(torch.randn(features, directions, generator=generator))


def orthonormal(
    matrix: Float[torch.Tensor, "feature direction"],
) -> Float[torch.Tensor, "feature direction"]:
    """Return the nearest orthonormal columns of the same span in the same order.

    They are Q of a QR decomposition whose R has a positive diagonal, in double precision, because
    errors would add up over thousands of steps.
    """
    q, r = torch.linalg.qr(matrix.double())
    return (q * torch.where(r.diagonal() < 0, -1.0, 1.0)).to(matrix.dtype)


def random_directions(intervention: Intervention, seed: int = 0) -> Intervention:
    """Return the control: the same intervention, its rotations drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    tensors = dict(intervention.tensors)
    named = {getattr(edit.do, "rotation", None) for edit in intervention.edits} - {None}
    for name in sorted(map(str, named)):
        drawn = torch.randn(tensors[name].shape, generator=generator)
        tensors[name] = orthonormal(drawn).to(tensors[name])
    return intervention.with_tensors(tensors)


def accuracy(
    logits: Float[torch.Tensor, "row answer"], answer: Int[torch.Tensor, " row"]
) -> Float[torch.Tensor, " row"]:
    """Return 1 where the likeliest answer is the counterfactual one, else 0."""
    return (logits.argmax(-1) == answer).float()


def evaluate(
    model: Any,
    intervention: Intervention,
    pairs: Pairs,
    *,
    metric: Metric = accuracy,
    batch_size: int = 64,
    known: SourceFeatures | None = None,
) -> xr.Dataset:
    """Measure how often an intervention makes a network give the counterfactual answer.

    Args:
        model: from `nnheads.load`, or any torch.nn.Module that returns [row, answer] or [row,
            position, answer].
        metric: from logits [row, answer] and answers [row] to a number for each row.
        known: what the edits take from the sources, if `predictions.read_sources` has read it for
            edits at the same sites.

    Returns:
        `score` (batch), between 0 and 1 for the default metric; its mean is the interchange
        accuracy.

    Raises:
        BadInput: a metric that gives no number for each row, and what the model or the prompts do
            not have.
    """
    if not is_whole(batch_size) or batch_size < 1:
        raise BadInput(f"batch_size {batch_size!r} is not possible; it must be at least 1")
    scores = []
    with torch.no_grad(), frozen(model):
        for rows in batches_of(len(pairs), batch_size):
            part = pairs.rows(rows)
            logits = predicted(model, intervention, part, rows_of(known, rows))
            scores.append(_scored(metric, logits, part))
    name = getattr(metric, "__name__", "metric")
    about = {"long_name": f"counterfactual {name}", "units": "1", "source": SOURCE}
    score = ("batch", torch.cat(scores).numpy(), about)
    return xr.Dataset({"score": score}, attrs={"source": SOURCE})


def rows_of(known: SourceFeatures | None, rows: Int[np.ndarray, " row"]) -> SourceFeatures | None:
    """Return what is known of some pairs' sources, if anything is."""
    return None if known is None else known.rows(rows)


def _scored(
    metric: Metric, logits: Float[torch.Tensor, "row answer"], pairs: Pairs
) -> Float[torch.Tensor, " row"]:
    scores = torch.as_tensor(metric(logits, pairs.answer.to(logits.device)))
    if scores.shape != (len(pairs),):
        raise BadInput(
            f"the metric gave shape {tuple(scores.shape)} for {len(pairs)} pairs; expected one a"
            " pair"
        )
    return scores.float().cpu()
