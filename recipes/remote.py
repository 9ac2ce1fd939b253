"""Which models does a server have, does it fit, and what has become of the jobs that it was sent?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _issued
from nnheads.recipes import _options as options

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)


@app.command()
def status(
    model: Annotated[str | None, typer.Argument(help="Hub id: is it there?")] = None,
    remote: Annotated[str, typer.Option(help="ndif, or the URL of a server.")] = "ndif",
    traceback: options.Traceback = False,
) -> None:
    """Whether a server is up, which models it has, and how its versions differ from those here."""
    from nnheads.errors import BadInput, RunError
    from nnheads.models.load import locate
    from nnheads.remote import server as service

    where = options.remote_of(remote)
    if where == "local":
        raise BadInput("--remote local is this machine; use ndif or a URL")
    host = service.host_of(where)
    models = service.models_of(service.asked(host, "/status"))
    running = sum(row["state"] == "RUNNING" for row in models)
    options.say(f"{host}: up, {running} of {len(models)} models running")
    for row in models:
        options.say(
            f"  {row['model']}  {row['revision']}  {row['level']}  {row['state']} "
            f" x{row['replicas']}"
        )
    for row in service.gaps(service.asked(host, "/env")):
        mark = "  numbers may differ, or jobs may fail" if row["matters"] else ""
        options.say(f"{row['name']:<13} here {row['here']:<14} there {row['there']}{mark}")
    if model is not None:
        own = [row for row in models if row["model"].lower() == locate(model).lower()]
        if not own:
            raise RunError(
                f"{model} is not at {host}; a job for it waits until it is loaded, if the server"
                " loads it"
            )
        options.say(f"{model}: {own[0]['level']}, {own[0]['state']}")


@app.command()
def collect(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run that was sent with --submit.", file_okay=False)
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for what is not finished.")] = False,
    traceback: options.Traceback = False,
) -> None:
    """Fetch what a server has finished of a run, and finish the run when all of it is there."""
    from nnheads.recipes import command

    sys.argv, (recipe, *arguments) = command_of(run)
    arguments += [] if wait else ["--submit"]
    command(recipe)(args=arguments, prog_name=f"nnheads {recipe}", standalone_mode=False)


def command_of(run: Path) -> tuple[list[str], list[str]]:
    """The command that a run's folder was made with, and its arguments to be issued again for the
    same folder.
    """
    from nnheads.errors import BadInput

    words, recipe = _issued.command_in(run)
    root = next((parent.parent for parent in run.resolve().parents if parent.name == recipe), None)
    if root is None or len(words) < 2:
        raise BadInput(
            f"{run} is not inside a folder {recipe!r}; move it back to where it was written"
        )
    _issued.check_command(run, words)
    return words, [*_issued.for_folder(words), "--output", str(root)]
