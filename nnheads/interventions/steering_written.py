"""What a steered model writes, and what the model itself says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from nnheads.interventions.generate import generate
from nnheads.interventions.likelihood import compare
from nnheads.interventions.positions import ANSWER
from nnheads.interventions.schema import Intervention
from nnheads.interventions.steering_directions import activations_of, projections
from nnheads.interventions.texts import continuations

WHERE = "where what is written lies, from texts away (0) to toward (1)"


@dataclass(frozen=True)
class Writing:
    """How continuations are written and measured.

    Args:
        directions, layer: where what is written is projected; None: nowhere.
        new_tokens, sample: as for `generate`.
    """

    model: Any
    directions: xr.Dataset | None
    layer: int
    new_tokens: int
    sample: dict[str, Any] | None

    def __call__(self, edits: Intervention, prompts: xr.Dataset) -> xr.Dataset:
        """Return what is written with the edits, and how it reads without them (batch).

        `surprisal` is in nats per token; `projection` is 0 at the texts away and 1 at those toward.
        """
        written = generate(
            self.model,
            edits,
            prompts,
            new_tokens=self.new_tokens,
            original=False,
            sample=self.sample,
        )
        whole = self._whole(prompts, written.ids)
        surprisal = -compare(self.model, Intervention(), whole)["original"].values
        about = {
            "long_name": "surprisal of what is written, to the unsteered model",
            "units": "nat",
        }
        texts = np.array(written.texts, object)
        data = {
            "written": ("batch", texts, {"long_name": "what is written"}),
            "surprisal": ("batch", surprisal, about),
        }
        if self.directions is not None:
            data["projection"] = self._projection(whole, self.directions)
        return xr.Dataset(data, {"batch": prompts["batch"]})

    def _whole(self, prompts: xr.Dataset, ids: np.ndarray) -> xr.Dataset:
        """Return prompts with what was written behind them."""
        tokens = zip(prompts["token"].values, prompts["mask"].values)
        before = [row[mask > 0].tolist() for row, mask in tokens]
        rows = [[*row, *more[more >= 0].tolist()] for row, more in zip(before, ids)]
        return continuations(self.model, rows, list(map(len, before)))

    def _projection(self, whole: xr.Dataset, directions: xr.Dataset) -> tuple:
        site = directions.attrs["site"]
        read = activations_of(self.model, whole, site=site, layers=[self.layer], at=ANSWER)
        along = projections(directions, self.layer, read[:, 0]).astype("float32")
        return "batch", along, {"long_name": WHERE, "units": "1"}
