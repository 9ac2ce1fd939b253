"""Look inside one run: residual norms, what each layer would answer, and one head's attention.

The logit lens reads every layer's residual stream through the model's own final norm and
unembedding.
Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
"""

from __future__ import annotations

import torch
import xarray as xr
from nnsight import save

from nnheads.errors import BadInput
from nnheads.models.families import family
from nnheads.models.geometry import geometry
from nnheads.models.inputs import check_length, check_tokens
from nnheads.models.labels import check_finite, label
from nnheads.models.names import check_head
from nnheads.prompts.pairs import token_texts
from nnheads.trace.blocks import hidden
from nnheads.trace.readout import readout
from nnheads.trace.rows import read_rows
from nnheads.trace.session import remote_of


def look(model, text: str, *, k: int = 10, head: tuple[int, int] | None = None) -> xr.Dataset:
    """Run one text and record what is going on inside.

    Args:
        k: how many candidates for the next token.
        head: (layer, head) whose attention pattern is kept.

    Returns:
        `residual_norm` (layer, position): L2 norm of the residual stream before each layer, and
            after the last;
        `lens_token`, `lens_probability` (layer, position): the best token of the logit lens and its
            probability;
        `next_token`, `next_probability` (rank); `attention` (query, key) if a head was named.
        Coordinates `token`, `token_text` (position), `next_text` (rank), `lens_text` (layer,
        position).

    Raises:
        BadInput: an empty text, one longer than the model's context, or a head that does not exist.
        RunError: activations that are not finite.
    """
    ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
    _check(model, text, ids, k, head)
    last, interface = geometry(model).layers, family(model).interface
    scale = float(getattr(model.config, "logit_scale", None) or 1.0)
    cap = getattr(model.config, "final_logit_softcapping", None)
    with torch.no_grad(), model.trace(ids, use_cache=False, remote=remote_of(model)):
        norm, token, chance, patterns = [], [], [], save([])
        for number in range(last):
            layer = model.layers[number]
            stream = layer.input
            best = readout(model, stream[0], scale, cap).max(-1)
            norm.append(stream[0].float().norm(dim=-1))
            token.append(best.indices)
            chance.append(best.values.exp())
            if head is not None and head[0] == number:
                patterns.append(read_rows(layer, interface)[0, head[1]].clone())
        stream = hidden(model.layers[last - 1].output)
        best = readout(model, stream[0], scale, cap).max(-1)
        last_norm, there = (
            stream[0].float().norm(dim=-1),
            stream.device,
        )  # layers may be on several devices
        norms = save(torch.stack([one.to(there) for one in [*norm, last_norm]]))
        tokens = save(torch.stack([one.to(there) for one in [*token, best.indices]]))
        chances = save(torch.stack([one.to(there) for one in [*chance, best.values.exp()]]))
        ahead = model.output.logits[0, -1].float().softmax(-1).topk(k)
        next_chance, next_token = save(ahead.values.clone()), save(ahead.indices.clone())
    for values in (norms, chances, next_chance):
        check_finite(values, "the model's activations")
    return _dataset(model, ids[0], norms, tokens, chances, next_token, next_chance, patterns)


def _check(model, text: str, ids: torch.Tensor, k: int, head: tuple[int, int] | None) -> None:
    if not text.strip() or ids.numel() == 0:
        raise BadInput("the text is empty; there is nothing to look at")
    check_tokens(ids.numpy(), model.config.vocab_size)
    check_length(ids.shape[1], model.config)
    if not 1 <= k <= model.config.vocab_size:
        raise BadInput(
            f"{k} candidates are not possible; the vocabulary has {model.config.vocab_size}"
        )
    if head is not None:
        check_head(model, head)


def _dataset(model, ids, norms, tokens, chances, next_token, next_chance, patterns) -> xr.Dataset:
    place = ("layer", "position")
    data = {
        "residual_norm": label(norms, place, long_name="L2 norm of the residual stream", units="1"),
        "lens_token": label(tokens, place, long_name="best token of the logit lens", units="1"),
        "lens_probability": label(
            chances, place, long_name="its probability", units="1", valid_min=0.0, valid_max=1.0
        ),
        "next_token": label(
            next_token, ("rank",), long_name="candidates for the next token", units="1"
        ),
        "next_probability": label(
            next_chance, ("rank",), long_name="probability", units="1", valid_min=0.0, valid_max=1.0
        ),
    }
    for pattern in patterns:
        data["attention"] = label(
            pattern,
            ("query", "key"),
            long_name="attention",
            units="1",
            valid_min=0.0,
            valid_max=1.0,
        )
    texts = token_texts(model.tokenizer, ids.tolist())
    lens = [token_texts(model.tokenizer, row) for row in tokens.cpu().tolist()]
    coordinates = {
        "layer": range(norms.shape[0]),
        "position": range(len(texts)),
        "rank": range(len(next_token)),
        "token": ("position", ids.numpy()),
        "token_text": ("position", texts),
        "next_text": ("rank", token_texts(model.tokenizer, next_token.cpu().tolist())),
        "lens_text": (place, lens),
    }
    return xr.Dataset(data).assign_coords(coordinates)
