"""Find the model of a result again: a folder or file of weights that is recorded by name alone.

Results name no folder of the machine that they were made on. So the folder is looked for from here
and beside the result, or the user names it; weights with another hash are refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnheads.recipes._issued import WITH_VALUE

from nnheads.errors import BadInput


def with_model(
    words: list[str], attrs: dict[str, Any], file: Path, model: Path | None
) -> list[str]:
    """Return a command's words with its model where it is now.

    Args:
        words: of the command, the program and the recipe first.
        attrs: of a result of it: `model` and `source`.
        model: where the user says that it is.

    Raises:
        BadInput: a `model` that the command does not name, or that has other weights.
    """
    names = [
        number
        for number, word in enumerate(words)
        if number > 1 and words[number - 1] not in WITH_VALUE and is_named(word, attrs)
    ]
    if model is not None and not names:
        raise BadInput(f"{file} was not made on a local model; leave --model out")
    if not names:
        return words
    number = names[0]
    path = found(words[number], file) if model is None else model
    if path is None:
        return words
    check_weights(path, attrs)
    return [*words[:number], str(path), *words[number + 1 :]]


def is_named(word: str, attrs: dict[str, Any]) -> bool:
    """Return whether a word is a local model by the name that a result records."""
    if attrs.get("revision") != "local" or word.startswith("-"):
        return False
    path = Path(word)
    return attrs.get("model") == (path.stem if path.suffix == ".gguf" else path.name)


def found(word: str, file: Path) -> Path | None:
    """Return the recorded model, looked for from here and from each folder above the result."""
    for base in (Path.cwd(), *file.resolve().parents):
        if (base / word).exists():
            return base / word
    return None


def check_weights(path: Path, attrs: dict[str, Any]) -> None:
    """Refuse weights with another hash than those that a result was made with."""
    from nnheads.models.load import locate
    from nnheads.runs.provenance import folder_fingerprint

    recorded = json.loads(attrs["source"]).get("commit", "")
    now = folder_fingerprint(Path(locate(str(path))))
    if recorded and now != recorded:
        raise BadInput(
            f"{path} holds other weights than the result was made with: {now[:19]} now,"
            f" {recorded[:19]} then; name the right ones with --model"
        )
