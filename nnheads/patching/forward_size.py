"""How large one forward of a sweep should be where the model runs: rows, positions and logits."""

from __future__ import annotations

from nnheads.models.geometry import geometry
from nnheads.trace.plain import Request
from nnheads.trace.session import remote_of

GPU_TOKENS = 16384  # rows x positions in one forward
# numbers in the widest activation of one forward: enough to keep the arithmetic busy; more leave
# the caches
CPU_NUMBERS = 2**21
# numbers in the copies of a key-value cache, one for each row: half a GiB in single precision, of
# which many rows that swap the last position alone would take many
CPU_CACHES, GPU_CACHES = 2**27, 2**31
COPIES = (1, 3, 5)  # of the logits that are held while answers, ranks or KL are read


def logit_numbers(model, request: Request) -> int:
    """Return how many numbers are held for the logits of one row.

    Of the whole vocabulary, at each question: they, and what a log-sum-exp and KL make of them
    (COPIES, as measured). Almost none where the unembedding's columns are at hand.
    """
    _, questions, answers = request["answers"].shape
    if request.get("weight") is not None:
        return questions * answers
    return questions * geometry(model).vocabulary * COPIES[request["full"]]


def suitable_tokens(model, logits: float = 0.0) -> int:
    """Return how many rows x positions one forward should have where the model runs.

    One that does not fit is halved.

    Args:
        logits: numbers held for them, for each position.
    """
    if not on_cpu(model):
        return GPU_TOKENS
    wide = 4 * geometry(model).d_model
    numbers = max(CPU_NUMBERS, 512 * wide)
    return max(1, min(int(numbers / (wide + logits)), GPU_TOKENS))


def suitable_rows(model, width: int) -> int:
    """Return how many rows one forward should have, each with a copy of the cache of `width`."""
    copy = cached_numbers(model) * width * geometry(model).layers
    return max(1, (CPU_CACHES if on_cpu(model) else GPU_CACHES) // copy)


def cached_numbers(model) -> int:
    """Return how many numbers the cache of one layer holds for one position."""
    sizes = geometry(model)
    # later Falcons cache the keys of a group once for each of its heads
    repeated = getattr(model.config, "new_decoder_architecture", False)
    return 2 * (sizes.heads if repeated else sizes.kv_heads) * sizes.head_dim


def on_cpu(model) -> bool:
    """Return whether a model runs here, on the processor."""
    return not remote_of(model) and next(model._module.parameters()).device.type == "cpu"
