"""Norms as linear maps: with its scale held at what it was in a run, a norm is linear.

    parts = probe_norm(model.final_norm, stream)                  # gain, bias, whether it centres
    after = held_scale(parts, before, after) * normed(parts, before) + parts["bias"]

No weight is read: modules are called on inputs that show what they do, so that all of this also
runs where a model has no weights. Shipped to remote servers as source: torch only.
"""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from jaxtyping import Float

PROBE = 1000.0  # so large that no norm's epsilon counts beside it
Stream = Float[torch.Tensor, "*lead d_model"]


class Norm(TypedDict):
    """What a norm does besides scaling. gain, bias: [d_model]."""

    gain: torch.Tensor
    bias: torch.Tensor
    centres: bool


def probe_norm(norm: Any, like: torch.Tensor) -> Norm:
    """Return what a norm does besides scaling. like: a tensor of the width that it takes."""
    probe = torch.ones(like.shape[-1])
    probe[1::2] = -1
    probe = probe - probe.mean()  # nothing to centre away, and with this length nothing to scale
    probe = probe / probe.pow(2).mean().sqrt()
    sent = (PROBE * probe).to(like)
    up, down, moved = norm(sent).float(), norm(-sent).float(), norm(sent + PROBE).float()
    gain, bias = (up - down) / 2 / probe.to(up), (up + down) / 2
    centres = bool((moved - up).abs().mean() < 0.1 * gain.abs().mean())
    return {"gain": gain, "bias": bias, "centres": centres}


def normed(parts: Norm, x: Stream) -> Stream:
    """Return what a norm makes of a vector besides scaling it: its linear part."""
    x = x.float()
    return (x - x.mean(-1, keepdim=True) if parts["centres"] else x) * parts["gain"].to(x.device)


def held_scale(parts: Norm, before: Stream, after: Stream) -> Float[torch.Tensor, " *lead"]:
    """Return the factor of a norm in a run: after = factor * normed(before) + bias."""
    linear = normed(parts, before)
    unbiased = (after.float() - parts["bias"].to(after.device)).to(linear.device)
    return (unbiased * linear).sum(-1) / linear.pow(2).sum(-1)


def through(parts: Norm, direction: Stream) -> Stream:
    """Return what a direction after a norm is before it, up to the scale.

    <normed(x), d> = <x, through(d)>.
    """
    moved = direction.float() * parts["gain"].to(direction.device)
    return moved - moved.mean(-1, keepdim=True) if parts["centres"] else moved
