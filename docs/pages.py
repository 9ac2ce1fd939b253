"""A page for each head type: what its value says, and what it is on the shipped model.

`make docs` writes them.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

import xarray as xr
from head_pictures import LENGTHS, measured, model, pictures, small_prompt, texts
from matplotlib.figure import Figure
from page_text import sections, sentence, table, unwrapped

from nnheads import plot
from nnheads.detectors._catalog import ALIASES, head_type, types
from nnheads.detectors._detect import ranking
from nnheads.detectors._head_type import HeadType
from nnheads.models.names import head_name
from nnheads.patching.behaviours import BEHAVIOURS, ask_for
from nnheads.patching.knockout import curve, knockout
from nnheads.runs import store

FOLDER = Path(__file__).parent / "heads"
STRONGEST = 5
PROMPTS = 24  # on which heads are knocked out
# added to the seed of prompts on which heads are knocked out: others than they were found on
APART = 1_000_000
NAMED = {
    "look": "inspect"
}  # a file called inspect.py would stand in for Python's own module of that name
LEFT = ("intact", "without them", "without random heads of the same layers")
CONTENTS = """\
* [SmolLM2, as nnheads sees it](gallery.md): what is found in a real language model
* [Head types](heads/README.md): a page for each
* [Extending nnheads](extending.md): a head type, a recipe, a model family
* [Results](../results/README.md): what a run writes
* [Interventions](interventions.md): nine scripts, from an edit to an alignment
* [Model families](families.md): which types of transformers hold, and why others do not
* [What a command costs](cost.md): seconds and memory on SmolLM2
* [Glossary](glossary.md): one meaning for each word"""


def page(name: str) -> str:
    """Return the page of a head type as Markdown."""
    value, heads = head_type(name), measured()[name][1]
    parts = [
        f"# {title(name)}",
        f"*{sentence(types()[name])}*",
        f'`nnheads detect {name} MODEL`, or in Python `nnheads.detect(model, "{name}")`'
        f"{alias_of(name)}.",
        "## What is measured",
        what_is_measured(name),
        f"**Returns** {value.returns}",
        f"**Null** {value.null}",
        "## On which prompts",
        sections(str(value.prompts.__doc__))[""],
        example(name),
        "## On the shipped model",
        strongest(name, heads),
        f"![{title(name)} on the shipped model]({name}-map.png)",
        *does_it_matter(name, heads),
        "## What misleads",
        sentence(value.misleads),
        "## Source",
        source(value),
        f"---\n*Written by `make docs` from `nnheads/detectors/{name}.py`. [All types](README.md)*",
    ]
    return "\n\n".join(parts) + "\n"


def alias_of(name: str) -> str:
    alias = next((alias for alias, own in ALIASES.items() if own == name), None)
    return f", or `{alias}`" if alias else ""


def docstring(name: str) -> str:
    return inspect.getdoc(sys.modules[f"nnheads.detectors.{head_type(name).name}"]) or ""


def title(name: str) -> str:
    """Return the first words of a detector's file."""
    return docstring(name).partition(":")[0]


def what_is_measured(name: str) -> str:
    """Return what stands below the first paragraph of a detector's file."""
    return unwrapped(docstring(name).partition("\n\n")[2])


def source(value: HeadType) -> str:
    return ", ".join(part for part in (value.source, value.source_details) if part) + "."


def strongest(name: str, heads: xr.Dataset) -> str:
    """Return the first heads with what makes their scores believable."""
    headline = heads.attrs["headline"]
    cases = heads.attrs.get("cases_counted") or measured()[name][0].sizes["batch"]
    lengths = f" of {', '.join(map(str, LENGTHS[name]))} tokens" if name in LENGTHS else ""
    nulls = [] if headline == "difference" else ["null"]
    columns = ["head", headline, "95 % interval", *nulls, "q", "flagged"]
    rows = [_cells(heads, head, headline, nulls) for head in ranking(heads)[:STRONGEST]]
    flagged = int((heads["flag"] == 1).sum())
    plural = "" if flagged == 1 else "s"
    said = f"{flagged or 'no'} head{plural} of {heads['flag'].size} flagged"
    about = f"`{headline}`: {heads[headline].attrs['long_name']}. {cases} cases{lengths}; {said}."
    return f"{about}\n\n{table(columns, rows)}"


def _cells(heads: xr.Dataset, head: tuple[int, int], headline: str, nulls: list[str]) -> list[str]:
    one = heads.sel(layer=head[0], head=head[1])
    value, low, high = (float(one[f"{headline}{end}"]) for end in ("", "_low", "_high"))
    compared = [f"{float(one[null]):.2f}" for null in nulls]
    flagged = "yes" if one["flag"] == 1 else "no"
    interval = f"{low:.2f} to {high:.2f}"
    q = f"{float(one['q_value']):.2f}"
    return [head_name(*head), f"{value:.2f}", interval, *compared, q, flagged]


def does_it_matter(name: str, heads: xr.Dataset) -> list[str]:
    """Return what is left of the type's behaviour, if it has one, without the flagged heads."""
    behaviour = next((key for key, one in BEHAVIOURS.items() if one.head_type == name), None)
    if behaviour is None:
        return []
    flagged = ranking(heads, flagged=True)
    names = ", ".join(head_name(*head) for head in flagged)
    lost, metric = without(flagged, behaviour)
    about = f"{BEHAVIOURS[behaviour].about} ({metric.replace('_', ' ')})"
    intact, left, median, lowest, highest = (
        f"{float(lost[key]):.2f}"
        for key in (f"base_{metric}", metric, "random_median", "random_lowest", "random_highest")
    )
    row = [about, intact, left, f"{median} [{lowest}, {highest}]"]
    return [
        "## Does it matter?",
        f"Replace the output of {names} by its mean, and the behaviour that such heads are said to"
        " serve:",
        table(["behaviour", *LEFT], [row]),
        f"Median and range of {lost.sizes['draw']} random lists. `nnheads knockout --behaviour"
        f" {behaviour} MODEL`",
    ]


def without(heads: list[tuple[int, int]], behaviour: str) -> tuple[xr.Dataset, str]:
    """Return the curve's last point without these heads, and its metric."""
    metric = BEHAVIOURS[behaviour].metric
    prompts, others = ask_for(behaviour, model().tokenizer, PROMPTS, seed=APART)
    options = {"ks": [len(heads)], "reference": others, "metric": metric}
    return curve(knockout(model(), prompts, heads, **options)).isel(k=0), metric


def example(name: str) -> str:
    """Return one prompt in words, with what the picture shows of it."""
    if head_type(name).learn is not None:
        caption = (
            "What the strongest head's probe says of statements to questions that it has not seen."
        )
        return _picture(caption, name)
    prompts, spans = small_prompt(name)
    tokens = [one.strip() for one in texts(prompts)]
    query, key, _ = spans[0]
    head = head_name(*ranking(measured()[name][1])[0])
    caption = (
        f"Where {head} looks. Frames are where a head of this type should; tokens without any"
        " attention are left out."
    )
    asks = (
        f"First question: from `{tokens[query]}` (token {query}) to `{tokens[key]}` (token {key})."
    )
    text = textwrap.fill(" ".join(tokens), 100)
    return f"An example:\n\n```text\n{text}\n```\n\n{asks}\n\n{_picture(caption, name)}"


def _picture(caption: str, name: str) -> str:
    return f"![{caption}]({name}-example.png)\n\n{caption}"


def contents() -> str:
    """Return what there is to read."""
    paths = sorted((FOLDER.parent.parent / "notebooks").glob("*.py"))
    commands = table(["command", "notebook"], [_notebook(path) for path in paths])
    return "\n\n".join(["# Reading nnheads", CONTENTS, "## Notebooks", commands]) + "\n"


def _notebook(path: Path) -> list[str]:
    heading = re.search(r"^# # (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    command = NAMED.get(path.stem, path.stem).replace("_", "-")
    link = f"[{heading[1] if heading else command}](../notebooks/{path.stem}.ipynb)"
    return [f"`nnheads {command}`", link]


def index() -> str:
    """Return all types at a glance."""
    columns = ["type", "what such a head does", "statistic", "on the shipped model"]
    parts = [
        "# Head types",
        "Each page says what is measured, on which prompts, what it finds on the shipped model, and"
        " what misleads.",
        table(columns, [_entry(name, meaning) for name, meaning in types().items()]),
        "One of your own: [extending nnheads](../extending.md).",
    ]
    return "\n\n".join(parts) + "\n"


def _entry(name: str, meaning: str) -> list[str]:
    heads = measured()[name][1]
    values = heads[heads.attrs["headline"]]
    best = [
        f"{head_name(layer, head)} {float(values.sel(layer=layer, head=head)):.2f}"
        for layer, head in ranking(heads, flagged=True)[:4]
    ]
    shown = ", ".join(best) or "none flagged"
    return [f"[{name}]({name}.md)", meaning.removesuffix("."), f"`{values.name}`", shown]


def pages() -> dict[str, str]:
    """Return file name in the folder of head types -> Markdown."""
    named = {f"{name}.md": page(name) for name in types()}
    return {"../README.md": contents(), "README.md": index(), **named}


def figures() -> dict[str, Figure]:
    """Return file name in the folder of head types -> picture."""
    drawn = [pictures(name, title(name)) for name in types()]
    return {f"{file}.png": figure for each in drawn for file, figure in each.items()}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    writes: dict[str, Callable[[Path], None]] = {
        name: partial(Path.write_text, data=text, encoding="utf-8")
        for name, text in pages().items()
    }
    writes |= {name: partial(plot.render, figure) for name, figure in figures().items()}
    for name, write in writes.items():
        store.write(FOLDER / name, write)
    for path in FOLDER.iterdir():
        if path.name not in writes:  # of a type that is no more
            path.unlink()
    sys.stdout.write(f"{len(types())} head types in {FOLDER.name}/\n")


if __name__ == "__main__":
    main()
