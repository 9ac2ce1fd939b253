"""Words as Markdown: a docstring taken apart, paragraphs on a line each, tables."""

from __future__ import annotations

import inspect
import re
import textwrap

PARTS = re.compile(r"^(Args|Returns|Raises|Misleads|Sources?):", re.MULTILINE)


def sections(text: str) -> dict[str, str]:
    """Return a docstring's parts: "" is what stands before the first of them."""
    first, *others = PARTS.split(inspect.cleandoc(text))
    named = {"": first} | dict(zip(others[::2], others[1::2]))
    singular = {name.replace("Sources", "Source"): part for name, part in named.items()}
    return {name: unwrapped(part) for name, part in singular.items()}


def unwrapped(text: str) -> str:
    """Return paragraphs on a line each; what is set in below a line stays as it is."""
    first, _, rest = text.strip().partition("\n")
    whole = f"{first}\n{textwrap.dedent(rest)}".strip()
    return "\n\n".join(_paragraph(one) for one in re.split(r"\n\s*\n", whole))


def _paragraph(text: str) -> str:
    head, _, below = text.partition("\n")
    lines = below.splitlines()
    if lines and all(line.startswith("    ") for line in lines):
        return f"{head}\n\n```text\n{textwrap.dedent(below)}\n```"
    return " ".join(text.split())


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:].removesuffix(".") + "."


def row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def table(columns: list[str], rows: list[list[str]]) -> str:
    return "\n".join([row(columns), f"|{'---|' * len(columns)}", *map(row, rows)])
