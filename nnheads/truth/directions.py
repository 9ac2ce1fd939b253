"""Directions of truth in head outputs, the spread along them, and a guard against leaks.

    fitted = directions(z, use=fold.train, names=names, kind="mass_mean")

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
from jaxtyping import Float, Int

from nnheads.errors import BadInput, RunError
from nnheads.interventions.schema import Intervention
from nnheads.prompts.questions import said_by

SOURCE = "Li et al. 2023, arXiv 2306.03341"
KINDS = {
    "mass_mean": "mean output on true answers minus mean output on false ones",
    "probe": "weights of the head's linear probe",
    "pca": "first principal component of the questions' differences between true and false answers",
    "random": "a random direction",
}
FITTED = "questions"  # the tensor of an edit that names the questions it was fitted on
SHOWN = 5  # leaked questions that an error names
Values = Float[np.ndarray, "row head dim"]
Units = Float[np.ndarray, "head dim"]


def directions(
    z: xr.DataArray,
    *,
    use: Iterable[int],
    names: Sequence[str],
    kind: str = "mass_mean",
    weight: xr.DataArray | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Return a direction for each head, and the spread of its outputs along it.

    Args:
        z: (batch, layer, head, dim), outputs at the end of statements, with coordinates `question`
            and `label` (batch).
        use: numbers of the questions that may be used; rows of all others are not looked at.
        names: the text of every question, by its number.
        kind: a key of KINDS.
        weight: (layer, head, dim), for `probe`.
        seed: of random directions.

    Returns:
        `direction` (layer, head, dim) of length 1, towards truth; `sigma` (layer, head), the
        standard deviation of the used outputs along it; `fitted` (fitted), `question_ids` of the
        questions that gave both. A head whose direction has no length has 0 everywhere.

    Raises:
        BadInput: an unknown kind, a probe without weights, no true or no false answer among the
            questions.

    Source: Li et al. 2023, arXiv 2306.03341.
    """
    numbers = sorted(set(use))
    rows = np.flatnonzero(np.isin(z["question"].values, numbers))
    label, question = z["label"].values[rows], z["question"].values[rows]
    _check(kind, label, len(numbers))
    layers = z.transpose("layer", "batch", "head", "dim")
    shape = (layers.sizes["layer"], layers.sizes["head"], layers.sizes["dim"])
    fixed = _fixed(kind, weight, shape, seed)
    unit, sigma = np.zeros(shape), np.zeros(shape[:2])
    # one at a time: head outputs of a large model fill a file and not the memory
    for layer in range(shape[0]):
        values = layers[layer].values[rows].astype(np.float64)
        unit[layer] = _fitted(kind, values, label, question) if fixed is None else fixed[layer]
        sigma[layer] = np.einsum("bhd,hd->bh", values, unit[layer]).std(0)
    table = _labelled(unit, sigma, question_ids(names[number] for number in numbers), kind)
    return table.assign_attrs(direction=kind, seed=seed, source=SOURCE)


def _check(kind: str, label: np.ndarray, questions: int) -> None:
    if kind not in KINDS:
        raise BadInput(f"direction {kind!r} is not known; use one of {', '.join(KINDS)}")
    for value, name in ((1, "true"), (0, "false")):
        if not (label == value).any():
            raise BadInput(f"{questions} questions have no {name} answer to use")


def _fixed(
    kind: str, weight: xr.DataArray | None, shape: tuple[int, int, int], seed: int
) -> Float[np.ndarray, "layer head dim"] | None:
    """Return directions that do not come from outputs: random ones, or those of probes."""
    if kind == "random":
        return random_directions(shape, seed)
    if kind != "probe":
        return None
    if weight is None:
        raise BadInput("direction 'probe' needs the weights of a probe; fit one, or use mass_mean")
    return np.stack([of_length_one(one.values) for one in weight.transpose("layer", "head", "dim")])


def _fitted(kind: str, values: Values, label: np.ndarray, question: np.ndarray) -> Units:
    """Return the directions of one layer's heads."""
    if kind == "pca":
        return leading(values, label, question)
    return of_length_one(_difference(values, label == 1, label == 0))


def _difference(values: Values, true: np.ndarray, false: np.ndarray) -> Units:
    """Return the mean of some rows minus that of others."""
    return values[true].mean(0) - values[false].mean(0)


def _labelled(
    unit: Float[np.ndarray, "layer head dim"],
    sigma: Float[np.ndarray, "layer head"],
    fitted: Int[np.ndarray, " fitted"],
    kind: str,
) -> xr.Dataset:
    about = {"long_name": KINDS[kind], "units": "1", "source": SOURCE}
    spread = {"long_name": "standard deviation along the direction", "units": "activation"}
    spread["source"] = SOURCE
    meaning = "questions that gave direction and spread, by the hash of their text"
    data = {
        "direction": (("layer", "head", "dim"), unit.astype("float32"), about),
        "sigma": (("layer", "head"), sigma.astype("float32"), spread),
        "fitted": ("fitted", fitted, {"long_name": meaning, "units": "1"}),
    }
    return xr.Dataset(data, {"layer": range(unit.shape[0]), "head": range(unit.shape[1])})


def of_length_one(values: Float[np.ndarray, "... dim"]) -> Float[np.ndarray, "... dim"]:
    """Return vectors of length 1; what has no length stays 0."""
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.divide(values, length, out=np.zeros(values.shape), where=length > 0)


def random_directions(shape: tuple[int, ...], seed: int) -> Float[np.ndarray, "..."]:
    """Return random directions, each of length 1 along the last axis."""
    return of_length_one(np.random.default_rng(seed).standard_normal(shape))


def leading(values: Values, label: np.ndarray, question: np.ndarray) -> Units:
    """Return the first principal component of what true answers have more than false ones.

    It is taken about 0 over the questions, and points the way that most of the differences go.

    Raises:
        BadInput: no question with both a true and a false answer.
    """
    differences = _differences(values, label, question)
    _, _, right = np.linalg.svd(differences.transpose(1, 0, 2), full_matrices=False)
    first = right[:, 0]
    along = np.einsum("qhd,hd->h", differences, first)
    varies = np.abs(differences).max((0, 2)) > 0
    return first * np.where(along < 0, -1, 1)[:, None] * varies[:, None]


def _differences(
    values: Values, label: np.ndarray, question: np.ndarray
) -> Float[np.ndarray, "question head dim"]:
    """Return true minus false, of the questions that have answers of both kinds."""
    both = []
    for number in np.unique(question):
        true, false = ((question == number) & (label == kind) for kind in (1, 0))
        if true.any() and false.any():
            both.append(_difference(values, true, false))
    if not both:
        raise BadInput(
            "no question has both a true and a false answer; their differences have no main"
            " direction"
        )
    return np.stack(both)


def question_ids(names: Iterable[str]) -> Int[np.ndarray, " question"]:
    """Return what questions are known by across files: 64 bits of a hash of their text.

    Spaces, capitals and the marks at the end make no difference.
    """
    digests = [hashlib.sha256(said_by(name).encode()).digest()[:8] for name in names]
    return np.array([int.from_bytes(one, "big", signed=True) for one in digests], np.int64)


def fitted_on(fitted: xr.Dataset | Intervention) -> Int[np.ndarray, " question"] | None:
    """Return `question_ids` that directions or an edit were fitted on.

    None for an edit that does not say it.
    """
    if isinstance(fitted, xr.Dataset):
        return fitted["fitted"].values
    tensor = fitted.tensors.get(FITTED)
    return None if tensor is None else tensor.cpu().numpy().astype(np.int64)


def guard(fitted: xr.Dataset | Intervention, tested: Sequence[str]) -> None:
    """Refuse to test directions, or an edit along them, on questions that they were fitted on.

    Raises:
        RunError: naming some of the questions that leaked.
    """
    own = fitted_on(fitted)
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


def as_tensor(fitted: xr.Dataset) -> Int[torch.Tensor, " question"]:
    """Return `fitted`, as an edit carries it along."""
    return torch.from_numpy(fitted["fitted"].values.copy())
