"""How strongly to steer: the same intervention at several strengths, its effect and its cost.

    scores = sweep(model, steering(directions, 4), prompts, neutral, strengths=[0, 1, 2])
    reduced(scores)

The effect is what it does to texts toward and away; the cost is what it does to fluency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nnheads import stats
from nnheads.errors import BadInput
from nnheads.interventions.likelihood import compare
from nnheads.interventions.massive import warn_of_prompts
from nnheads.interventions.schema import Intervention
from nnheads.interventions.steering_edits import randomised, scaled
from nnheads.interventions.steering_written import WHERE, Writing
from nnheads.interventions.texts import in_halves, read_texts
from nnheads.runs import batches

APART = 1_000_000  # between the seeds of draws, so that runs with neighbouring seeds share none
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
LEANING = {
    "long_name": "change of log probability by steering, weighed by sort of text",
    "units": "nat",
}
Read = Callable[[xr.Dataset], xr.Dataset]


def sweep(
    model: Any,
    intervention: Intervention,
    prompts: Sequence[str],
    neutral: Sequence[str],
    *,
    strengths: Sequence[float],
    toward: Sequence[str] = (),
    away: Sequence[str] = (),
    directions: xr.Dataset | None = None,
    layer: int = -1,
    new_tokens: int = 30,
    sample: dict[str, Any] | None = None,
    draws: int = 5,
    parts: Path | None = None,
    batch_size: int = 16,
    seed: int = 0,
    quiet: bool = True,
) -> xr.Dataset:
    """Write, and read texts, at each strength.

    Args:
        intervention: what it adds is scaled; a strength of 0 leaves the model as it is.
        prompts: continued. neutral: texts whose predictions should stay as they are.
        toward, away: texts that should become likelier, and less likely; best such that gave no
            direction. All these texts are split: the first half of the tokens is the prompt, the
            rest is measured.
        directions, layer: what `direction` gave, to see where the written text lies along it.
        new_tokens, sample: as for `generate`.
        draws: random directions, each of which reads the texts toward and away once more at every
            strength but 0.
        parts, batch_size, quiet: as for `batches.run`.
        seed: of the random directions.

    Returns:
        (strength, prompt): `written`, `surprisal` (nats per token, of what is written, to the
        unsteered model; NaN where nothing is) and `projection` on the direction, 0 at the mean of
        its texts away and 1 at that toward. (strength, neutral): `kl`, without from with the edits,
        nats per token. (strength, text): `change` of log probability per token, weighed so that its
        mean is the mean change of texts toward minus that of texts away. (strength, draw, text):
        `control`, the same for random directions of the same length.

    Raises:
        BadInput: no draw, and what the model or the texts do not have.
    """
    if draws < 1:
        raise BadInput(f"{draws} draws of a random direction are too few; give at least 1")
    continued, untouched = read_texts(model.tokenizer, prompts), in_halves(model, neutral)
    warn_of_prompts(model, continued, untouched)
    steps = _Sweep(
        model=model,
        intervention=intervention,
        prompts=continued,
        neutral=untouched,
        judged=in_halves(model, [*toward, *away]) if toward and away else None,
        toward=len(toward),
        write=Writing(model, directions, layer, new_tokens, sample),
        seeds=[seed + APART * draw for draw in range(draws)],
        batches={"parts": parts, "size": batch_size, "quiet": quiet},
    )
    each = [steps.at(strength) for strength in strengths]
    about = {"long_name": "strength"}
    axis = xr.DataArray(list(strengths), dims="strength", name="strength", attrs=about)
    texts = {"prompt_text": ("prompt", list(prompts)), "neutral_text": ("neutral", list(neutral))}
    return xr.concat(each, axis, combine_attrs="override").assign_coords(texts)


@dataclass(frozen=True)
class _Sweep:
    """What is written and read at each strength."""

    model: Any
    intervention: Intervention
    prompts: xr.Dataset
    neutral: xr.Dataset
    judged: xr.Dataset | None  # texts toward, then texts away
    toward: int
    write: Writing
    seeds: list[int]  # of the random directions
    batches: dict[str, Any]

    def at(self, strength: float) -> xr.Dataset:
        """Return everything at one strength."""
        tables = {}
        for name, prompts, read in self._readings(strength):
            table = batches.run(
                read,
                prompts,
                name=f"{name}-{strength:g}",
                title=f"{name}, strength {strength:g}",
                model=self.model,
                **self.batches,
            )
            tables[name] = table.reset_coords(drop=True).drop_vars("batch")
        kl = tables["neutral"]["kl"].rename(batch="neutral")
        scores = tables["written"].rename(batch="prompt").assign(kl=kl)
        if self.judged is None:
            return scores
        # at 0 nothing is added, so there is no direction either
        names = [f"control-{draw}" if strength else "texts" for draw in range(len(self.seeds))]
        controls = [leaning(tables[name], self.toward) for name in names]
        change = leaning(tables["texts"], self.toward)
        return scores.assign(change=change, control=xr.concat(controls, "draw"))

    def _readings(self, strength: float) -> Iterator[tuple[str, xr.Dataset, Read]]:
        """Go through the name, the texts and the function of each reading."""
        edits = scaled(self.intervention, strength) if strength else Intervention()
        read = partial(compare, self.model, edits)
        yield "written", self.prompts, partial(self.write, edits)
        yield "neutral", self.neutral, read
        if self.judged is None:
            return
        yield "texts", self.judged, read
        for draw, seed in enumerate(self.seeds if strength else ()):
            control = scaled(randomised(self.intervention, seed), strength)
            yield f"control-{draw}", self.judged, partial(compare, self.model, control)


def leaning(likely: xr.Dataset, toward: int) -> xr.DataArray:
    """Return the change of each text's log probability, weighed by its sort (text).

    Args:
        likely: of `compare` (batch). toward: the first so many count for, the others against.
    """
    count = likely.sizes["batch"]
    weights = np.where(np.arange(count) < toward, count / toward, -count / (count - toward))
    change = (likely["log_probability"] - likely["original"]).rename(batch="text") * weights
    sort = ("text", (weights > 0).astype("int8"))
    return change.astype("float32").assign_attrs(LEANING).assign_coords(toward=sort)


def reduced(scores: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """Return CURVE of a sweep (strength): means with their intervals.

    Of `random` it is the mean over draws and texts, with `random_lowest` and `random_highest` over
    the draws.

    Args:
        seed: of the intervals.
    """
    tables = [
        _curve(name, scores, seed) for name, (source, _, _) in CURVE.items() if source in scores
    ]
    table = xr.merge(tables, combine_attrs="drop_conflicts")
    return table.assign_coords(strength=scores["strength"])


def _curve(name: str, scores: xr.Dataset, seed: int) -> xr.Dataset:
    """Return one of CURVE (strength)."""
    source, dim, about = CURVE[name]
    values = scores[source].reset_coords(drop=True).rename(name).assign_attrs(long_name=about)
    if name == "random":
        return _over_draws(values.mean(dim, keep_attrs=True))
    table = stats.mean(values, dim, seed=seed)
    return _raised(table) if name == "perplexity" else table


def _raised(table: xr.Dataset) -> xr.Dataset:
    """Return perplexity, where the table has surprisal in nats."""
    raised = {key: one.copy(data=np.exp(one.values)) for key, one in table.items()}
    return xr.Dataset({key: one.assign_attrs(units="1") for key, one in raised.items()})


def _over_draws(values: xr.DataArray) -> xr.Dataset:
    """Return the mean of (strength, draw) over draws, and the lowest and the highest of them."""
    table, about = xr.Dataset(), values.attrs
    for end, reduction in {"": "mean", "_lowest": "min", "_highest": "max"}.items():
        name = about["long_name"] + (f"; {end[1:]} of the draws" if end else "")
        one = getattr(values, reduction)("draw").astype("float32")
        table[f"random{end}"] = one.assign_attrs(
            long_name=name, units=about["units"], cell_methods=f"draw: {reduction}"
        )
    return table
