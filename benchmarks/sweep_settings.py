"""The models and prompts of `bench_sweep.py`: random weights and tokens, of several sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from other_tools import words
from transformers import AutoConfig, AutoModelForCausalLM


@dataclass(frozen=True)
class Setting:
    """Prompts of one size: pairs, tokens of each, and how many of those both prompts of a pair
    start with.
    """

    model_type: str
    cases: int
    tokens: int
    shared: int
    full: bool = False

    @property
    def name(self) -> str:
        return f"{self.model_type}-{self.cases}x{self.tokens}-{self.shared}"


SETTINGS = (
    Setting("gpt2", 8, 15, 9),
    Setting("gpt2", 8, 15, 0),
    Setting("gpt2", 64, 15, 9),
    Setting("gpt2", 8, 64, 38),
    Setting("llama", 8, 15, 9),
    Setting("gpt2", 64, 64, 38, full=True),
)


def config_of(model_type: str, given):
    """GPT-2 small's shape, or a Llama of the same size whose query heads share key-value heads in
    groups.
    """
    special = {
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
        "vocab_size": given.vocabulary,
    }
    if model_type == "gpt2":
        return AutoConfig.for_model(
            "gpt2",
            n_layer=given.layers,
            n_head=given.heads,
            n_embd=given.width,
            n_positions=1024,
            **special,
        )
    return AutoConfig.for_model(
        "llama",
        num_hidden_layers=given.layers,
        hidden_size=given.width,
        intermediate_size=8 * given.width // 3,
        num_attention_heads=given.heads,
        num_key_value_heads=given.kv_heads,
        max_position_embeddings=1024,
        **special,
    )


def save_model(config, folder: Path) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).eval().save_pretrained(folder)
    words(config.vocab_size).save_pretrained(folder)


def save_inputs(setting: Setting, vocabulary: int, path: Path) -> None:
    """Random clean and corrupted prompts; answer and wrong answer."""
    generator = np.random.default_rng(0)
    ids = generator.integers(vocabulary, size=(2, setting.cases, setting.tokens))
    ids[1, :, : setting.shared] = ids[0, :, : setting.shared]
    answers = generator.integers(vocabulary, size=(2, setting.cases))
    np.savez(path, token=ids[0], corrupted=ids[1], answer=answers[0], wrong=answers[1])
