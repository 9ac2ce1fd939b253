"""Which model families hold: `make families` tries every type and writes docs/families.md.

    python docs/families.py

Every causal type that transformers knows is built small, in its usual configuration and with random
weights; its row is derived where the table has none, and proven. It takes some minutes.
"""

from __future__ import annotations

from pathlib import Path

import transformers

from nnheads.errors import ModelError
from nnheads.models.families import FAMILIES
from nnheads.models.proven import told_of, types, usual

PAGE = Path(__file__).parent / "families.md"
OPENING = """\
# Model families

`nnheads families MODEL` builds a small copy of a model with random weights and holds what nnheads
reads and writes against plain PyTorch, line by line. Below: every causal type of transformers
{version} in its usual configuration. {proven} of {all} hold, and every command takes them; the
rows of {table} are written down, the others are derived from the model. `make families` writes
this page.

| type | |
|---|---|"""


def verdict(kind: str) -> str:
    """Return whether a type is proven, and where its row is from, or why it is not."""
    try:
        refusal = told_of(usual(kind)).refusal
    except ModelError as error:
        refusal = str(error)
    if refusal:
        return refusal.replace("|", "\\|")
    return "proven, in the table" if kind in FAMILIES else "proven"


def main() -> None:
    verdicts = {kind: verdict(kind) for kind in types()}
    proven = sum(one.startswith("proven") for one in verdicts.values())
    opening = OPENING.format(
        version=transformers.__version__, proven=proven, all=len(verdicts), table=len(FAMILIES)
    )
    rows = [f"| {kind} | {said} |" for kind, said in verdicts.items()]
    PAGE.write_text("\n".join([opening, *rows]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
