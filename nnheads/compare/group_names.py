"""Names of models, revisions and types as parts of files and pictures.

    group_names([("org/model", "main", "induction")])  # ["/org-model/main/induction"]

Characters that such a part cannot hold become a dash or a dot; two names that come out the same are
told apart by a number.
"""

from __future__ import annotations

import re


def file_name(name: str) -> str:
    """Return a name of a model, a revision or a type as part of a file's name."""
    return re.sub(r"[^\w.+-]+", "-", name, flags=re.ASCII).strip("-.")[:60] or "unnamed"


def label(name: str) -> str:
    """Return a name as a picture can show it: two dollars would start a formula there."""
    return re.sub(r"[^\w ,./:()+~-]", "·", name)


def group_names(places: list[tuple[str, ...]]) -> list[str]:
    """Return paths of groups in a file, one for each tuple of names.

    Names that say more than a group's name can are made plain; two that come out the same are told
    apart by a number.
    """
    paths: dict[tuple[str, ...], str] = {(): ""}
    taken: set[str] = set()
    for names in places:
        for depth in range(1, len(names) + 1):
            key = names[:depth]
            if key not in paths:
                paths[key] = _free(f"{paths[key[:-1]]}/{_plain(key[-1])}", taken)
                taken.add(paths[key])
    return [paths[names] for names in places]


def _plain(name: str) -> str:
    """Return a name as a group can have it."""
    plain = re.sub(r"[^\w.()+ -]+", "-", name, flags=re.ASCII)
    return plain.strip(" .-")[:100] or "unnamed"


def _free(plain: str, taken: set[str]) -> str:
    """Return a path, with a number behind it where it is taken."""
    path, number = plain, 1
    while path in taken:
        number += 1
        path = f"{plain}~{number}"
    return path
