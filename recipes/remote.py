"""Which models does a server have, does it fit, and what has become of the jobs it was sent?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _issued
from nnheads.recipes._options import Traceback
from nnheads.recipes._remote_option import NDIF, check_place, without_place
from nnheads.recipes._terminal import say

from nnheads.errors import BadInput, RunError

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)

Name = Annotated[str | None, typer.Argument(help="Hub id: is it there?")]
Server = Annotated[
    str, typer.Option("--remote", callback=check_place, help="ndif, or the URL of a server.")
]
Folder = Annotated[
    Path, typer.Argument(help="Folder of a run that was sent with --submit.", file_okay=False)
]
Of = Annotated[
    str | None,
    typer.Option(
        "--remote",
        callback=check_place,
        help="The server that has the jobs, if it is not NDIF.",
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for what is not finished.")]


@app.command()
def status(model: Name = None, remote: Server = NDIF, traceback: Traceback = False) -> None:
    """Say whether a server is up, which models it has, and how its versions differ from ours."""
    from nnheads.remote import server
    from nnheads.remote.place import remote_value

    where = remote_value(remote)
    if where == "local":
        raise BadInput("--remote local is this machine; use ndif or a URL")
    host = server.host_of(where)
    models = server.models_of(server.asked(host, "/status"))
    say_models(host, models)
    say_versions(server.gaps(server.asked(host, "/env")))
    if model is not None:
        say_model(model, host, models)


def say_models(host: str, models: list[dict]) -> None:
    """Print whether a server is up, and the models that it has."""
    running = sum(row["state"] == "RUNNING" for row in models)
    say(f"{host}: up, {running} of {len(models)} models running")
    for row in models:
        replicas = f"x{row['replicas']}"
        say(f"  {row['model']}  {row['revision']}  {row['level']}  {row['state']}  {replicas}")


def say_versions(gaps: list[dict]) -> None:
    """Print which versions there differ from those here."""
    for row in gaps:
        mark = "  numbers may differ, or jobs may fail" if row["matters"] else ""
        say(f"{row['name']:<13} here {row['here']:<14} there {row['there']}{mark}")


def say_model(model: str, host: str, models: list[dict]) -> None:
    """Print how a model stands on a server.

    Raises:
        RunError: the server does not have it.
    """
    from nnheads.models.load import locate

    name = locate(model).lower()
    found = next((row for row in models if row["model"].lower() == name), None)
    if found is None:
        raise RunError(
            f"{model} is not at {host}; a job for it waits until it is loaded, if the server loads"
            " it"
        )
    say(f"{model}: {found['level']}, {found['state']}")


@app.command()
def collect(
    run: Folder, remote: Of = None, wait: Wait = False, traceback: Traceback = False
) -> None:
    """Fetch what a server has finished of a run, and finish the run when all of it is there.

    A server other than NDIF has to be named with --remote, as it was when the run was sent: your
    key goes there.
    """
    from nnheads.recipes import command

    sys.argv, (recipe, *arguments) = command_of(run, remote)
    arguments += [] if wait else ["--submit"]
    command(recipe)(args=arguments, prog_name=f"nnheads {recipe}", standalone_mode=False)


def command_of(run: Path, remote: str | None) -> tuple[list[str], list[str]]:
    """Return the command that a run's folder was made with, and its arguments to be issued again
    for the same folder.

    remote: the server, as the user names it.
    """
    words, recipe = _issued.command_in(run)
    root = next((parent.parent for parent in run.resolve().parents if parent.name == recipe), None)
    if root is None or len(words) < 2:
        raise BadInput(
            f"{run} is not inside a folder {recipe!r}; move it back to where it was written"
        )
    _issued.check_command(run, words)
    if remote is not None:
        words = [*without_place(words), f"--remote={remote}"]
    user = [] if remote is None else [remote]
    _issued.check_servers(run, words, user, f"remote collect {run} --remote URL")
    return words, [*_issued.for_folder(words), "--output", str(root)]
