"""Path patching as datasets: prompts in, the effect of every sender along one kind of path out.

Patching a head shows all that its output causes, by any route. Path patching keeps one route: from
a sender straight to the queries, keys or values of chosen later heads, or straight to the logits.
All other heads are frozen, so no path leads through a third head; feed-forward parts on the way are
recomputed, as in the paper, or frozen as well.
Source: Wang et al. 2022, arXiv 2211.00593.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput
from nnheads.models.geometry import geometry, model_spec
from nnheads.models.labels import check_finite
from nnheads.models.names import head_name
from nnheads.patching import cells as which
from nnheads.patching.metrics import Metric, evaluate, metric_of
from nnheads.patching.patch import SOURCE, role
from nnheads.patching.readings import Job, Readings, prepare, questions
from nnheads.trace.paths import paths

VIA = {"q": "queries", "k": "keys", "v": "values"}
MLPS = {
    "recompute": "feed-forward parts between sender and receiver pass the change on",
    "freeze": "feed-forward parts are frozen too, so that only the direct path is left",
}
Heads = Sequence[tuple[int, int]]


def path_patch(
    model,
    prompts: xr.Dataset,
    *,
    receivers: Heads | None = None,
    via: str = "q",
    senders: Heads | None = None,
    at: str | None = None,
    by_position: bool = False,
    mlps: str = "recompute",
    metric: str | Callable = "logit_difference",
    tokens: int | None = None,
) -> xr.Dataset:
    """What each sender does along its paths to the receivers, and along no other.

    The sender gets its output on the corrupted text, every other head keeps that on the clean text,
    and what the receivers then hear is put into a clean run. As heads are frozen, a change stays at
    its position: a sender matters only where the receivers listen, so one position, `at`, describes
        both ends of a path.

    Args:
        prompts: pairs whose corrupted text breaks what the clean one has, usually `ioi(...,
            corruption="abc")`.
        receivers: (layer, head) of later heads, all at once; None for the final residual stream,
            i.e. the logits.
        via: what of the receivers hears: "q", "k" or "v". Keys and values are those of the
            receivers' key/value heads, which serve other heads too; attrs name them.
        senders: (layer, head), one at a time; default every head that some receiver can hear.
        at: a role such as "S2" at which the path runs; default all positions at once. by_position:
            each by itself.
        mlps: a key of MLPS. metric, tokens: as for `patch`.

    Returns:
        `<metric>`, `change` (after minus before), `relative` (change over before; negative: the
        path helped), float32, (batch, layer, head[, position]); NaN for heads that are no senders.
        `base_<metric>` and `new_<metric>` (batch): the clean and the corrupted text's.

    Raises:
        BadInput: heads, roles or options that do not exist; senders that stand in or above the
            highest layer of the receivers. RunError: logits that are not finite.
    """
    sizes, chosen = geometry(model), metric_of(metric)
    if "corrupted" not in prompts:
        raise BadInput(
            "path patching needs pairs: these prompts have no corrupted text for senders to speak"
            " about"
        )
    check_mlps(mlps)
    hearing = listeners(receivers, via, sizes)
    sending = speakers(senders, hearing, sizes)
    places, spots = listening(prompts, hearing, via, at, by_position, sizes.layers)
    cells = which.groups([[head] for head in sending], places)
    job = prepare(
        model, prompts, cells, base="token", source="corrupted", full=chosen.full, tokens=tokens
    )
    how = {
        "form": model_spec(model),
        "via": via if hearing else None,
        "receivers": hearing,
        "freeze": mlps == "freeze",
    }
    readings = run(model, job, spots, how)
    scores = labelled(prompts, readings, chosen, sending, sizes, by_position)
    letters = "H" if via == "q" else "KV"
    heard = "+".join(
        f"L{layer}{letters}{unit}" for layer in sorted(hearing) for unit in hearing[layer]
    )
    scores.attrs.update(
        receivers=heard or "logits",
        via=VIA[via] if hearing else "final residual stream",
        at=at or "all positions",
        mlps=mlps,
        meaning=MLPS[mlps],
        metric=chosen.name,
    )
    if receivers is not None:
        scores.attrs["receivers_asked"] = "+".join(head_name(*head) for head in receivers)
    return scores


def check_mlps(mlps: str) -> None:
    if mlps not in MLPS:
        raise BadInput(f"mlps {mlps!r} is not possible; use {' or '.join(MLPS)}")


def listeners(receivers: Heads | None, via: str, sizes) -> dict[int, list[int]]:
    """layer -> units whose queries, keys or values hear; empty for the logits."""
    if receivers is None:
        return {}
    if via not in VIA:
        raise BadInput(f"via {via!r} is not known; receivers hear by their q, k or v")
    if len(receivers) == 0:
        raise BadInput("no receivers were named; name heads, or none at all for the logits")
    which.check_members([receivers], sizes.layers, sizes.heads)
    hearing: dict[int, set[int]] = {}
    for layer, head in receivers:
        unit = head if via == "q" else head * sizes.kv_heads // sizes.heads
        hearing.setdefault(int(layer), set()).add(int(unit))
    return {layer: sorted(units) for layer, units in sorted(hearing.items())}


def speakers(senders: Heads | None, hearing: dict[int, list[int]], sizes) -> list[tuple[int, int]]:
    """The senders, each of which stands before some receiver."""
    top = max(hearing, default=sizes.layers)
    if top == 0:
        raise BadInput("no head stands before layer 0; choose receivers in higher layers")
    if senders is None:
        return [(layer, head) for layer in range(top) for head in range(sizes.heads)]
    if len(senders) == 0:
        raise BadInput("no senders were named; name heads, or leave them out for all")
    which.check_members([senders], sizes.layers, sizes.heads)
    for layer, head in senders:
        if layer >= top:
            raise BadInput(
                f"receivers before senders: {head_name(layer, head)} stands in or above the highest"
                f" receivers' layer {top}; only lower heads reach them"
            )
    return [(int(layer), int(head)) for layer, head in senders]


def listening(
    prompts: xr.Dataset, hearing: dict, via: str, at: str | None, by_position: bool, layers: int
) -> tuple[np.ndarray, torch.Tensor | None]:
    """Where receivers listen: places [place, case, position], and the positions [place, case, spot]
    that step C has to run; None for all."""
    mask, (asked, _) = prompts["mask"].values, questions(prompts)
    if at is not None and by_position:
        raise BadInput("follow paths at each position or at one role, not both")
    if at is not None:
        places = which.at(role(prompts, at), mask)
    else:
        places = which.each_position(mask) if by_position else which.everywhere(mask)
    end = bool((asked == mask.shape[1] - 1).all())
    if not hearing or (end and via == "q" and min(hearing) == layers - 1):
        # the logits, and what the last layer's queries do for them, depend on the asked positions
        # alone
        heard = (np.arange(mask.shape[1]) == asked[..., None]).any(1)
        places = places & heard
    if not hearing:
        return places, torch.from_numpy(np.maximum(asked, 0)).expand(len(places), -1, -1)
    single = bool((places.sum(-1) <= 1).all())
    return places, torch.from_numpy(places.argmax(-1))[..., None] if single else None


def run(model, job: Job, spots: torch.Tensor | None, how: dict) -> Readings:
    """Both changed runs of every cell in one session. What no cell can change is the base run's."""
    order = job.order
    cells = {
        "entries": torch.from_numpy(order.entries),
        "bounds": torch.from_numpy(order.bounds),
        "places": torch.from_numpy(job.cells.places),
        "chunks": order.chunks,
        "spots": spots,
    }
    assert job.source is not None, "prepare was told of one"
    found, base, source = paths(model, job.base, job.source, cells, job.ask, how)
    for values in (base, source, found):
        check_finite(values, "the model's logits")
    swapped = base.cpu().repeat(job.cells.count, 1, 1, 1)
    swapped[torch.from_numpy(order.kept)] = found.cpu()
    return Readings(swapped, base.cpu(), source.cpu(), job.asked, job.ask["answers"].shape[-1])


def labelled(
    prompts: xr.Dataset,
    readings: Readings,
    metric: Metric,
    senders: Heads,
    sizes,
    by_position: bool,
) -> xr.Dataset:
    """The metric after each change, (batch, layer, head[, position]), and what it changed."""
    found = (
        evaluate(metric, readings, readings.swapped)
        .unflatten(0, (len(senders), -1))
        .permute(2, 0, 1)
        .numpy()
    )
    values = np.full((len(found), sizes.layers, sizes.heads, found.shape[-1]), np.nan, np.float32)
    layer, head = np.array(senders).T
    values[:, layer, head] = found
    dims = ("batch", "layer", "head", "position")
    scores = xr.DataArray(values, dims=dims)
    scores = scores.where(prompts["mask"].astype(bool)) if by_position else scores.isel(position=0)
    own = {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}
    index = {
        name: range(size) for name, size in zip(dims[1:], values.shape[1:]) if name in scores.dims
    }
    scores = scores.assign_coords({**own, **{name: list(each) for name, each in index.items()}})
    about = {"units": metric.units, "source": SOURCE}
    result = scores.astype("float32").to_dataset(name=metric.name)
    assert readings.source is not None, "both texts are read"
    for name, text, read in (
        ("base", "clean text", readings.base),
        ("new", "corrupted text", readings.source),
    ):
        result[f"{name}_{metric.name}"] = xr.DataArray(
            evaluate(metric, readings, read).numpy(),
            dims="batch",
            attrs={**about, "long_name": f"{metric.long_name}, {text}"},
        )
    before = result[f"base_{metric.name}"]
    change = scores - before
    result["change"], result["relative"] = change, change / before.where(before != 0)
    for name, text, unit in (
        (metric.name, f"{metric.long_name}, with the path changed", metric.units),
        ("change", f"change of {metric.long_name} along the path", metric.units),
        ("relative", "change along the path over the unchanged value", "1"),
    ):
        result[name] = (
            result[name]
            .transpose(*scores.dims)
            .astype("float32")
            .assign_attrs({**about, "long_name": text, "units": unit})
        )
    return result
