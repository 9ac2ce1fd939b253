"""Two pairs of prompts for every test that swaps something between two runs."""

from __future__ import annotations

import numpy as np
import oracle
import torch
import xarray as xr
from random_models import VOCABULARY

ANSWERS = torch.tensor([[5, 6], [7, 8]])
WIDTH = 9


def pairs(padded, differ: slice = slice(5, 8)) -> xr.Dataset:
    """Two pairs of different length that differ at some positions."""
    ids, mask, _ = padded
    other = ids.clone()
    other[:, differ] = (ids[:, differ] + 100 - 4) % (VOCABULARY - 4) + 4
    place = ("batch", "position")
    return xr.Dataset(
        {
            "token": (place, other.numpy().astype("int32")),
            "corrupted": (place, ids.numpy().astype("int32")),
            "mask": (place, mask.numpy().astype("int8")),
            "answer": ("batch", np.array([5, 7], "int32")),
            "wrong": ("batch", np.array([6, 8], "int32")),
        },
        {"batch": [3, 9]},
    )


def runs(model_type: str, prompts: xr.Dataset) -> tuple[dict, dict]:
    """Inputs of the base (corrupted) and the source (clean) run."""
    mask = torch.from_numpy(prompts["mask"].values).long()
    base, source = (
        torch.from_numpy(prompts[name].values).long() for name in ("corrupted", "token")
    )
    return oracle.fed(model_type, base, mask), oracle.fed(model_type, source, mask)
