"""One page from a folder of runs: a map of heads, a card for each, tables to sort and download."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _report
from nnheads.recipes._checks import check_at_least
from nnheads.recipes._options import RESULTS
from nnheads.recipes._study import Study, study
from nnheads.recipes._terminal import say, shown

Runs = Annotated[
    list[Path] | None,
    typer.Argument(help="Runs, or folders that hold some.", show_default="results"),
]
Page = Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="The file to write.")]
Title = Annotated[
    str | None, typer.Option(help="Title of the page; the models' names unless given.")
]
Top = Annotated[int, typer.Option(help="How many heads at the top are compared between scores.")]
Draws = Annotated[int, typer.Option(help="Pairs of samples of prompts for stability; 0 for none.")]
Attention = Annotated[
    list[str] | None,
    typer.Option(help="Add what this model's heads look at; may be repeated."),
]
Texts = Annotated[
    Path | None,
    typer.Option(help="With --attention: your texts, one a line; else two are drawn."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a file that is no page of this command, too.")
]


@study(without=("model", "quantization", "submit"))
def main(
    study: Study,
    runs: Runs = None,
    output: Page = Path("report.html"),
    title: Title = None,
    top: Top = 8,
    draws: Draws = 20,
    attention: Attention = None,
    texts: Texts = None,
    overwrite: Overwrite = False,
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

    check(study)
    found, unfinished = find_runs(runs or [RESULTS])
    page = payload(
        found, title=title or "", made=made(), unfinished=unfinished, top=top, draws=draws
    )
    page["title"] = title or title_of(page)
    for name in attention or []:
        _report.add_attention(page, study, name)
    whole = html(page).encode("utf-8", "replace")
    store.write(output, lambda path: path.write_bytes(whole))
    report(page, output, len(whole))


def check(study: Study) -> None:
    """Refuse counts that are none, texts that nothing would read, a place that is no server, and to
    replace what is no page of ours.
    """
    from nnheads.errors import BadInput

    check_at_least(0, draws=study.draws)
    if study.texts is not None and not study.attention:
        raise BadInput("--texts is read by a model; name it with --attention MODEL")
    if study.output.exists() and not study.overwrite and not _report.is_page(study.output):
        raise BadInput(
            f"{study.output} exists and is no page of nnheads report; name another, or use"
            " --overwrite"
        )


def made() -> dict[str, str]:
    """Return who made the page."""
    from nnheads.runs.provenance import command, git_state, versions

    return {
        "command": command(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": versions().get("nnheads", ""),
        "code": git_state()[0],
    }


def title_of(page: dict) -> str:
    """Return a title that names the page's models."""
    names = list(dict.fromkeys(model["name"] for model in page["models"]))
    named = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"Heads of {named}" if names else "Runs"


def report(page: dict, output: Path, size: int) -> None:
    """Say what is on the page, what is not, and where it is."""
    with_numbers = sum(run["shown"] for run in page["runs"])
    say(f"{len(page['runs'])} runs, {with_numbers} with numbers by head")
    for model in page["models"]:
        _report.say_model(model, page["runs"])
    quick = sum("quick" in Path(run["folder"]).parts for run in page["runs"])
    if quick:
        say(f"  {quick} are --quick runs, of few prompts: hints, not findings")
    for folder in page["unfinished"]:
        say(f"  left out, not finished: {folder}")
    large = "; large to send: report fewer runs" if size > _report.LARGEST else ""
    say(f"{shown(output)} ({size / 1e6:.1f} MB{large})")
