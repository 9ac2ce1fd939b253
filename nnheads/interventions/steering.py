"""How strongly to steer: the same intervention at several strengths, its effect against what it
does to fluency.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nnheads import stats
from nnheads.errors import BadInput
from nnheads.interventions.generate import generate, read_texts
from nnheads.interventions.likelihood import compare, continuations, in_halves
from nnheads.interventions.schema import ANSWER, Intervention
from nnheads.interventions.steering_directions import (
    activations_of,
    projections,
    randomised,
    scaled,
)
from nnheads.runs import batches

APART = 1_000_000  # between the seeds of draws, so that runs with neighbouring seeds share none
WHERE = "where what is written lies, from texts away (0) to toward (1)"
# name -> what it is the mean of, over what, and what it says
CURVE = {
    "effect": (
        "change",
        "text",
        "log odds of texts toward against away, per token: change by steering",
    ),
    "random": ("control", "text", "effect of random directions of the same length"),
    "kl": ("kl", "neutral", "KL divergence of the steered model on neutral text, per token"),
    "projection": ("projection", "prompt", WHERE),
    "perplexity": ("surprisal", "prompt", "perplexity of what is written, to the unsteered model"),
}


def sweep(
    model,
    intervention: Intervention,
    prompts: Sequence[str],
    neutral: Sequence[str],
    *,
    strengths: Sequence[float],
    toward: Sequence[str] = (),
    away: Sequence[str] = (),
    found: xr.Dataset | None = None,
    layer: int = -1,
    new_tokens: int = 30,
    sample: dict[str, Any] | None = None,
    draws: int = 5,
    parts: Path | None = None,
    batch_size: int = 16,
    seed: int = 0,
    quiet: bool = True,
) -> xr.Dataset:
    """Write, and read given texts, at each strength.

    Args:
        intervention: what it adds is scaled; a strength of 0 leaves the model as it is.
        prompts: continued. neutral: texts whose predictions should stay as they are.
        toward, away: texts that should become likelier, and less likely; best such that gave no
            direction. All given texts are split: the first half of the tokens is the prompt, the
                rest is measured.
        found, layer: what `directions.direction` found, to see where the written text lies along
            it.
        draws: random directions, each of which reads the texts toward and away once more at every
            strength but 0.
        new_tokens, sample: as for `generate`. parts, batch_size, quiet: as for `batches.run`.

    Returns:
        (strength, prompt): `written`, `surprisal` (nats per token, of what is written, to the
        unsteered model; NaN where nothing is) and `projection` on the direction, 0 at the mean of
        its texts away and 1 at that toward. (strength, neutral): `kl`, without from with the edits,
            nats per token. (strength, text): `change` of log
        probability per token, weighed so that its mean is the mean change of texts toward minus
        that of texts away. (strength, draw, text): `control`, the same for random directions of the
            same length.

    Raises:
        BadInput: no draw, and what the model or the texts do not have.
    """
    if draws < 1:
        raise BadInput(f"{draws} draws of a random direction are too few; give at least 1")
    asked, plain = read_texts(model.tokenizer, prompts), in_halves(model, neutral)
    judged = in_halves(model, [*toward, *away]) if toward and away else None
    each = []
    for strength in strengths:
        edits = scaled(intervention, strength) if strength else Intervention()
        write = partial(
            continued, model, edits, found=found, layer=layer, new_tokens=new_tokens, sample=sample
        )
        read = partial(compare, model, edits)
        jobs = {"written": (asked, write), "neutral": (plain, read), "texts": (judged, read)}
        for draw in range(draws if strength else 0):
            other = scaled(randomised(intervention, seed + APART * draw), strength)
            jobs[f"control-{draw}"] = (judged, partial(compare, model, other))
        done = {
            name: (
                batches.run(
                    job,
                    given,
                    parts=parts,
                    size=batch_size,
                    quiet=quiet,
                    name=f"{name}-{strength:g}",
                    title=f"{name}, strength {strength:g}",
                    model=model,
                )
                .reset_coords(drop=True)
                .drop_vars("batch")
            )
            for name, (given, job) in jobs.items()
            if given is not None
        }
        one = (
            done["written"]
            .rename(batch="prompt")
            .assign(kl=done["neutral"]["kl"].rename(batch="neutral"))
        )
        if judged is not None:
            names = [
                f"control-{draw}" if strength else "texts" for draw in range(draws)
            ]  # at 0 nothing is added
            one["change"] = leaning(done["texts"], len(toward))
            one["control"] = xr.concat([leaning(done[name], len(toward)) for name in names], "draw")
        each.append(one)
    axis = xr.DataArray(
        list(strengths), dims="strength", name="strength", attrs={"long_name": "strength"}
    )
    scores = xr.concat(each, axis, combine_attrs="override")
    return scores.assign_coords(
        prompt_text=("prompt", list(prompts)), neutral_text=("neutral", list(neutral))
    )


def continued(
    model,
    edits: Intervention,
    part: xr.Dataset,
    *,
    found: xr.Dataset | None,
    layer: int,
    new_tokens: int,
    sample,
) -> xr.Dataset:
    """What is written with the edits, and what the model itself, without them, says of it: (batch)."""
    new = generate(model, edits, part, new_tokens=new_tokens, original=False, sample=sample)
    asked = [row[mask > 0].tolist() for row, mask in zip(part["token"].values, part["mask"].values)]
    rows = [[*own, *more[more >= 0].tolist()] for own, more in zip(asked, new.ids)]
    whole = continuations(model, rows, list(map(len, asked)))
    surprisal = -compare(model, Intervention(), whole)["original"].values
    about = {"long_name": "surprisal of what is written, to the unsteered model", "units": "nat"}
    data = {
        "written": ("batch", np.array(new.texts, object), {"long_name": "what is written"}),
        "surprisal": ("batch", surprisal, about),
    }
    if found is not None:
        read = activations_of(model, whole, site=found.attrs["site"], layers=[layer], at=ANSWER)
        place = projections(found, layer, read[:, 0]).astype("float32")
        data["projection"] = ("batch", place, {"long_name": WHERE, "units": "1"})
    return xr.Dataset(data, {"batch": part["batch"]})


def leaning(likely: xr.Dataset, toward: int) -> xr.DataArray:
    """Change of each text's log probability, the first so many counted for, the others against."""
    count = likely.sizes["batch"]
    weights = np.where(np.arange(count) < toward, count / toward, -count / (count - toward))
    change = (likely["log_probability"] - likely["original"]).rename(batch="text") * weights
    about = {
        "long_name": "change of log probability by steering, weighed by sort of text",
        "units": "nat",
    }
    return (
        change.astype("float32")
        .assign_attrs(about)
        .assign_coords(toward=("text", (weights > 0).astype("int8")))
    )


def reduced(scores: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """CURVE of a sweep: (strength), means with their intervals; of `random` the mean over draws and
    texts, with `random_lowest` and `random_highest` over the draws."""
    tables = []
    for name, (source, dim, about) in CURVE.items():
        if source not in scores:
            continue
        values = scores[source].reset_coords(drop=True).rename(name).assign_attrs(long_name=about)
        if name == "random":
            tables.append(over_draws(values.mean(dim, keep_attrs=True)))
            continue
        table = stats.mean(values, dim, seed=seed)
        if name == "perplexity":
            raised = {key: one.copy(data=np.exp(one.values)) for key, one in table.items()}
            table = xr.Dataset({key: one.assign_attrs(units="1") for key, one in raised.items()})
        tables.append(table)
    return xr.merge(tables, combine_attrs="drop_conflicts").assign_coords(
        strength=scores["strength"]
    )


def over_draws(values: xr.DataArray) -> xr.Dataset:
    """Mean of (strength, draw) over draws, and the lowest and the highest of them."""
    found, about = xr.Dataset(), values.attrs
    for end, how in {"": "mean", "_lowest": "min", "_highest": "max"}.items():
        name = about["long_name"] + (f"; {end[1:]} of the draws" if end else "")
        one = getattr(values, how)("draw").astype("float32")
        found[f"random{end}"] = one.assign_attrs(
            long_name=name, units=about["units"], cell_methods=f"draw: {how}"
        )
    return found
