"""Convert a list of heads from any tool's format to another's, or to a mask for a cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from nnheads.recipes._convert import GATES, MASK, Selection, prepared, sizes_of, unit_of
from nnheads.recipes._options import Traceback
from nnheads.recipes._terminal import say, shown

from nnheads.errors import BadInput

if TYPE_CHECKING:
    import xarray as xr

SHOWN = 8
ABOUT = (
    "model",
    "revision",
    "statistic",
    "licence",
    "references",
    "history",
    "not_read",
    "provenance_note",
)

File = Annotated[
    Path, typer.Argument(help="A file, a run's folder, or a folder of pyvene or DuoAttention.")
]
To = Annotated[
    str | None,
    typer.Option(help="Format to write, or kv_mask; without it, say what is in the file."),
]
Target = Annotated[Path | None, typer.Option("--output", "-o", help="File or folder to write.")]
Model = Annotated[str | None, typer.Option(help="The list's model, for its layers and heads.")]
Shape = Annotated[str | None, typer.Option(help="Instead of --model: layers and heads, as 32x32.")]
KvHeads = Annotated[int | None, typer.Option(help="Instead of --model: key/value heads a layer.")]
Statistic = Annotated[
    str | None, typer.Option(help="Of a run: which statistic; default: its headline.")
]
Top = Annotated[int | None, typer.Option(help="Only so many heads, the strongest.")]
Threshold = Annotated[
    float | None, typer.Option(help="Only heads that score so much; of a mask, 0.5.")
]
Sparsity = Annotated[
    float | None, typer.Option(help="Of a mask: the share of key/value heads that stream.")
]
Fill = Annotated[float | None, typer.Option(help="Score of heads that the file does not score.")]
Licence = Annotated[
    str | None, typer.Option(help="Licence of the list, where the file does not state it.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over a file that is there.")]


def main(
    file: File,
    to: To = None,
    output: Target = None,
    model: Model = None,
    shape: Shape = None,
    kv_heads: KvHeads = None,
    statistic: Statistic = None,
    top: Top = None,
    threshold: Threshold = None,
    sparsity: Sparsity = None,
    fill: Fill = None,
    licence: Licence = None,
    overwrite: Overwrite = False,
    traceback: Traceback = False,
) -> None:
    """Read a list of heads in any tool's format, and write it in another's.

    Formats: retrieval_head, scores, records, qrhead, qrhead_config, function_vectors, array, fold,
    tensor, indirect_effect, duo_attention, pyvene, mib, intervention, nnheads, netcdf; and kv_mask,
    DuoAttention's table with 1 for key/value heads that keep their whole cache. Where a list is
    from stays with it, in the file or beside it.
    """
    from nnheads.interchange import read_heads

    if (to is None) != (output is None):
        raise BadInput("--to and --output belong together: a format and a file to write")
    sizes = sizes_of(model, shape, kv_heads)
    heads = read_heads(file, heads=sizes.get("heads"), statistic=statistic)
    if licence is not None:
        heads.attrs["licence"] = licence
    if to is None or output is None:
        describe(heads)
        return
    check_target(output, overwrite)
    write(prepared(heads, to, sizes, Selection(top, threshold, sparsity, fill)), to, output)


def check_target(output: Path, overwrite: bool) -> None:
    """Refuse to write over a file unless that was asked for, and over a folder at all."""
    if output.exists() and not (overwrite and output.is_file()):
        raise BadInput(f"{output} exists; use --overwrite, or another --output")


def write(heads: xr.Dataset, to: str, output: Path) -> None:
    """Write the list, and say what is in it and where it is."""
    from nnheads.interchange import write_heads

    path = write_heads(heads, output, format=GATES if to == MASK else to)
    say(summary(heads))
    say(shown(path))


def describe(heads: xr.Dataset) -> None:
    """Say what a file holds, its strongest heads, and where it is from."""
    say(f"{heads.attrs['source_format']}: {summary(heads)}")
    if unit_of(heads) == "head":
        say_strongest(heads)
    for name in ABOUT:
        if heads.attrs.get(name):
            say(f"{name}: {heads.attrs[name]}")
    for one in json.loads(heads.attrs["lineage"]):
        say(f"from {one['file']} ({one['format']}), sha256 {one['sha256'][:12]}")


def say_strongest(heads: xr.Dataset) -> None:
    """Say the heads at the top of the list and their scores."""
    from nnheads.interchange.table import ranking
    from nnheads.models.names import head_name

    for head in ranking(heads)[:SHOWN]:
        say(f"  {head_name(*head):<7} {float(heads['score'].values[head]):+.3f}")


def summary(heads: xr.Dataset) -> str:
    """Return how many layers and heads there are, and how many of them score."""
    unit, score = unit_of(heads), heads["score"]
    what = "heads" if unit == "head" else "key/value heads"
    known, above = int(score.notnull().sum()), int((score > 0).sum())
    text = (
        f"{heads.sizes['layer']} layers of {heads.sizes[unit]} {what}, {known} with a score,"
        f" {above} above zero"
    )
    return text + listed(heads) + streaming(heads)


def listed(heads: xr.Dataset) -> str:
    """Return how long the list is, where it does not name every head."""
    if "rank" not in heads or bool(heads["rank"].notnull().all()):
        return ""
    return f"; a list of {int(heads['rank'].notnull().sum())}"


def streaming(heads: xr.Dataset) -> str:
    """Return how many heads stream, and what the others were chosen by."""
    if "chosen_by" not in heads.attrs:
        return ""
    share = float(heads.attrs["sparsity"])
    return f"; {share:.0%} stream ({heads.attrs['chosen_by']} keep their cache)"
