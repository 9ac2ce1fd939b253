"""Read a list of heads in any tool's format; write it in another's, or as a mask that compresses a
cache.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _options as options

from nnheads.errors import BadInput

SHOWN = 8
MASK = "kv_mask"


def main(
    file: Annotated[
        Path, typer.Argument(help="A file, a run's folder, or a folder of pyvene or DuoAttention.")
    ],
    to: Annotated[
        str | None,
        typer.Option(help="Format to write, or kv_mask; without it, say what is in the file."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File or folder to write.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The list's model: how many layers and heads it has.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="Instead of --model: layers and heads, as 32x32.")
    ] = None,
    kv_heads: Annotated[
        int | None, typer.Option(help="Instead of --model: key/value heads of a layer.")
    ] = None,
    statistic: Annotated[
        str | None, typer.Option(help="Of a run: which statistic; default: its headline.")
    ] = None,
    top: Annotated[int | None, typer.Option(help="Only so many heads, the strongest.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Only heads that score so much; of a mask, 0.5.")
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option(help="Of a mask: the share of key/value heads that stream.")
    ] = None,
    fill: Annotated[
        float | None, typer.Option(help="Score of heads that the file does not score.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the list, where the file does not state it.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write over a file that is there.")
    ] = False,
    traceback: options.Traceback = False,
) -> None:
    """Read a list of heads in any tool's format, and write it in another's.

    Formats: retrieval_head, scores, records, qrhead, qrhead_config, function_vectors, array, fold,
        tensor,
    indirect_effect, duo_attention, pyvene, mib, intervention, nnheads, netcdf; and kv_mask,
    DuoAttention's table with 1 for key/value heads that keep their whole cache. Where a list is
    from stays with it, in the file or beside it.
    """
    from nnheads.interchange import read_heads, write_heads

    if (to is None) != (output is None):
        raise BadInput("--to and --output belong together: a format and a file to write")
    sizes = sizes_of(model, shape, kv_heads)
    heads = read_heads(file, heads=sizes.get("heads"), statistic=statistic)
    if licence is not None:
        heads.attrs["licence"] = licence
    if to is None:
        describe(heads)
        return
    assert output is not None
    if output.exists() and not (overwrite and output.is_file()):
        raise BadInput(f"{output} exists; use --overwrite, or another --output")
    heads = prepared(
        heads, to, sizes, {"top": top, "threshold": threshold, "sparsity": sparsity, "fill": fill}
    )
    path = write_heads(heads, output, format="duo_attention" if to == MASK else to)
    options.say(summary(heads))
    options.say(options.shown(path))


def sizes_of(model: str | None, shape: str | None, kv_heads: int | None) -> dict:
    """Layers, heads, key/value heads, and of a model its widths; whatever was given of it."""
    if model is not None:
        if shape is not None or kv_heads is not None:
            raise BadInput(
                "--model says how many heads there are; leave --shape and --kv-heads out"
            )
        from nnheads.models.geometry import geometry
        from nnheads.models.load import load

        options.start()
        found = load(model, remote=True)  # whose weights stay where they are
        parallel = bool(getattr(found.config, "use_parallel_residual", False))
        return {**vars(geometry(found)), "parallel_attn_mlp": parallel, "model": model}
    if kv_heads is not None:
        options.positive(kv_heads=kv_heads)
    own = {} if kv_heads is None else {"kv_heads": kv_heads}
    if shape is None:
        return own
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", shape)
    if match is None:
        raise BadInput(f"--shape {shape!r} is not possible; write layers and heads as 32x32")
    return own | {"layers": int(match[1]), "heads": int(match[2])}


def prepared(heads, to: str, sizes: dict, choice: dict):
    """The table that the model needs, and the heads that were asked for."""
    from nnheads.interchange.masks import kv_mask
    from nnheads.interchange.table import KV, fitted

    unit = KV if KV in heads.dims else "head"
    if choice["top"] is not None:
        options.positive(top=choice["top"])
    if choice["sparsity"] is not None and to != MASK:
        raise BadInput(
            "--sparsity is for --to kv_mask; other formats list heads: use --top or --threshold"
        )
    units = sizes.get("kv_heads" if unit == KV else "heads")
    if "layers" in sizes and units is not None:
        heads = fitted(heads, sizes["layers"], units, fill=choice["fill"])
    elif choice["fill"] is not None:
        heads["score"] = heads["score"].fillna(choice["fill"]).assign_attrs(heads["score"].attrs)
    heads = heads.assign_attrs({key: sizes[key] for key in ("model", "head_dim") if key in sizes})
    if "d_model" in sizes and "edge" not in heads.dims:
        config = {
            "n_layers": sizes["layers"],
            "n_heads": sizes["heads"],
            "d_model": sizes["d_model"],
        }
        heads.attrs["cfg"] = json.dumps({**config, "parallel_attn_mlp": sizes["parallel_attn_mlp"]})
    if to == MASK or to == "duo_attention":
        count = sizes.get("kv_heads", heads.sizes.get(KV))
        if count is None:
            raise BadInput(
                f"{to} is of key/value heads; say with --kv-heads or --model how many a layer has"
            )
        if choice["top"] is not None:
            raise BadInput(
                "--top chooses query heads; a mask is chosen by --threshold or --sparsity"
            )
        if to == MASK:
            return kv_mask(heads, count, threshold=choice["threshold"], sparsity=choice["sparsity"])
        return heads if unit == KV else gates(heads, count)
    return chosen(heads, choice["top"], choice["threshold"])


def gates(heads, kv_heads: int):
    """Scores of key/value heads: the highest of the query heads that share one."""
    from nnheads.interchange.masks import grouped
    from nnheads.interchange.table import KV, check_whole, labelled

    check_whole(heads, "a table of gates")
    return labelled(grouped(heads, kv_heads), unit=KV).assign_attrs(heads.attrs)


def chosen(heads, top: int | None, threshold: float | None):
    """A list without the heads that were not asked for; its circuit is what is left."""
    import numpy as np

    from nnheads.interchange.table import KV, ranking

    if top is None and threshold is None:
        return heads
    if KV in heads.dims:
        raise BadInput(
            "--top and --threshold list query heads, and these are key/value heads; use --to"
            " kv_mask"
        )
    order = ranking(heads)
    kept = [
        place for place in order if threshold is None or heads["score"].values[place] >= threshold
    ]
    if not kept:
        raise BadInput(
            f"no head scores {threshold:g}; the highest score is {float(heads['score'].max()):.3g}"
        )
    if top is not None and top > len(kept):
        raise BadInput(f"--top {top} is more than the {len(kept)} heads that the list has")
    kept = kept[:top]
    inside, rank = (
        np.zeros(heads["score"].shape, "int8"),
        np.full(heads["score"].shape, np.nan, "float32"),
    )
    for place, head in enumerate(kept):
        inside[head], rank[head] = 1, place
    dropped = [
        name
        for name in ("node_score", "node_in_circuit", "edge_score", "edge_in_circuit")
        if name in heads
    ]
    found = heads.drop_vars(
        [*dropped, *(name for name in ("node", "edge") if name in heads.coords)]
    )
    found["in_circuit"] = (
        ("layer", "head"),
        inside,
        {"long_name": "1 for heads of the circuit", "units": "1"},
    )
    found["rank"] = (
        ("layer", "head"),
        rank,
        {"long_name": "place in the list, 0 is the first", "units": "1"},
    )
    return found


def describe(heads) -> None:
    """What a file holds, its strongest heads, and where it is from."""
    from nnheads.interchange.table import KV, ranking
    from nnheads.models.names import head_name

    options.say(f"{heads.attrs['source_format']}: {summary(heads)}")
    if KV not in heads.dims:
        for place in ranking(heads)[:SHOWN]:
            options.say(f"  {head_name(*place):<7} {float(heads['score'].values[place]):+.3f}")
    for name in (
        "model",
        "revision",
        "statistic",
        "licence",
        "references",
        "history",
        "not_read",
        "provenance_note",
    ):
        if heads.attrs.get(name):
            options.say(f"{name}: {heads.attrs[name]}")
    for one in json.loads(heads.attrs["lineage"]):
        options.say(f"from {one['file']} ({one['format']}), sha256 {one['sha256'][:12]}")


def summary(heads) -> str:
    """How many layers and heads, and how many of them score."""
    from nnheads.interchange.table import KV

    unit, what = (KV, "key/value heads") if KV in heads.dims else ("head", "heads")
    known, above = int(heads["score"].notnull().sum()), int((heads["score"] > 0).sum())
    text = (
        f"{heads.sizes['layer']} layers of {heads.sizes[unit]} {what}, {known} with a score,"
        f" {above} above zero"
    )
    if "rank" in heads and not bool(heads["rank"].notnull().all()):
        text += f"; a list of {int(heads['rank'].notnull().sum())}"
    if "chosen_by" in heads.attrs:
        text += (
            f"; {float(heads.attrs['sparsity']):.0%} stream ({heads.attrs['chosen_by']} keep their"
            " cache)"
        )
    return text
