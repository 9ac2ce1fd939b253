"""A small random model made ready for a proof: what it is given, and what a plain run of it did."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from nnsight import TransformersModel

from nnheads.models.families import Family
from nnheads.models.geometry import model_spec
from nnheads.models.recorded import Call, Run, recorded
from nnheads.trace.plain import Inputs, ModelSpec

ROWS, LENGTH, PADDED = 2, 12, 4  # of the text that is run: random tokens, the second row padded
TOLERANCE, LOOSE = 1e-4, 1e-3  # of the largest number; loose where kernels differ


class Fails(Exception):
    """What a row says is not so."""


@dataclass(frozen=True)
class Subject:
    """A small model, what it is given, and what a plain eager run of it did."""

    module: Any
    row: Family
    model: TransformersModel
    spec: ModelSpec
    given: Inputs
    run: Run
    logits: torch.Tensor

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self.module.get_submodule(self.row.layers))

    def name(self, block: int, path: str = "") -> str:
        """Return the name of a block, or of a module below it."""
        return ".".join(one for one in (self.row.layers, str(block), path) if one)

    def call(self, block: int) -> Call:
        """Return what a block's attention was called with."""
        own = self.name(block) + "."
        return next(one for one in self.run.calls if one.owner.startswith(own))


def subject(module: Any, row: Family, tokenizer: Any) -> Subject:
    """Return a model made ready for its proof. It computes attention eagerly before and after."""
    usual = usual_attention(module, row)
    words = module.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, words, (ROWS, LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, :PADDED] = 0
    given = fed(row, ids * mask, mask)
    run = recorded(module, given)
    module.set_attn_implementation(usual)
    model = TransformersModel(module, tokenizer=tokenizer, rename=row.rename())
    with torch.no_grad():
        logits = module(**given, use_cache=False).logits
    return Subject(module, row, model, model_spec(model), given, run, logits)


def usual_attention(module: Any, row: Family) -> str:
    """Return the attention that `load` gives a model if it is not told."""
    return "sdpa" if module._supports_sdpa and row.interface else "eager"


def fed(row: Family, ids: torch.Tensor, mask: torch.Tensor) -> Inputs:
    """Return a model's inputs; positions count from each row's first token."""
    given = {"input_ids": ids, "attention_mask": mask}
    positions = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    return {**given, **positions} if row.position_ids else given


def alike(one: torch.Tensor, other: torch.Tensor, what: str, within: float = TOLERANCE) -> None:
    """Refuse two tensors that differ; within: of the largest number."""
    if one.shape != other.shape:
        raise Fails(f"{what}: shapes {tuple(one.shape)} and {tuple(other.shape)}")
    apart = float((one.float() - other.float()).abs().max())
    if not apart <= within * max(1.0, float(other.float().abs().max())):
        raise Fails(f"{what} differ by {apart:.2g}")


@contextlib.contextmanager
def attending(module: Any, attention: str) -> Iterator[None]:
    """Let a model compute attention in another way meanwhile."""
    before = module.config._attn_implementation
    module.set_attn_implementation(attention)
    try:
        yield
    finally:
        module.set_attn_implementation(before)
