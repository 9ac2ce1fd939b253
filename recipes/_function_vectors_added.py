"""Function vectors, and how questions are answered once they are added."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    import xarray as xr
    from nnheads.recipes._function_vectors_prompts import Trial

REFERENCES = "Todd et al. 2024, arXiv 2310.15213"
DRAWS = 3  # random sets of heads that the function vector is compared with
ADDED = {
    "before": "as they are",
    "shown": "with the function vector",
    "shuffled": "with that of shuffled examples",
    "random": f"with that of random heads, mean of {DRAWS} draws",
}
Head = tuple[int, int]


def vectors_of(
    trial: Trial, outputs: dict[str, torch.Tensor], heads: xr.Dataset, best: list[Head]
) -> dict[str, torch.Tensor]:
    """Return function vectors [task, d_model]; for comparison those of shuffled examples, and of
    random heads that are not among the best.
    """
    from nnheads.patching.function_vectors import function_vectors

    model = trial.run.model
    vectors = {kind: function_vectors(model, outputs[kind], best) for kind in ("shown", "shuffled")}
    drawn = random_heads(heads["aie"].shape, best, trial.run.facts["seed"])
    for number, members in enumerate(drawn):
        vectors[f"random-{number}"] = function_vectors(model, outputs["shown"], members)
    return vectors


def random_heads(shape: tuple[int, ...], best: list[Head], seed: int) -> list[list[Head]]:
    """Return random sets of as many heads, none of which is among the best."""
    import numpy as np

    rest = [head for head in np.ndindex(*shape) if head not in best]
    generator, count = np.random.default_rng(seed), min(len(best), len(rest))
    numbers = [generator.choice(len(rest), count, replace=False) for _ in range(DRAWS)]
    return [[rest[number] for number in each] for each in numbers]


def added(
    trial: Trial, questions: xr.Dataset, vectors: dict[str, torch.Tensor]
) -> dict[str, xr.DataArray]:
    """Return how questions are answered before, and after each sort of vector is added at each
    layer: (batch, layer), 0 or 1, of random heads the mean over draws.
    """
    from nnheads.patching.function_vectors import add_vectors

    def adding(vector: torch.Tensor) -> Callable[[xr.Dataset], xr.Dataset]:
        return lambda part: add_vectors(trial.run.model, part, vector)

    found = {
        kind: trial.measure(
            adding(vector), questions, name=f"added-{kind}", title=f"vectors, {kind}"
        )
        for kind, vector in vectors.items()
    }
    after = {kind: one["effect"] + one["base"] for kind, one in found.items()}
    random = sum(after.pop(f"random-{number}") for number in range(DRAWS)) / DRAWS
    return {"before": found["shown"]["base"], **after, "random": random}


def labelled(vector: torch.Tensor) -> tuple[tuple[str, str], Any, dict[str, str]]:
    """Return function vectors as a variable (task, width)."""
    about = {
        "long_name": "function vector: sum of W_O z over the best heads",
        "units": "1",
        "source": REFERENCES,
    }
    return ("task", "width"), vector.numpy(), about


def by_layer(answers: dict[str, xr.DataArray], seed: int) -> xr.Dataset:
    """Return the share of questions answered right before and after each sort of vector is added,
    with intervals over tasks; and the same question by question.
    """
    import xarray as xr

    from nnheads.patching.task_averages import over_tasks

    parts = []
    for kind, values in answers.items():
        about = {
            "long_name": f"share of questions answered right {ADDED[kind]}",
            "units": "1",
            "source": REFERENCES,
        }
        share = values.astype("float32").rename(f"accuracy_{kind}").assign_attrs(about)
        each = share.rename(f"right_{kind}").rename(batch="question")
        parts += [over_tasks(share, seed=seed), each.to_dataset()]
    return xr.merge(parts, combine_attrs="drop_conflicts", compat="override")
