"""The models and prompts of these folders. Their weights are a formula, so that none are stored."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = {
    "llama": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 40,
        "max_position_embeddings": 32,
        "tie_word_embeddings": False,
    },
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 40, "n_positions": 32},
}
BASE = [[5, 9, 2, 31, 17, 8], [11, 3, 3, 20, 39, 1]]
SOURCE = [[7, 30, 12, 6, 1, 22], [4, 18, 25, 33, 2, 10]]


def network(family: str, **options: str) -> torch.nn.Module:
    """Return the model of a family; options: of `from_config`."""
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(family, **SIZES[family], **special)
    model = AutoModelForCausalLM.from_config(config, **options).eval()
    with torch.no_grad():
        for number, weights in enumerate(model.parameters()):
            if weights.dim() > 1:
                steps = torch.arange(weights.numel()) * (0.7 + 0.01 * number)
                weights.copy_(0.5 * torch.sin(steps).view_as(weights))
    return model
