"""Attention supervision: which head is taught which pattern, and the loss that teaches it.

The training forward pass runs transformers' own Llama with an attention function that also
computes, for the planted heads alone and for chosen queries alone, -log(attention mass on the
target keys).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers import AttentionInterface

# (layer, head) -> job. Eight query heads share four key/value heads (head // 2), so heads that need
# different keys sit in different pairs; the two induction heads share one.
PLANTED: dict[tuple[int, int], str] = {
    (0, 0): "previous",
    (0, 2): "duplicate",
    (1, 0): "induction",
    (1, 1): "induction",
    (2, 0): "iteration",
    (2, 2): "subject",
    (2, 4): "retrieval",
    (3, 0): "receiver",
}
INDUCTION = ((1, 0), (1, 1))
DECOY = (3, 0)
INDUCTION_DROP, DECOY_DROP = 0.2, 0.7
QUERIES = 256


@dataclass
class Targets:
    """For one job: which query positions of which rows, and the keys they should attend to."""

    rows: torch.Tensor
    queries: torch.Tensor
    keys: torch.Tensor


@dataclass
class Scaffold:
    """What the attention function reads (targets, dropped heads) and leaves behind (losses,
    masses).
    """

    targets: dict[str, Targets] = field(default_factory=dict)
    keep: dict[int, torch.Tensor] = field(default_factory=dict)
    losses: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)

    def register(self, name: str = "scaffold") -> str:
        AttentionInterface.register(name, self.attend)
        return name

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float,
        **_: object,
    ) -> tuple[torch.Tensor, None]:
        """Attend causally; padding is on the right, so no mask is needed."""
        group = query.shape[1] // key.shape[1]
        for (layer, head), job in PLANTED.items():
            if layer == module.layer_idx and job in self.targets:
                scored = query[:, head], key[:, head // group], self.targets[job], scaling
                self.losses[layer, head] = pattern_loss(*scored)
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        z = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling
        )
        keep = self.keep.get(int(module.layer_idx))  # type: ignore[arg-type]
        if keep is not None:
            z = z * keep[:, :, None, None]
        return z.transpose(1, 2).contiguous(), None


def pattern_loss(
    query: torch.Tensor, key: torch.Tensor, wanted: Targets, scaling: float
) -> torch.Tensor:
    """Return mean over the queries of -log(attention mass on the target keys)."""
    scores = (query @ key.mT)[wanted.rows, wanted.queries] * scaling
    future = torch.arange(key.shape[1]) > wanted.queries[:, None]
    scores = scores.masked_fill(future, float("-inf"))
    on_target = scores.masked_fill(~wanted.keys, float("-inf")).logsumexp(-1)
    return (scores.logsumexp(-1) - on_target).mean()


def _sample(
    chosen: torch.Tensor, keys: torch.Tensor, generator: torch.Generator, size: int
) -> Targets:
    rows, queries = chosen.nonzero(as_tuple=True)
    order = torch.randperm(len(rows), generator=generator)[:size]
    rows, queries = rows[order], queries[order]
    return Targets(rows, queries, keys[rows, queries])


def token_targets(
    tokens: torch.Tensor, generator: torch.Generator, *, copied: bool
) -> dict[str, Targets]:
    """Return targets that follow from the tokens: previous, duplicate and, where text is copied,
    induction.
    """
    length = tokens.shape[1]
    real = tokens != 0
    real[:, 0] = False
    before = torch.ones(length, length, dtype=torch.bool).tril(-1)
    same = (tokens[:, :, None] == tokens[:, None, :]) & before
    again = same.any(-1) & real
    previous = torch.eye(length, dtype=torch.bool).roll(-1, 1).tril(-1).expand(len(tokens), -1, -1)
    found = {"previous": _sample(real, previous, generator, QUERIES)}
    first = torch.zeros_like(same)
    # A token without an earlier copy rests on <bos>.
    first[:, :, 0] = True
    seen = _sample(again, same, generator, QUERIES)
    unseen = _sample(real & ~again, first, generator, QUERIES // 2)
    found["duplicate"] = _join(seen, unseen)
    if copied:
        after = torch.zeros_like(same)
        after[:, :, 1:] = same[:, :, :-1]
        found["induction"] = _sample(again, after, generator, QUERIES)
    return {job: wanted for job, wanted in found.items() if len(wanted.rows)}


def _join(one: Targets, other: Targets) -> Targets:
    pairs = ((one.rows, other.rows), (one.queries, other.queries), (one.keys, other.keys))
    return Targets(*(torch.cat(pair) for pair in pairs))


def span_targets(spans: list[list[tuple[str, int, int]]], length: int) -> dict[str, Targets]:
    """Return targets that the generators know: one list of (job, query, key) per row."""
    flat = [
        (job, row, query, key) for row, listed in enumerate(spans) for job, query, key in listed
    ]
    found = {}
    for job in {entry[0] for entry in flat}:
        rows, queries, keys = torch.tensor([entry[1:] for entry in flat if entry[0] == job]).T
        found[job] = Targets(rows, queries, torch.nn.functional.one_hot(keys, length).bool())
    return found


def dropped_heads(rows: int, heads: int, generator: torch.Generator) -> dict[int, torch.Tensor]:
    """Return for each row which heads are silenced: the decoy often, and sometimes one of the
    induction heads.

    So the model learns to do without the decoy, and without any one of the induction heads.
    """
    keep = {layer: torch.ones(rows, heads) for layer in {INDUCTION[0][0], DECOY[0]}}
    chance = torch.rand(rows, 2, generator=generator)
    keep[DECOY[0]][:, DECOY[1]] = (chance[:, 0] >= DECOY_DROP).float()
    for index, (layer, head) in enumerate(INDUCTION):
        lower = index * INDUCTION_DROP / 2
        dropped = (chance[:, 1] >= lower) & (chance[:, 1] < lower + INDUCTION_DROP / 2)
        keep[layer][:, head] = (~dropped).float()
    return keep
