"""The reference model before training, and how it is written to a folder."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from nnheads.prompts import world

SHARED_VECTOR = 0.02


def config() -> LlamaConfig:
    ids = world.token_ids()
    return LlamaConfig(
        vocab_size=len(ids),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        # On purpose not hidden_size / heads: code that assumes it breaks here.
        head_dim=32,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=ids["<bos>"],
        eos_token_id=ids["<eos>"],
        pad_token_id=ids["<pad>"],
    )


def initial_model(seed: int) -> LlamaForCausalLM:
    """Return a fresh model whose embeddings share one vector.

    Llama's attention has no biases; without something constant in the residual stream a first-layer
    head has nothing to write a pattern with that is about positions alone.
    """
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config())
    with torch.no_grad():
        model.model.embed_tokens.weight.add_(SHARED_VECTOR * torch.randn(model.config.hidden_size))
    return model


def write(model: LlamaForCausalLM, folder: str | Path) -> None:
    """Write weights, settings and tokenizer, as `nnheads.load` takes them."""
    folder, during = Path(folder), model.config._attn_implementation
    model.config._attn_implementation = "sdpa"
    ids = world.token_ids()
    model.generation_config = GenerationConfig(
        bos_token_id=ids["<bos>"],
        eos_token_id=ids["<eos>"],
        pad_token_id=ids["<pad>"],
        do_sample=False,
    )
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    if bars:
        logging.enable_progress_bar()
    for file in folder.glob("*.safetensors"):
        # They are written readable for their owner alone; a package is for everyone.
        file.chmod(0o644)
    world.build_tokenizer().save_pretrained(folder)
    model.config._attn_implementation = during
