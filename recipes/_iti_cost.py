"""What an evaluation by `nnheads iti` would cost, before it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnheads.recipes import _iti, _iti_questions
from nnheads.recipes._terminal import say

if TYPE_CHECKING:
    from nnheads.recipes._study import Study

    from nnheads.models.geometry import Geometry
    from nnheads.truth.iti_cost import Cost

LENGTH = 512  # of the sequences by which this machine's speed is measured


def say_cost(study: Study) -> None:
    """Print statements, tokens, bytes, and seconds where it would run here."""
    from nnheads.models.geometry import geometry

    _iti.check(study)
    read, model = _iti_questions.read(study), study.model
    _, prompts = _iti_questions.statements_of(model.tokenizer, study, read)
    sizes = geometry(model)
    price = cost_of(study, prompts, sizes)
    forwards = -(-price.rows // study.batch_size)
    say(
        f"{price.rows:,} statements and texts to read, {price.tokens:,} tokens, in {forwards:,}"
        f" forwards or more of at most {study.batch_size} rows"
    )
    say(
        f"{price.output_bytes / 1e6:,.1f} MB of head outputs, {price.score_bytes / 1e3:,.1f} kB of"
        " scores"
    )
    flops = operations(model, price.tokens, sizes)
    here = "" if on_server(study) else f", at least {seconds(model, flops, sizes):,.1f} s here"
    say(f"{flops:.1e} operations{here}; answers in words come on top")


def cost_of(study: Study, prompts: Any, sizes: Geometry) -> Cost:
    """Return what fitting and testing read and keep."""
    from nnheads.truth.iti_cost import cost
    from nnheads.truth.neutral import LONGEST

    tokenizer = study.model.tokenizer
    strengths = _iti.numbers_in(study.alpha, "alpha")
    cells = len(strengths) * len(_iti.counts_in(study.heads, sizes.layers * sizes.heads))
    texts = [tokenizer(text)["input_ids"][:LONGEST] for text in _iti_questions.neutral_of(study)]
    return cost(
        study.model,
        prompts,
        sizes,
        folds=study.folds,
        val_ratio=study.val_ratio,
        seed=study.seed,
        cells=0 if cells == 1 else cells,
        draws=study.draws,
        neutral=[len(ids) for ids in texts],
    )


def operations(model: Any, tokens: int, sizes: Geometry) -> float:
    """Return the floating-point operations of so many tokens."""
    from nnheads.patching.cost import block_parameters

    parameters = block_parameters(model) * sizes.layers + sizes.d_model * sizes.vocabulary
    return 2 * tokens * parameters


def on_server(study: Study) -> bool:
    """Return whether the run would be on another machine."""
    return study.remote not in (None, "local")


def seconds(model: Any, flops: float, sizes: Geometry) -> float:
    """Return how long so many operations take here at the least."""
    import torch

    from nnheads.patching.cost import rate

    device = next(model._module.parameters()).device
    return flops / rate(torch.device(device), LENGTH, sizes.d_model)
