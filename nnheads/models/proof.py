"""Hold a family's row against a small random model: what it says must be so, to the number.

    for line in proof(module, row, tokenizer):
        print(line.says, line.failure or "holds")

Each check compares what nnheads reads, writes or computes again, through nnsight and under the
attention that the model usually runs with, with plain PyTorch on the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nnheads.errors import first_line
from nnheads.models import proof_checks
from nnheads.models.families import Family
from nnheads.models.proof_subject import Fails, Subject, subject

# name of a check -> what it says of a model
SAYS = {
    "finite": "its predictions are numbers, the same eagerly and as it usually runs",
    "in_a_chain": "each block is given what the one before gave, and the final norm the last",
    "side_by_side": "the output projection is given what the heads computed, side by side",
    "through_slices": "heads through their slices of it add up to what attention gives",
    "adds_up": "what attention and the MLP add is the step of the residual stream",
    "predicts": "what the final norm gives, unembedded, scaled and capped, is what it predicts",
    "written_back": "heads' outputs written back change nothing, to the bit",
    "without_a_head": "without a head the predictions are what a plain hook says",
    "rows_again": "attention rows computed again are its eager weights",
    "values_by_group": "the values of a key/value head reach its group of heads, and no others",
    "without_padding": "a text that is padded on the left is as it is alone",
    "from_the_middle": "a run that begins at a block ends as the whole does",
    "behind_a_cache": "a text whose beginning was read before ends as the whole does",
}


@dataclass(frozen=True)
class Line:
    """One check of a proof: what it says, and how it fails; empty if it holds."""

    check: str
    says: str
    failure: str = ""


def proof(module: Any, row: Family, tokenizer: Any) -> list[Line]:
    """Return every check of a row on a small model.

    Args:
        module: a plain model that computes attention eagerly; it is left computing it as usual.
        tokenizer: any, which nnsight wants to have.
    """
    ready = subject(module, row, tokenizer)
    checks: dict[str, Callable[[Subject], None]] = {
        name: getattr(proof_checks, name) for name in SAYS
    }
    return [Line(name, SAYS[name], _failure(check, ready)) for name, check in checks.items()]


def _failure(check: Callable[[Subject], None], ready: Subject) -> str:
    try:
        check(ready)
    except Fails as failure:
        return str(failure)
    except Exception as error:  # a trace raises anything, and all of it says that it cannot be used
        return f"{type(error).__name__}: {first_line(error)}"
    return ""
