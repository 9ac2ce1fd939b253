"""Directions of truth in head outputs, how far activations spread along them, and a guard against
leaks.

Everything is computed from named questions and remembers them: an edit that saw a question cannot
be tested on it.
Source: Li et al. 2023, arXiv 2306.03341.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import xarray as xr

from nnheads.errors import BadInput, RunError
from nnheads.interventions.schema import Intervention

SOURCE = "Li et al. 2023, arXiv 2306.03341"
KINDS = {
    "mass_mean": "mean output on true answers minus mean output on false ones",
    "probe": "weights of the head's linear probe",
    "pca": "first principal component of the questions' differences between true and false answers",
    "random": "a random direction",
}
FITTED = "questions"  # the tensor of an edit that names the questions it was fitted on
SHOWN = 5  # leaked questions that an error names


def directions(
    z: xr.DataArray,
    *,
    use: Iterable[int],
    names: Sequence[str],
    kind: str = "mass_mean",
    weight: xr.DataArray | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """A direction for each head, and the spread of its outputs along it.

    Args:
        z: (batch, layer, head, dim), outputs at the end of statements, with coordinates `question`
            and `label` (batch).
        use: numbers of the questions that may be used; rows of all others are not looked at.
        names: the text of every question, by its number.
        kind: a key of KINDS. weight: (layer, head, dim), for `probe`.
        seed: of random directions.

    Returns:
        `direction` (layer, head, dim) of length 1, towards truth; `sigma` (layer, head), the
        standard deviation of the used outputs along it; `fitted` (fitted), `question_ids` of the
        questions that gave both. A head whose direction has no length has 0 everywhere.

    Raises:
        BadInput: an unknown kind, a probe without weights, no true or no false answer among the
            questions.
    """
    if kind not in KINDS:
        raise BadInput(f"direction {kind!r} is not known; use one of {', '.join(KINDS)}")
    numbers = sorted(set(use))
    rows = np.flatnonzero(np.isin(z["question"].values, numbers))
    label, question = z["label"].values[rows], z["question"].values[rows]
    if not (label == 1).any() or not (label == 0).any():
        raise BadInput(
            f"{len(numbers)} questions have no {'false' if (label == 1).any() else 'true'} answer"
            " to use"
        )
    if kind == "probe" and weight is None:
        raise BadInput("direction 'probe' needs the weights of a probe; fit one, or use mass_mean")
    layers = z.transpose("layer", "batch", "head", "dim")
    shape = (layers.sizes["layer"], layers.sizes["head"], layers.sizes["dim"])
    drawn = random_directions(shape, seed)
    unit, sigma = np.zeros(shape), np.zeros(shape[:2])
    for layer in range(
        shape[0]
    ):  # one at a time: head outputs of a large model fill a file and not the memory
        values = layers[layer].values[rows].astype(np.float64)
        if kind == "probe":
            assert weight is not None
            unit[layer] = of_length_one(weight.transpose("layer", "head", "dim")[layer].values)
        elif kind == "random":
            unit[layer] = drawn[layer]
        elif kind == "pca":
            unit[layer] = leading(values, label, question)
        else:
            unit[layer] = of_length_one(values[label == 1].mean(0) - values[label == 0].mean(0))
        sigma[layer] = np.einsum("bhd,hd->bh", values, unit[layer]).std(0)
    return _labelled(z, unit, sigma, question_ids(names[number] for number in numbers), kind, seed)


def _labelled(z: xr.DataArray, unit, sigma, fitted, kind: str, seed: int) -> xr.Dataset:
    about = {"units": "1", "source": SOURCE}
    spread = {
        "long_name": "standard deviation along the direction",
        "units": "activation",
        "source": SOURCE,
    }
    known = {
        "long_name": "questions that gave direction and spread, by the hash of their text",
        "units": "1",
    }
    data = {
        "direction": (
            ("layer", "head", "dim"),
            unit.astype("float32"),
            {"long_name": KINDS[kind], **about},
        ),
        "sigma": (("layer", "head"), sigma.astype("float32"), spread),
        "fitted": ("fitted", fitted, known),
    }
    index = {"layer": range(unit.shape[0]), "head": range(unit.shape[1])}
    return xr.Dataset(data, index, {"direction": kind, "seed": seed, "source": SOURCE})


def of_length_one(values: np.ndarray) -> np.ndarray:
    """Along the last axis; what has no length stays 0."""
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.divide(values, length, out=np.zeros(values.shape), where=length > 0)


def random_directions(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """[layer, head, dim], each of length 1."""
    return of_length_one(np.random.default_rng(seed).standard_normal(shape))


def leading(values: np.ndarray, label: np.ndarray, question: np.ndarray) -> np.ndarray:
    """First principal component [head, dim], about 0, of what each question's true answers have
    more than its false ones; it points the way that most of this goes."""
    both = [
        values[own & (label == 1)].mean(0) - values[own & (label == 0)].mean(0)
        for number in np.unique(question)
        for own in [question == number]
        if (own & (label == 1)).any() and (own & (label == 0)).any()
    ]
    if not both:
        raise BadInput(
            "no question has both a true and a false answer; their differences have no main"
            " direction"
        )
    differences = np.stack(both)
    _, _, right = np.linalg.svd(differences.transpose(1, 0, 2), full_matrices=False)
    first = right[:, 0]
    along = np.einsum("qhd,hd->h", differences, first)
    return (
        first * np.where(along < 0, -1, 1)[:, None] * (np.abs(differences).max((0, 2)) > 0)[:, None]
    )


def question_ids(names: Iterable[str]) -> np.ndarray:
    """What a question is known by across files: 64 bits of a hash of its text, whatever its spaces
    and capitals.
    """
    digests = [
        hashlib.sha256(" ".join(name.casefold().split()).encode()).digest()[:8] for name in names
    ]
    return np.array([int.from_bytes(one, "big", signed=True) for one in digests], np.int64)


def fitted_on(found: xr.Dataset | Intervention) -> np.ndarray | None:
    """`question_ids` that directions or an edit were fitted on; None for an edit that does not say
    it.
    """
    if isinstance(found, xr.Dataset):
        return found["fitted"].values
    given = found.tensors.get(FITTED)
    return None if given is None else given.cpu().numpy().astype(np.int64)


def guard(found: xr.Dataset | Intervention, tested: Sequence[str]) -> None:
    """Refuse to test directions, or an edit along them, on questions that they were fitted on.

    Raises:
        RunError: naming some of the questions that leaked.
    """
    own = fitted_on(found)
    if own is None:
        return
    leaked = [text for text, number in zip(tested, question_ids(tested)) if number in own]
    if leaked:
        more = f" and {len(leaked) - SHOWN} more" if len(leaked) > SHOWN else ""
        raise RunError(
            f"{len(leaked)} of {len(tested)} test questions gave the edit its direction or"
            " strength, so the test would flatter it:"
            f" {', '.join(map(repr, leaked[:SHOWN]))}{more}; test on questions of another fold or"
            " file"
        )


def as_tensor(found: xr.Dataset) -> torch.Tensor:
    """`fitted`, as an edit carries it along."""
    return torch.from_numpy(found["fitted"].values.copy())
