"""Look inside one run: residual norms, what each layer would answer, and one head's attention.

    inside = logit_lens(model, "When Mary and John went to the market", head=(1, 2))

The logit lens reads every layer's residual stream through the model's own final norm and
unembedding. An empty or too long text is refused before anything runs.
Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import xarray as xr
from jaxtyping import Float, Int
from nnsight import save

from nnheads.errors import BadInput
from nnheads.models.families import family
from nnheads.models.inputs import check_length, check_tokens
from nnheads.models.labels import check_finite, label
from nnheads.models.names import check_head, head_name
from nnheads.models.texts import encode
from nnheads.prompts.pairs import token_texts
from nnheads.trace.lens import read_lens
from nnheads.trace.session import remote_of
from nnheads.writing.logit_attribution import logit_scale

DEPTH = "0 is the embedding, n is behind layer n - 1"
SHARE = {"valid_min": 0.0, "valid_max": 1.0}


@dataclass(frozen=True)
class Lens:
    """What was read of a run; a pattern where a head was named."""

    norms: Float[torch.Tensor, "layer+1 position"]
    tokens: Int[torch.Tensor, "layer+1 position"]
    probabilities: Float[torch.Tensor, "layer+1 position"]
    next_tokens: Int[torch.Tensor, " rank"]
    next_probabilities: Float[torch.Tensor, " rank"]
    patterns: list[Float[torch.Tensor, "query key"]]


def logit_lens(model, text: str, *, k: int = 10, head: tuple[int, int] | None = None) -> xr.Dataset:
    """Return what every layer of one run would answer, and what the run looks like inside.

    Args:
        text: one text; the tokenizer adds its own special tokens.
        k: how many candidates for the next token.
        head: (layer, head) whose attention pattern is kept.

    Returns:
        `residual_norm` (layer, position): L2 norm of the residual stream: 0 is the
        embedding, n is behind layer n - 1. `lens_token`, `lens_probability` (layer, position): the
        best token of the logit lens, and its probability. `next_token`, `next_probability` (rank).
        `attention` (query, key) if a head is named. Coordinates: `token`, `token_text` (position),
        `next_text` (rank), `lens_text` (layer, position). Probabilities and norms have no unit.

    Raises:
        BadInput: an empty text, one longer than the model's context, or a head that does not exist.
        RunError: activations that are not finite.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".

    Example:
        >>> model = nnheads.load()
        >>> inside = nnheads.logit_lens(model, "Mary gave the book to", k=3)
        >>> dict(inside["lens_token"].sizes)
        {'layer': 5, 'position': 6}
        >>> inside["next_token"].dims
        ('rank',)
    """
    ids = torch.tensor([encode(model.tokenizer, text)])
    _check(model, text, ids, k, head)
    lens = _read(model, ids, k, head)
    for values in (lens.norms, lens.probabilities, lens.next_probabilities):
        check_finite(values, "the model's activations")
    return xr.Dataset(_variables(lens, head)).assign_coords(
        _coordinates(model.tokenizer, ids[0], lens)
    )


def _check(model, text: str, ids: torch.Tensor, k: int, head: tuple[int, int] | None) -> None:
    """Refuse texts, numbers of candidates and heads that are not possible."""
    if not text.strip() or ids.numel() == 0:
        raise BadInput("The text is empty. Give at least one word.")
    check_tokens(ids.numpy(), model.config.get_text_config().vocab_size)
    check_length(ids.shape[1], model.config)
    size = model.config.get_text_config().vocab_size
    if not 1 <= k <= size:
        raise BadInput(f"Not a number of candidates: {k}. Ask for 1 to {size}, the vocabulary.")
    if head is not None:
        check_head(model, head)


def _read(
    model, ids: Int[torch.Tensor, "1 position"], k: int, head: tuple[int, int] | None
) -> Lens:
    """Run the text once."""
    request = _request(model, head)
    with torch.no_grad(), model.trace(ids, use_cache=False, remote=remote_of(model)):
        norm, token, chance, pattern = read_lens(model, request)
        norms, tokens, chances, patterns = save(norm), save(token), save(chance), save(pattern)
        ahead = model.output.logits[0, -1].float().softmax(-1).topk(k)
        next_chances, next_tokens = save(ahead.values.clone()), save(ahead.indices.clone())
    return Lens(norms, tokens, chances, next_tokens, next_chances, patterns)


def _request(model, head: tuple[int, int] | None) -> dict:
    """Return what `read_lens` has to know of the model, and the head that is named."""
    return {
        "scale": logit_scale(model),
        "cap": getattr(model.config.get_text_config(), "final_logit_softcapping", None),
        "interface": family(model).interface,
        "head": head,
    }


def _variables(lens: Lens, head: tuple[int, int] | None) -> dict[str, xr.DataArray]:
    """Label what was read. head: (layer, head) that was asked for."""
    stream, attention, rank = ("layer", "position"), ("query", "key"), ("rank",)
    best, ahead = "best token of the logit lens", "candidates for the next token"
    table = {
        "residual_norm": (lens.norms, stream, "L2 norm of the residual stream", {}),
        "lens_token": (lens.tokens, stream, best, {}),
        "lens_probability": (lens.probabilities, stream, f"probability of the {best}", SHARE),
        "next_token": (lens.next_tokens, rank, ahead, {}),
        "next_probability": (lens.next_probabilities, rank, f"probability of {ahead}", SHARE),
    }
    if head is not None:
        meaning = f"attention of {head_name(*head)} from the row's token to the column's"
        table["attention"] = (lens.patterns[0], attention, meaning, SHARE)
    return {
        name: label(values, dims, long_name=meaning, units="1").assign_attrs(limits)
        for name, (values, dims, meaning, limits) in table.items()
    }


def _coordinates(tokenizer, ids: Int[torch.Tensor, " position"], lens: Lens) -> dict:
    """Return the texts of all tokens beside their numbers."""
    lens_texts = [token_texts(tokenizer, row) for row in lens.tokens.cpu().tolist()]
    return {
        "layer": ("layer", range(lens.norms.shape[0]), {"long_name": DEPTH}),
        "position": range(len(ids)),
        "rank": range(len(lens.next_tokens)),
        "token": ("position", ids.numpy()),
        "token_text": ("position", token_texts(tokenizer, ids.tolist())),
        "next_text": ("rank", token_texts(tokenizer, lens.next_tokens.cpu().tolist())),
        "lens_text": (("layer", "position"), lens_texts),
    }
