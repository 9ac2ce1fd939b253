"""The pictures on the pages of head types: what each is on the shipped model, and on which prompt.

`docs/pages.py` writes them. What both need of the shipped model is measured here, once.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure

from nnheads import load, plot
from nnheads.detectors._catalog import head_type, types
from nnheads.detectors._detect import calibrated, ranking
from nnheads.detectors._scores import raw_scores
from nnheads.models.names import head_name
from nnheads.page.patterns import attention_of
from nnheads.prompts.pairs import token_texts

QUERIES = 14  # rows of an example's picture
AROUND = 2  # tokens beside those that matter
# The shipped model answers every needle up to 500 tokens; to see what it does when it fails, these
# are longer.
LENGTHS = {"hallucination": [600, 800, 950]}
SMALL: dict[str, dict] = {
    "repeated": {"length": 9},
    "needle": {"lengths": [60]},
    "iteration": {"steps": 8},
}
# what is drawn for types whose targets are only known once the model has written
SHOWN = {"generated_retrieval": "retrieval", "hallucination": "needle"}
TESTED = 2  # the value of `part` for statements of a fold's test
Span = tuple[int, int, int]  # query, key start, key stop


@cache
def model():
    return load("reference")


@cache
def measured() -> dict[str, tuple[xr.Dataset, xr.Dataset]]:
    """Return scores of single prompts and of heads on the shipped model, by type."""
    alike = [name for name in types() if name not in LENGTHS]
    scores = raw_scores(model(), alike, seed=0, batch_size=16)
    for name, lengths in LENGTHS.items():
        scores |= raw_scores(model(), name, n=24, lengths=lengths, seed=0, batch_size=16)
    return {name: (scores[name], calibrated(scores[name])) for name in types()}


@cache
def small_prompt(name: str) -> tuple[xr.Dataset, list[Span]]:
    """Return a small prompt, and (query, key start, key stop) of what is asked on it, in order."""
    value = head_type(name)
    prompts = value.prompts(model().tokenizer, 1, seed=0, **SMALL.get(value.stimulus, {}))
    kind = SHOWN.get(name, value.span)
    spans = prompts.isel(batch=0, span=prompts["kind"].values == kind)
    parts = [spans[part].values for part in ("query", "key_start", "key_stop")]
    return prompts, sorted(tuple(span) for span in np.stack(parts, 1).tolist() if span[0] >= 0)


def texts(prompts: xr.Dataset) -> list[str]:
    return token_texts(model().tokenizer, prompts["token"].values[0].tolist())


def pictures(name: str, title: str = "") -> dict[str, Figure]:
    """Return the heads of a type, and where the strongest looks, by the names of their files."""
    scores, heads = measured()[name]
    headline = heads.attrs["headline"]
    signed = headline == "difference"
    marked = _flagged(heads)
    framed = "heads beyond chance"
    drawn = plot.heatmap(heads[headline], title=title, signed=signed, marked=marked, framed=framed)
    best = ranking(heads)[0]
    example = said_of_statements(scores, best) if "decision" in scores else looks(name, best)
    return {f"{name}-map": drawn, f"{name}-example": example}


def _flagged(heads: xr.Dataset) -> list[dict]:
    values = heads[heads.attrs["headline"]]
    return [
        {"layer": layer, "head": head, "value": float(values.sel(layer=layer, head=head))}
        for layer, head in ranking(heads, flagged=True)
    ]


def looks(name: str, head: tuple[int, int]) -> Figure:
    """Draw a head's attention from the tokens that are asked about to those that matter."""
    prompts, spans = small_prompt(name)
    tokens = texts(prompts)
    rows = sorted({query for query, *_ in spans})[:QUERIES]
    shown = [(query, key) for query, *keys in spans if query in rows for key in range(*keys)]
    pattern = attention_of(model(), prompts["token"].values[0])[head] / np.float32(255)
    columns = _columns(pattern, rows, [key for _, key in shown])
    values = pattern[np.ix_(rows, columns)].astype(np.float32)
    values[np.array(columns)[None] > np.array(rows)[:, None]] = np.nan
    return plot.pattern(
        xr.DataArray(values, dims=("query", "key")),
        [f"{tokens[at]} {at}" for at in columns],
        title=f"{head_name(*head)} on one prompt",
        queries=[f"{tokens[at]} {at}" for at in rows],
        targets=[(rows.index(query), columns.index(key)) for query, key in shown],
    )


def _columns(pattern: np.ndarray, rows: list[int], keys: list[int]) -> list[int]:
    """Return the tokens that matter: keys and queries with their neighbours, and what is seen."""
    steps = range(-AROUND, AROUND + 1)
    near = {key + step for key in (*keys, *rows, 0) for step in steps}
    near |= set(np.flatnonzero(pattern[rows].max(0) > 0.1))
    return sorted(key for key in near if 0 <= key <= rows[-1])


def said_of_statements(scores: xr.Dataset, head: tuple[int, int]) -> Figure:
    """Draw what a probe says of statements in test folds, true ones apart from false ones."""
    decision = scores["decision"].sel(layer=head[0], head=head[1])
    tested = decision.where(scores["part"] == TESTED).mean("fold")
    figure = Figure(figsize=(6.4, 3), layout="constrained")
    axes = figure.add_subplot()
    kind = np.where(scores["label"].values == 1, "true", "false")
    sns.histplot(x=tested.values, hue=kind, hue_order=["false", "true"], bins=40, ax=axes)
    axes.axvline(0, color="0.4", lw=0.8)
    axes.set(
        xlabel="decision value of the probe [1]",
        ylabel="statements",
        title=f"{head_name(*head)}, unseen questions",
    )
    return figure
