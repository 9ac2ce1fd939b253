"""Say in one line what went wrong in a command, and with which exit code it ends."""

from __future__ import annotations

import errno
import sys

from nnheads.recipes import recipes
from nnheads.recipes._issued import addresses
from nnheads.recipes._terminal import shown

from nnheads.errors import BadInput, NNHeadsError, Pending

UNFIT = (LookupError, NameError, TypeError, ValueError, AttributeError, RuntimeError)


def explained(error: Exception, name: str, host: str) -> tuple[str, int]:
    """Return the line that says what went wrong in a recipe, and the exit code.

    host: the server that has worked for the command; "" for none.
    """
    if hasattr(error, "format_message"):  # the command line itself does not parse
        recipe = f" {name}" if name in recipes() else ""
        problem = " ".join(error.format_message().split()).rstrip(".")
        return f"error: {problem}; nnheads{recipe} --help shows what there is", 2
    if isinstance(error, Pending):
        return _pending(error, sys.argv), 0
    if isinstance(error, NNHeadsError):
        return f"error: {error}", 2 if isinstance(error, BadInput) else 1
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"error: {str(error.filename)[:60]!r}... is too long for the name of a file", 2
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return "error: a path begins with ~ and the name of no user of this machine", 2
    if host and isinstance(error, UNFIT):
        return (
            f"error: what {host} sent back does not fit what was asked ({type(error).__name__});"
            " is it an NDIF server? --traceback shows where"
        ), 1
    return _unexpected(error), 1


def _pending(error: Pending, words: list[str]) -> str:
    """Return what is not finished, and the command that fetches it.

    words: of the command that sent it, which names the server.
    """
    if error.run is None:
        return str(error)
    server = "".join(f" --remote {address}" for address in addresses(words)[:1])
    return f"{error}; nnheads remote collect {shown(error.run)}{server} fetches what is done"


def _unexpected(error: Exception) -> str:
    """Return one line about an error that nnheads does not raise itself."""
    reason = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"error: {error.strerror}; free some and issue the same command again"
    if isinstance(error, RecursionError):
        return "error: a file is nested too deeply to be read"
    if isinstance(error, ConnectionError) or "Connect" in type(error).__name__:
        return (
            f"error: the server of --remote cannot be reached ({reason}); is it running at that"
            " address?"
        )
    return f"unexpected error: {type(error).__name__}: {reason} (--traceback shows where)"
