"""The command that a result was made with, from what the result records, to be issued again."""

from __future__ import annotations

import json
import re
import shlex
import urllib.parse
from pathlib import Path

from nnheads.recipes._remote_option import without_place

from nnheads.errors import BadInput

DROPPED = ("--submit", "--overwrite")
WITH_VALUE = ("--output", "-o")
# which write elsewhere than into the results, or run code that a file names
REFUSED = ("--trust", "--push", "--to")
COMPUTING_NOTHING = ("rerun", "convert", "heads", "reference", "remote")
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]*")
RECORDED = ("history", "arguments", "source")  # by which a file of ours is known


def command_in(run: Path) -> tuple[list[str], str]:
    """Return the words of the command in a run's folder, the program first, and its recipe."""
    path = run / "run.json"
    try:
        record = json.loads(path.read_bytes())
        words, recipe = shlex.split(record["command"]), record["recipe"]
        _ = words[0]
    except FileNotFoundError:
        raise BadInput(f"{run} has no run.json; expected the folder of a run") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise BadInput(f"{path} is not a record of a run") from None
    return words, str(recipe)


def command_of_file(path: Path, attributes: dict) -> list[str]:
    """Return the words of the command in the history of a netCDF file."""
    if not all(isinstance(attributes.get(name), str) for name in RECORDED):
        raise BadInput(
            f"{path} was not written by nnheads: it does not record history, arguments and source"
        )
    history = attributes["history"]
    try:
        words = shlex.split(history)[1:]
    except ValueError:
        words = []
    if not words:
        raise BadInput(f"{path} records no command in its history {history[:60]!r}")
    return words


def for_folder(words: list[str]) -> list[str]:
    """Return a command's arguments without those that say where results go, and what was there."""
    kept, skip = [], False
    for word in words[1:]:
        with_value = word in WITH_VALUE
        if not (skip or with_value or word in DROPPED or word.startswith("--output=")):
            kept.append(word)
        skip = not skip and with_value
    return kept


def check_repeatable(path: Path, words: list[str], more: list[str]) -> None:
    """Refuse what `check_command` refuses, and servers that only the file names: they would be sent
    the user's key.

    more: the options that the user adds.
    """
    check_command(path, words)
    named = any(name_of(word) == "--remote" for word in more)
    check_servers(
        path, without_place(words) if named else words, more, "rerun FILE -- --remote URL"
    )


def check_servers(path: Path, words: list[str], more: list[str], how: str) -> None:
    """Refuse a command that contacts an address which only a file names.

    words: the command of the file. more: what the user adds. how: the user names a server.
    """
    named = {host_in(value) for value in addresses(more)}
    strange = [value for value in addresses(words) if host_in(value) not in named]
    if strange:
        raise BadInput(
            f"{path} was made on a server of its own, {host_in(strange[0])}; if you trust it, name"
            f" it yourself: {how}"
        )


def addresses(words: list[str]) -> list[str]:
    """Return all web addresses in the words of a command line, whatever option they belong to."""
    return [found for word in words for found in ADDRESS.findall(word)]


def host_in(address: str) -> str:
    """Return scheme, host and port of a web address, as it is compared."""
    parts = urllib.parse.urlsplit(address)
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = ":?"
    return f"{parts.scheme.lower()}://{(parts.hostname or '').lower()}{port}"


def check_command(path: Path, words: list[str]) -> None:
    """Refuse what is no command of ours, and commands that do more than compute a result."""
    from nnheads.recipes import recipes

    name = words[1] if len(words) > 1 else ""
    if name not in recipes():
        raise BadInput(
            f"{path} was made by {shlex.join(words)[:60]!r}, which is no command of nnheads; repeat"
            " it in Python"
        )
    if name in COMPUTING_NOTHING:
        raise BadInput(f"{path} was made by nnheads {name}, which computes no result")
    for word in words[2:]:
        if name_of(word) in REFUSED:
            raise BadInput(
                f"{path} was made with {name_of(word)}; issue that command yourself if you trust it"
            )


def name_of(word: str) -> str:
    """Return the option that a word of a command line gives: `--to=x` is `--to`."""
    return word.split("=")[0]
