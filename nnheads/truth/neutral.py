"""What an edit costs on texts that it should not change: cross-entropy and KL divergence.

    coherence(model, intervention, neutral_texts(model, texts))["kl"].mean()

Source: Li et al. 2023, arXiv 2306.03341.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from nnheads.errors import BadInput
from nnheads.interventions.likelihood import compare
from nnheads.interventions.schema import Intervention
from nnheads.interventions.texts import continuations
from nnheads.models.texts import encode_all
from nnheads.truth.answer_likelihood import in_batches

SOURCE = "Li et al. 2023, arXiv 2306.03341"
LONGEST = 128  # tokens of a neutral text that are read
MEANING = {
    "cross_entropy": "cross-entropy on neutral text",
    "original": "cross-entropy on neutral text without the edit",
    "kl": "KL divergence on neutral text, without from with the edit",
}


def neutral_texts(model, texts: Sequence[str], longest: int = LONGEST) -> xr.Dataset:
    """Return texts on which an edit should change nothing, cut to so many tokens.

    All but the first token is predicted.

    Returns:
        `token`, `mask` (batch, position), `prompt_length` (batch).

    Raises:
        BadInput: no texts, or one in which nothing can be predicted.
    """
    if not texts:
        raise BadInput("no neutral texts are given; expected at least one")
    rows = [row[:longest] for row in encode_all(model.tokenizer, texts)]
    for number, row in enumerate(rows, 1):
        if len(row) < 2:
            raise BadInput(
                f"neutral text {number} has fewer than two tokens; nothing in it can be predicted"
            )
    return continuations(model, rows, [1] * len(rows))


def coherence(
    model,
    intervention: Intervention,
    neutral: xr.Dataset,
    *,
    batch_size: int = 16,
    parts: Path | None = None,
    name: str = "neutral",
    quiet: bool = True,
) -> xr.Dataset:
    """Return what an edit costs on neutral texts.

    Args:
        neutral: `neutral_texts`, (batch, position).
        parts: folder in which finished batches are kept for a later call, by `name`.

    Returns:
        (text), nats per token: `cross_entropy` with the edit, `original` without, `kl` of the
        edited from the unedited predictions.

    Raises:
        BadInput: an edit that comes too late for every text.
        RunError: predictions that are no numbers.

    Source: Li et al. 2023, arXiv 2306.03341.
    """
    options = {"size": batch_size, "parts": parts, "quiet": quiet}
    likely = in_batches(compare, model, intervention, neutral, name=name, **options)
    values = (-likely["log_probability"], -likely["original"], likely["kl"])
    costs = xr.Dataset()
    for (name, meaning), each in zip(MEANING.items(), values):
        attrs = {"long_name": meaning, "units": "nat", "source": SOURCE}
        costs[name] = ("text", each.values.astype("float32"), attrs)
    return costs
