"""One call of any module: its inputs, and what positions mean in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from nnheads.errors import BadInput
from nnheads.interventions.positions import At, resolved

LABELS = ("roles", "prompt_length")  # what a source says of its positions, beside its inputs


class Call:
    """A module's inputs, and the roles and prompt lengths of their rows.

    Args:
        inputs, options: the module's own arguments and keywords. An `attention_mask` [row,
            position] says where each row begins.
        roles: name -> position [row] in the padded rows.
        prompt_length: tokens of each row that are the prompt.

    Keys and values among the options stand for `before` positions, which are not run.
    """

    def __init__(
        self, inputs: tuple, options: dict[str, Any], roles: Mapping[str, Any], prompt_length: Any
    ) -> None:
        self.inputs, self.options = inputs, options
        self.roles = {name: np.asarray(positions) for name, positions in roles.items()}
        self.prompt = None if prompt_length is None else np.asarray(prompt_length)
        past = options.get("past_key_values")  # it grows while the module runs
        self.before = 0 if past is None else int(past.get_seq_length())

    @classmethod
    def of(cls, source: Any) -> Call:
        """Return the call of a source: a tensor, a tuple of inputs or a dict of keywords."""
        if isinstance(source, Mapping):
            options = {name: value for name, value in source.items() if name not in LABELS}
            return cls((), options, source.get("roles") or {}, source.get("prompt_length"))
        return cls(source if isinstance(source, tuple) else (source,), {}, {}, None)

    @property
    def first(self) -> torch.Tensor:
        """The first tensor among the inputs."""
        values = (*self.inputs, *self.options.values())
        return next(value for value in values if isinstance(value, torch.Tensor))

    @property
    def length(self) -> int:
        """How many tokens are read; 0 where the input is no token ids."""
        ids = self.first
        return ids.shape[1] if ids.dim() == 2 and not ids.is_floating_point() else 0

    def where(
        self, at: At, features: Float[torch.Tensor, "row position feature"]
    ) -> Int[torch.Tensor, "row chosen"]:
        """Return the positions that `at` means in these features.

        Raises:
            BadInput: one of them is before what is run, in the keys and values that are given.
        """
        mask = self.options.get("attention_mask")
        before = self.before
        if mask is None or mask.shape != (len(features), before + features.shape[1]):
            mask, before = torch.ones(features.shape[:2], dtype=torch.long), 0
        where = resolved(at, mask.cpu().numpy(), self.roles, self.prompt)
        if before and ((where >= 0) & (where < before)).any():
            raise BadInput(f"an edit at {at.kind} acts on tokens that were read before")
        return torch.where(where >= 0, where - before, -1).to(features.device)
