"""A page for each head type: what its docstrings say, and what it is on the shipped model.

`make docs` writes them.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from functools import cache, partial
from pathlib import Path

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure

from nnheads import load, plot
from nnheads.detectors._detect import (
    ALIASES,
    STIMULI,
    calibrated,
    detector,
    ranking,
    raw_scores,
    types,
)
from nnheads.models.names import head_name
from nnheads.page.patterns import attention_of
from nnheads.patching.behaviours import BEHAVIOURS, ask_for
from nnheads.patching.knockout import curve, knockout
from nnheads.prompts.pairs import token_texts
from nnheads.runs import store

FOLDER = Path(__file__).parent / "heads"
STRONGEST = 5
QUERIES = 14  # rows of an example's picture
AROUND = 2  # tokens beside those that matter
# added to the seed of prompts on which heads are knocked out: others than they were found on
APART = 1_000_000
# The shipped model answers every needle up to 500 tokens; to see what it does when it fails, these
# are longer.
LENGTHS = {"hallucination": [600, 800, 950]}
SMALL: dict[str, dict] = {
    "repeated": {"length": 9},
    "needle": {"lengths": [60]},
    "iteration": {"steps": 8},
}
NAMED = {
    "look": "inspect"
}  # a file called inspect.py would stand in for Python's own module of that name
# what is drawn for types whose targets are only known once the model has written
SHOWN = {"generated_retrieval": "retrieval", "hallucination": "needle"}


@cache
def model():
    return load("reference")


@cache
def found() -> dict[str, tuple[xr.Dataset, xr.Dataset]]:
    """type -> scores of single prompts and of heads, on the shipped model."""
    how = {"seed": 0, "batch_size": 16, "remote": False, "quiet": True, "parts": None}
    alike = [name for name in types() if name not in LENGTHS]
    scores = raw_scores(model(), alike, n=None, **how)
    for name, lengths in LENGTHS.items():
        scores |= raw_scores(model(), [name], n=24, lengths=lengths, **how)
    return {name: (scores[name], calibrated(scores[name])) for name in types()}


def sections(text: str) -> dict[str, str]:
    """A docstring's parts: "" is what stands before the first of them."""
    parts = re.split(
        r"^(Args|Returns|Raises|Misleads|Sources?):", inspect.cleandoc(text), flags=re.MULTILINE
    )
    named = {"": parts[0]} | dict(zip(parts[1::2], parts[2::2]))
    return {
        name.rstrip("s") if name == "Sources" else name: _unwrapped(part)
        for name, part in named.items()
    }


def _unwrapped(text: str) -> str:
    """Paragraphs on a line each; what is set in below a line stays as it is."""
    first, _, rest = text.strip().partition("\n")
    found = []
    for paragraph in re.split(r"\n\s*\n", f"{first}\n{textwrap.dedent(rest)}".strip()):
        head, _, below = paragraph.partition("\n")
        lines = below.splitlines()
        if lines and all(line.startswith("    ") for line in lines):
            found.append(f"{head}\n\n```text\n{textwrap.dedent(below)}\n```")
        else:
            found.append(" ".join(paragraph.split()))
    return "\n\n".join(found)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].removesuffix(".") + "."


def page(name: str) -> str:
    """The page of a head type as Markdown."""
    module, (_, heads) = detector(name), found()[name]
    said = sections(getattr(module, name).__doc__)
    prompts = sections(STIMULI[module.STIMULUS].__doc__)
    alias = next((f", or `{alias}`" for alias, own in ALIASES.items() if own == name), "")
    behaviour = next((key for key, one in BEHAVIOURS.items() if one.head_type == name), None)
    parts = [
        f"# {title(name)}",
        f"*{_sentence(types()[name])}*",
        f'`nnheads detect {name} MODEL`, or in Python `nnheads.detect(model, "{name}")`{alias}.',
        "## What is measured",
        said[""],
        f"**Returns** {said['Returns']}",
        "## On which prompts",
        prompts[""],
        example(name),
        "## On the shipped model",
        strongest(name, heads),
        f"![{title(name)} on the shipped model]({name}-map.png)",
    ]
    if behaviour is not None:
        parts += ["## Does it matter?", *without(name, behaviour)]
    parts += ["## What misleads", _sentence(said["Misleads"]), "## Source", said["Source"]]
    return (
        "\n\n".join(parts)
        + f"\n\n---\n*Written by `make docs` from `nnheads/detectors/{name}.py`. [All"
        " types](README.md)*\n"
    )


def title(name: str) -> str:
    """The first words of a detector's file."""
    return (inspect.getdoc(detector(name)) or "").partition(":")[0]


def strongest(name: str, heads: xr.Dataset) -> str:
    """The first heads with what makes their scores believable."""
    headline = heads.attrs["headline"]
    cases = heads.attrs.get("cases_counted") or found()[name][0].sizes["batch"]
    lengths = f" of {', '.join(map(str, LENGTHS[name]))} tokens" if name in LENGTHS else ""
    null = "null" if headline != "difference" else None
    columns = ["head", headline, "95 % interval", *([null] if null else []), "q", "flagged"]
    rows = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for layer, head in ranking(heads)[:STRONGEST]:
        one = heads.sel(layer=layer, head=head)
        value, low, high = (float(one[f"{headline}{end}"]) for end in ("", "_low", "_high"))
        cells = [head_name(layer, head), f"{value:.2f}", f"{low:.2f} to {high:.2f}"]
        cells += [f"{float(one[null]):.2f}"] if null else []
        cells += [f"{float(one['q_value']):.2f}", "yes" if one["flag"] == 1 else "no"]
        rows.append(f"| {' | '.join(cells)} |")
    flagged = int((heads["flag"] == 1).sum())
    those = f"{flagged or 'no'} head{'' if flagged == 1 else 's'} of {heads['flag'].size} flagged"
    return (
        f"`{headline}`: {heads[headline].attrs['long_name']}. {cases} cases{lengths}; {those}.\n\n"
        + "\n".join(rows)
    )


def without(name: str, behaviour: str) -> list[str]:
    """What is left of the behaviour without the flagged heads."""
    heads = ranking(found()[name][1], flagged=True)
    prompts, others = ask_for(behaviour, model().tokenizer, 48, seed=APART)
    metric = BEHAVIOURS[behaviour].metric
    lost = curve(
        knockout(model(), prompts, heads, ks=[len(heads)], reference=others, metric=metric)
    ).isel(k=0)
    names = ", ".join(head_name(*head) for head in heads)
    values = [
        float(lost[key])
        for key in (f"base_{metric}", metric, "random_median", "random_lowest", "random_highest")
    ]
    table = (
        "| behaviour | intact | without them | without random heads of the same layers"
        " |\n|---|---|---|---|\n| {} ({}) | {:.2f} | {:.2f} | {:.2f} [{:.2f}, {:.2f}] |"
    )
    return [
        (
            f"Replace the output of {names} by its mean, and the behaviour that such heads are said"
            " to serve:"
        ),
        table.format(BEHAVIOURS[behaviour].about, metric.replace("_", " "), *values),
        (
            f"Median and range of {lost.sizes['draw']} random lists. `nnheads knockout --behaviour"
            f" {behaviour} MODEL`"
        ),
    ]


def example(name: str) -> str:
    """One prompt in words, with what the picture shows of it."""
    if detector(name).STIMULUS == "truth":
        caption = (
            "What the strongest head's probe says of statements to questions that it has not seen."
        )
        return f"![{caption}]({name}-example.png)\n\n{caption}"
    prompts, spans = asked(name)
    tokens = [one.strip() for one in texts(prompts)]
    query, key = spans[0][0], spans[0][1]
    head = head_name(*ranking(found()[name][1])[0])
    caption = (
        f"Where {head} looks. Frames are where a head of this type should; tokens without any"
        " attention are left out."
    )
    asks = (
        f"First question: from `{tokens[query]}` (token {query}) to `{tokens[key]}` (token {key})."
    )
    text = textwrap.fill(" ".join(tokens), 100)
    return f"An example:\n\n```text\n{text}\n```\n\n{asks}\n\n![{caption}]({name}-example.png)\n\n{caption}"


@cache
def asked(name: str) -> tuple[xr.Dataset, list[tuple[int, int, int]]]:
    """A small prompt, and (query, key start, key stop) of what is asked on it, in its order."""
    stimulus = detector(name).STIMULUS
    prompts = STIMULI[stimulus](model().tokenizer, 1, seed=0, **SMALL.get(stimulus, {}))
    own = prompts.isel(batch=0, span=prompts["kind"].values == SHOWN.get(name, name))
    spans = np.stack([own[part].values for part in ("query", "key_start", "key_stop")], 1).tolist()
    return prompts, sorted(tuple(span) for span in spans if span[0] >= 0)


def texts(prompts: xr.Dataset) -> list[str]:
    return token_texts(model().tokenizer, prompts["token"].values[0].tolist())


def pictures(name: str) -> dict[str, Figure]:
    """The heads of a type, and where the strongest looks."""
    scores, heads = found()[name]
    headline = heads.attrs["headline"]
    marked = [
        {"layer": layer, "head": head, "value": float(heads[headline].sel(layer=layer, head=head))}
        for layer, head in ranking(heads, flagged=True)
    ]
    signed = headline == "difference"
    drawn = {"map": plot.heatmap(heads[headline], title=title(name), signed=signed, marked=marked)}
    best = ranking(heads)[0]
    drawn["example"] = (
        said_of_statements(scores, best) if "decision" in scores else looks(name, best)
    )
    return {f"{name}-{part}": figure for part, figure in drawn.items()}


def looks(name: str, head: tuple[int, int]) -> Figure:
    """Attention of a head on the example, from the tokens that are asked about to those that
    matter.
    """
    prompts, spans = asked(name)
    tokens = texts(prompts)
    rows = sorted({query for query, *_ in spans})[:QUERIES]
    pattern = attention_of(model(), prompts["token"].values[0])[head] / np.float32(255)
    keys = [key for query, start, stop in spans if query in rows for key in range(start, stop)]
    near = {key + step for key in (*keys, *rows, 0) for step in range(-AROUND, AROUND + 1)}
    near |= set(np.flatnonzero(pattern[rows].max(0) > 0.1))
    columns = sorted(key for key in near if 0 <= key <= rows[-1])
    values = pattern[np.ix_(rows, columns)].astype(np.float32)
    values[np.array(columns)[None] > np.array(rows)[:, None]] = np.nan
    targets = [
        (rows.index(query), columns.index(key))
        for query, start, stop in spans
        if query in rows
        for key in range(start, stop)
    ]
    return plot.pattern(
        xr.DataArray(values, dims=("query", "key")),
        [f"{tokens[at]} {at}" for at in columns],
        title=f"{head_name(*head)} on one prompt",
        queries=[f"{tokens[at]} {at}" for at in rows],
        targets=targets,
    )


def said_of_statements(scores: xr.Dataset, head: tuple[int, int]) -> Figure:
    """What a probe says of statements in test folds, true ones apart from false ones."""
    test = 2  # the value of `part` for statements of a fold's test
    tested = (
        scores["decision"]
        .sel(layer=head[0], head=head[1])
        .where(scores["part"] == test)
        .mean("fold")
    )
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


def contents() -> str:
    """What there is to read."""
    rows = ["| command | notebook |", "|---|---|"]
    for path in sorted((FOLDER.parent.parent / "notebooks").glob("*.py")):
        heading = re.search(r"^# # (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        command = NAMED.get(path.stem, path.stem).replace("_", "-")
        rows.append(
            f"| `nnheads {command}` |"
            f" [{heading[1] if heading else command}](../notebooks/{path.stem}.ipynb) |"
        )
    about = (
        "* [Head types](heads/README.md): a page for each\n"
        "* [Extending nnheads](extending.md): a head type, a recipe, a model family\n"
        "* [Results](../results/README.md): what a run writes"
    )
    return "\n\n".join(["# Reading nnheads", about, "## Notebooks", "\n".join(rows)]) + "\n"


def index() -> str:
    """All types at a glance."""
    rows = [
        "| type | what such a head does | statistic | on the shipped model |",
        "|---|---|---|---|",
    ]
    for name, meaning in types().items():
        heads = found()[name][1]
        flagged = ranking(heads, flagged=True)[:4]
        values = heads[heads.attrs["headline"]]
        best = ", ".join(
            f"{head_name(*one)} {float(values.sel(layer=one[0], head=one[1])):.2f}"
            for one in flagged
        )
        cells = (
            f"[{name}]({name}.md)",
            meaning.removesuffix("."),
            f"`{heads.attrs['headline']}`",
            best or "none flagged",
        )
        rows.append(f"| {' | '.join(cells)} |")
    text = (
        "Each page says what is measured, on which prompts, what it finds on the shipped model, and"
        " what misleads."
    )
    return (
        "\n\n".join(
            [
                "# Head types",
                text,
                "\n".join(rows),
                "One of your own: [extending nnheads](../extending.md).",
            ]
        )
        + "\n"
    )


def pages() -> dict[str, str]:
    """File name in the folder of head types -> Markdown."""
    return {
        "../README.md": contents(),
        "README.md": index(),
        **{f"{name}.md": page(name) for name in types()},
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for name in types():
        for file, figure in pictures(name).items():
            store.write(FOLDER / f"{file}.png", partial(plot.render, figure))
    known = {f"{name}-{part}.png" for name in types() for part in ("map", "example")} | set(pages())
    for path in FOLDER.iterdir():
        if path.name not in known:  # of a type that is no more
            path.unlink()
    sys.stdout.write(f"{len(types())} head types in {FOLDER.name}/\n")


if __name__ == "__main__":
    main()
