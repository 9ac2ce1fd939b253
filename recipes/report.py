"""One page from a folder of runs: a map of heads, a card for each, tables to sort and download."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _options as options

LARGEST = 5_000_000  # bytes above which a page is slow to open and to send
OWN = 4096  # bytes of a file that show whether a page of ours would be replaced


def main(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Runs, or folders that hold some.", show_default="results"),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", dir_okay=False, help="The file to write.")
    ] = Path("report.html"),
    title: Annotated[
        str | None, typer.Option(help="The page's title; the models' names unless given.")
    ] = None,
    top: Annotated[
        int, typer.Option(help="How many heads at the top are compared between scores.")
    ] = 8,
    draws: Annotated[
        int, typer.Option(help="Pairs of samples of prompts for stability; 0 for none.")
    ] = 20,
    attention: Annotated[
        list[str] | None,
        typer.Option(help="Load this model and add what its heads look at; may be repeated."),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(help="With --attention: texts of your own, one a line; else two are drawn."),
    ] = None,
    seed: options.Seed = 0,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device_map: options.DeviceMap = None,
    remote: options.Remote = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a file that is no page of this command, too."),
    ] = False,
    quiet: options.Quiet = False,
    traceback: options.Traceback = False,
) -> None:
    """One page from a folder of runs: a map of heads, a card for each, tables to sort and download.

    A single HTML file that opens from disk and fetches nothing. It shows every score over (layer,
    head) or key/value heads with its interval, null and flag, which scores share heads, whether
    other prompts would name the same ones, knock-outs, attention that `nnheads inspect --head`
    saved, the small tables and pictures of every run, and the command, versions and commit that
    each number comes from. No model is loaded unless --attention names one.
    """
    from nnheads.page.data import payload
    from nnheads.page.html import html
    from nnheads.runs import store
    from nnheads.runs.find import find_runs

    check(output, overwrite, attention, texts, top, draws)
    found, unfinished = find_runs(runs or [options.RESULTS])
    page = payload(
        found, title=title or "", made=made(), unfinished=unfinished, top=top, draws=draws
    )
    page["title"] = title or title_of(page)
    where = options.remote_of(remote)
    for name in attention or []:
        add_attention(
            page,
            name,
            texts,
            seed,
            {"revision": revision, "dtype": dtype, "device_map": device_map},
            where,
        )
    whole = html(page).encode("utf-8", "replace")
    store.write(output, lambda path: path.write_bytes(whole))
    report(page, output, len(whole))


def check(
    output: Path,
    overwrite: bool,
    attention: list[str] | None,
    texts: Path | None,
    top: int,
    draws: int,
) -> None:
    """Refuse to replace what is no page of ours, texts that nothing would read, and counts that are
    none.
    """
    from nnheads.errors import BadInput
    from nnheads.page.html import GENERATOR

    options.positive(top=top)
    if draws < 0:
        raise BadInput(f"--draws {draws} is not possible; it must be at least 0")
    if texts is not None and not attention:
        raise BadInput("--texts is read by a model; name it with --attention MODEL")
    if output.exists() and not overwrite:
        with output.open("rb") as file:
            if GENERATOR.encode() not in file.read(OWN):
                raise BadInput(
                    f"{output} exists and is no page of nnheads report; name another, or use"
                    " --overwrite"
                )


def made() -> dict:
    """Who made the page."""
    from nnheads.runs.provenance import command, git_state, versions

    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {
        "command": command(),
        "date": date,
        "version": versions().get("nnheads", ""),
        "code": git_state()[0],
    }


def title_of(page: dict) -> str:
    """Heads of these models."""
    names = list(dict.fromkeys(model["name"] for model in page["models"]))
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"Heads of {shown}" if names else "Runs"


def add_attention(page: dict, name: str, texts: Path | None, seed: int, how: dict, remote) -> None:
    """Load a model and add its heads' attention to the model of the same name and weights on the
    page.
    """
    from nnheads.errors import BadInput
    from nnheads.page.patterns import drawn_texts, own_texts, texts_for
    from nnheads.runs.provenance import model_folder, model_identity
    from nnheads.spans.lines import numbered_lines

    known = {model["name"] for model in page["models"]}
    folder = name if name in known else model_folder(name)
    if folder not in known:
        raise BadInput(
            f"--attention {name}: no run is of that model; there are"
            f" {', '.join(sorted(known)) or 'none'}"
        )
    lines = (
        None if texts is None else [line for _, line in numbered_lines(texts, "one text a line")]
    )
    loaded = options.load(name, how["revision"], how["dtype"], how["device_map"], remote)
    commit = model_identity(loaded, name)["commit"]
    same = [one for one in page["models"] if one["name"] == folder and one["commit"] == commit]
    if not same:
        raise BadInput(
            f"--attention {name}: its weights ({commit or 'unknown'}) are not those of the runs"
        )
    drawn = drawn_texts(loaded, seed) if lines is None else own_texts(loaded, lines)
    for model in same:
        model["texts"] = [*model["texts"], *texts_for(loaded, drawn, strongest(model))]


def strongest(model: dict) -> list[tuple[int, int]]:
    """Flagged heads and the ten highest of each headline: whose attention is wanted most."""
    found: dict[int, None] = {}
    for score in model["scores"]:
        if score["headline"] and score["unit"] == "head":
            known = [index for index, value in enumerate(score["values"]) if value is not None]
            ranked = sorted(known, key=lambda index: -score["values"][index])
            found |= dict.fromkeys(ranked[:10])
            found |= dict.fromkeys(
                index for index in known if score["flag"] and score["flag"][index]
            )
    return [divmod(index, model["heads"]) for index in found]


def report(page: dict, output: Path, size: int) -> None:
    """What is on the page, what is not, and where it is."""
    shown = sum(run["shown"] for run in page["runs"])
    options.say(f"{len(page['runs'])} runs, {shown} with numbers by head")
    for model in page["models"]:
        options.say(
            f"  {model['name']} {model['revision']}: {model['layers']} x {model['heads']} heads, "
            f"{len(model['scores'])} scores, {len(model['texts'])} texts"
        )
        for found in model["results"]:
            for reason in found["unseen"]:
                options.say(f"  left out of {page['runs'][found['run']]['folder']}: {reason}")
    for folder in page["unfinished"]:
        options.say(f"  left out, not finished: {folder}")
    large = "; large to send: report fewer runs" if size > LARGEST else ""
    options.say(f"{options.shown(output)} ({size / 1e6:.1f} MB{large})")
