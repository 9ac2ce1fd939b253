"""The seconds that no exact sweep can do without: how many multiplications an answer takes, and how
many this machine does in a second.
"""

from __future__ import annotations

import time

import torch
from sweep_settings import Setting


def least_operations(config, setting: Setting) -> int:
    """Floating-point operations (a multiplication and an addition are two) that no exact sweep can
    do without.

    Both runs once: the clean one only behind the shared prefix. Then for every head and case of
        layer l, at the tail
    positions behind the shared prefix: the head's slice of W_O and the MLP of layer l and all of
        layers l + 1 to L - 2.
    Of the last layer, in every run, keys and values, and the rest at the answer's position alone;
    and two columns of the unembedding. Norms, activations and softmax are not counted.
    """
    width, heads, layers = config.hidden_size, config.num_attention_heads, config.num_hidden_layers
    dim, kv = width // heads, getattr(config, "num_key_value_heads", heads)
    mlp = (
        2 * width * 4 * width
        if config.model_type == "gpt2"
        else 3 * width * config.intermediate_size
    )
    keys_values, query, out = 2 * width * kv * dim, width * width, width * width

    def attention(first: int) -> int:
        """Products of queries from `first` on with the keys that they see, and of those patterns
        with values.
        """
        return sum(2 * heads * dim * (place + 1) for place in range(first, setting.tokens))

    def whole(first: int) -> int:
        """One layer, from position `first` on."""
        return (setting.tokens - first) * (keys_values + query + out + mlp) + attention(first)

    tail, last = setting.tokens - setting.shared, setting.tokens - 1
    answer, readout = query + out + mlp + attention(last), 2 * width
    end = tail * keys_values + answer
    total = (
        (layers - 1) * (whole(0) + whole(setting.shared))
        + setting.tokens * keys_values
        + answer
        + end
        + 2 * readout
    )
    for layer in range(layers - 1):
        entry = tail * (dim * width + mlp)
        total += heads * (entry + (layers - 2 - layer) * whole(setting.shared) + end + readout)
    total += heads * (dim * width + mlp + readout)
    return 2 * setting.cases * total


def multiplications_per_second(config, setting: Setting, threads: int, tries: int = 9) -> float:
    """The best floating-point rate of any float32 product that the sweep consists of, in operations
    per second.
    """
    width = config.hidden_size
    inner = 4 * width if config.model_type == "gpt2" else config.intermediate_size
    rows = config.num_attention_heads * setting.cases * (setting.tokens - setting.shared)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    best = 0.0
    for first, second in ((width, width), (width, inner), (inner, width)):
        left, right, out = (
            torch.randn(rows, first),
            torch.randn(first, second),
            torch.empty(rows, second),
        )
        for _ in range(tries):
            start = time.perf_counter()
            torch.mm(left, right, out=out)
            best = max(best, 2 * rows * first * second / (time.perf_counter() - start))
    torch.set_num_threads(before)
    return best
