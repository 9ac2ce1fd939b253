"""One training row of the reference model: tokens, loss weights and attention targets."""

from __future__ import annotations

from dataclasses import dataclass, field

from nnheads.prompts import world

TEXT = 0.03


@dataclass
class Document:
    """One training row; `spans` are attention targets (job, query position, key position)."""

    task: str
    tokens: list[int] = field(default_factory=lambda: [world.token_ids()["<bos>"]])
    weights: list[float] = field(default_factory=lambda: [0.0])
    spans: list[tuple[str, int, int]] = field(default_factory=list)

    def add(self, text: list[str], weight: float = TEXT) -> None:
        ids = world.token_ids()
        self.add_ids([ids[word] for word in text], weight)

    def add_ids(self, tokens: list[int], weight: float) -> None:
        self.tokens += tokens
        self.weights += [weight] * len(tokens)

    def end(self) -> Document:
        self.add([".", "<eos>"], TEXT)
        return self
