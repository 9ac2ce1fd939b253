"""Logistic regression for many probes at once: scikit-learn's answers, in a fraction of the time.

    weights, intercepts = fit(x, y)  # x [probe, row, dim], y [probe, row]

Newton's method on chunks of probes that fit into the cache, a chunk on each core. The first steps
are in single precision, and so is the curvature all along, which only decides how fast the method
converges; slopes, steps and the criterion that end it are in double precision, so the answer is
exact. Steps are halved where the loss does not fall enough, so it also converges where classes are
separable or features constant.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch.nn.functional import softplus

from nnheads.errors import BadInput, RunError

STEPS = 100
TOLERANCE = 1e-7  # of the last step, in the unit of the coefficients
COARSE = 1e-2  # the same, where single precision gives way to double
# of features in double precision that are worked on at a time: they should stay in the cache
CHUNK_BYTES = 2**23
HALVINGS = 30
LOOKS = 2  # Newton steps along a step, for how far to follow it: they spare sums of the curvature
SHRINK = 0.3  # a step larger than this share of the last one: the curvature has become stale


def fit(
    x: Float[torch.Tensor, "probe row dim"], y: torch.Tensor, penalty: float = 1.0
) -> tuple[Float[torch.Tensor, "probe dim"], Float[torch.Tensor, " probe"]]:
    """Return the weights w and intercepts b of logistic regressions.

    They minimise sum log(1 + exp(-s (x w + b))) + penalty / 2 |w|^2, s = 1 or -1.

    Args:
        x: features; a first dimension of 1 serves all probes.
        y: 1 or 0 for each row, [row] or [probe, row].
        penalty: 1 / C of scikit-learn; as there, the intercept is free.

    Returns:
        float64, within about 1e-6 of the minimum.

    Raises:
        BadInput: sizes that do not fit, labels other than 0 and 1 or all alike, features that are
            not finite, a penalty that is not positive.
        RunError: if it does not converge, which no finite input should make it do.
    """
    x, y = _checked(x, y, penalty)
    probes = max(len(x), len(y))
    size = max(1, CHUNK_BYTES // (8 * x.shape[1] * (x.shape[2] + 1)))

    def chunk(first: int) -> torch.Tensor:
        part = slice(first, min(first + size, probes))
        count = part.stop - part.start
        own_x = (x if len(x) == 1 else x[part]).expand(count, -1, -1)
        own_y = (y if len(y) == 1 else y[part]).expand(count, -1)
        return _fit_chunk(own_x, own_y, penalty)

    beta = torch.cat(_side_by_side(chunk, range(0, probes, size)))
    return beta[:, :-1], beta[:, -1]


def _fit_chunk(x: torch.Tensor, y: torch.Tensor, penalty: float) -> torch.Tensor:
    """Go most of the way in single precision, which costs half, and the rest in double."""
    start = x.new_zeros(len(x), x.shape[2] + 1, dtype=torch.float)
    near, factor = _newton(x.float(), y.float(), start, None, COARSE, penalty)
    return _newton(x.double(), y, near.double(), factor, TOLERANCE, penalty)[0]


def _side_by_side(function: Callable[[int], torch.Tensor], starts: range) -> list[torch.Tensor]:
    """Work on chunks on all cores, each on one.

    Products of this size gain nothing from several threads, which wait for each other at every step
    and stall where cores are shared.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, starts))
    finally:
        torch.set_num_threads(threads)  # what threads that are yet to come start with


def _checked(x: torch.Tensor, y: torch.Tensor, penalty: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features and labels [probe, row], or refuse what has no answer."""
    y = (y.unsqueeze(0) if y.ndim == 1 else y).double()
    _check_sizes(x, y)
    if not penalty > 0:
        raise BadInput(
            f"a penalty of {penalty} is not possible; it must be positive, or separable classes"
            " have no answer"
        )
    extremes = torch.stack(torch.aminmax(x))  # far quicker than to ask each
    if not bool(torch.isfinite(extremes).all()):
        raise BadInput("features are not finite: broken weights, or a dtype that overflows")
    if not bool(((y == 0) | (y == 1)).all()):
        raise BadInput("labels must be 0 or 1")
    if bool((y == y[:, :1]).all(1).any()):
        raise BadInput(
            f"all {y.shape[1]} labels of a probe are alike; it needs true and false answers to tell"
            " apart"
        )
    return x, y


def _check_sizes(x: torch.Tensor, y: torch.Tensor) -> None:
    fits = x.ndim == 3 and y.ndim == 2 and x.shape[1] == y.shape[1]
    if not fits or x.numel() == 0 or not (len(x) == len(y) or 1 in (len(x), len(y))):
        raise BadInput(
            f"features {list(x.shape)} do not fit labels {list(y.shape)}; [probe, row, dim] and"
            " [probe, row]"
        )


class _Line(NamedTuple):
    """A step from where the fit is, and what it changes.

    value: what is said of each row, and moved: how a whole step changes it, [probe, row].
    beta, step, slope: weights and, last, the intercept, [probe, dim+1].
    """

    value: torch.Tensor
    moved: torch.Tensor
    beta: torch.Tensor
    step: torch.Tensor
    slope: torch.Tensor
    penalty: float


def _newton(
    x: torch.Tensor,
    y: torch.Tensor,
    beta: torch.Tensor,
    factor: torch.Tensor | None,
    tolerance: float,
    penalty: float,
) -> tuple[Float[torch.Tensor, "probe dim+1"], torch.Tensor | None]:
    """Return weights and, last, the intercept, and the curvature's Cholesky factor used last.

    The factor is summed anew only where steps shrink too slowly without.
    """
    value, last = _said(x, beta), torch.inf
    for _ in range(STEPS):
        likely = value.sigmoid()
        slope = _slope(x, likely - y, beta, penalty)
        if factor is None:
            factor = torch.linalg.cholesky(_curvature(x.float(), likely * (1 - likely), penalty))
        step = torch.cholesky_solve(slope.double().unsqueeze(-1), factor)[..., 0].to(x.dtype)
        size = float(step.abs().max())
        if size > last * SHRINK:
            factor, last = None, torch.inf
            continue
        line = _Line(value, _said(x, step), beta, step, slope, penalty)
        share = _share_of_step(line, y)
        beta, value = beta - share * step, value - share * line.moved
        if size < tolerance:
            return beta, factor
        last = size
    if tolerance == COARSE:
        return beta, None
    raise RunError(f"probes did not converge in {STEPS} steps")


def _said(x: torch.Tensor, beta: torch.Tensor) -> Float[torch.Tensor, "probe row"]:
    """Return what weights and, last, an intercept say of each row."""
    return (x @ beta[:, :-1].unsqueeze(-1))[..., 0] + beta[:, -1:]


def _slope(
    x: torch.Tensor, error: torch.Tensor, beta: torch.Tensor, penalty: float
) -> Float[torch.Tensor, "probe dim+1"]:
    """Return the first derivative of the loss."""
    # row vector times matrix: for this shape far faster than the transposed matrix times a column
    weights = (error.unsqueeze(1) @ x)[:, 0] + penalty * beta[:, :-1]
    return torch.cat([weights, error.sum(1, keepdim=True)], 1)


def _curvature(
    x: torch.Tensor, spread: torch.Tensor, penalty: float
) -> Float[torch.Tensor, "probe dim+1 dim+1"]:
    """Return the second derivative of the loss, float64."""
    # or a probe that is sure of every row leaves its intercept without curvature
    spread = spread.clamp(min=1e-9)
    scaled = x * spread.float().unsqueeze(-1)
    found = x.new_empty(len(x), x.shape[2] + 1, x.shape[2] + 1, dtype=torch.double)
    found[:, :-1, :-1] = scaled.mT @ x
    found[:, :-1, -1] = found[:, -1, :-1] = scaled.sum(1)
    found[:, -1, -1] = spread.sum(1)
    found[:, :-1, :-1].diagonal(dim1=1, dim2=2).add_(penalty)
    return found


def _share_of_step(line: _Line, y: torch.Tensor) -> Float[torch.Tensor, "probe 1"]:
    """Return how much of a step to take.

    It is all of it or, on the way, about what is best; and of this as often half as the loss wants
    (Armijo's rule).
    """
    share = torch.ones_like(line.value[:, :1])
    promised = (line.slope * line.step).sum(1)
    if line.value.dtype == torch.float:  # far from the end
        share = _best_share(line, y)
    before = _loss(line, y, torch.zeros_like(share))
    resolution = 1e3 * torch.finfo(line.value.dtype).eps  # what rounding hides is no rise
    for _ in range(HALVINGS):
        wanted = before - 1e-4 * share[:, 0] * promised + resolution * before.abs()
        poor = _loss(line, y, share) > wanted
        if not bool(poor.any()):
            break
        share = torch.where(poor.unsqueeze(1), share / 2, share)
    return share


def _loss(line: _Line, y: torch.Tensor, share: torch.Tensor) -> Float[torch.Tensor, " probe"]:
    """Return the loss after a share of a step."""
    wrong = 1 - 2 * y  # the wrong sign for a row; nothing cancels, so small losses stay exact
    value = line.value - share * line.moved
    weights = (line.beta - share * line.step)[:, :-1]
    return softplus(wrong * value).sum(1) + line.penalty / 2 * weights.pow(2).sum(1)


def _best_share(line: _Line, y: torch.Tensor) -> Float[torch.Tensor, "probe 1"]:
    """Return about where along a step the loss is least, without a look at the features."""
    share, steps = torch.ones_like(line.value[:, :1]), line.step[:, :-1]
    for _ in range(LOOKS):
        likely = (line.value - share * line.moved).sigmoid()
        weights = (line.beta - share * line.step)[:, :-1]
        falls = ((likely - y) * line.moved).sum(1) + line.penalty * (weights * steps).sum(1)
        curved = (likely * (1 - likely) * line.moved.square()).sum(1)
        bends = curved + line.penalty * steps.square().sum(1)
        share = (share + (falls / bends.clamp(min=1e-30)).unsqueeze(1)).clamp(0.5, 8)
    return share
