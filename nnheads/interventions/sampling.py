"""How the next token is drawn: transformers' own processors of scores, and a seed."""

from __future__ import annotations

from typing import Any

from nnheads.errors import BadInput, first_line
from nnheads.interventions.plain_values import is_whole

# transformers' own processors, in the order in which it applies them
PROCESSORS = {
    "repetition_penalty": "RepetitionPenaltyLogitsProcessor",
    "no_repeat_ngram_size": "NoRepeatNGramLogitsProcessor",
    "temperature": "TemperatureLogitsWarper",
    "top_k": "TopKLogitsWarper",
    "top_p": "TopPLogitsWarper",
    "min_p": "MinPLogitsWarper",
    "typical_p": "TypicalLogitsWarper",
}


def sampling(sample: dict[str, Any] | None) -> tuple[list[Any], int | None]:
    """Return processors of scores, and the seed (None: nothing is drawn).

    Args:
        sample: keys of PROCESSORS, `do_sample` and `seed`; None for the likeliest token.

    Raises:
        BadInput: an unknown option, or a value that transformers refuses.
    """
    options = dict(sample or {})
    draws = bool(options.pop("do_sample", sample is not None))
    seed = options.pop("seed", 0)
    unknown = [name for name in options if name not in PROCESSORS]
    if unknown:
        known = ", ".join([*PROCESSORS, "do_sample", "seed"])
        raise BadInput(f"sampling option {unknown[0]!r} is not known; use {known}")
    if not is_whole(seed):
        raise BadInput(f"seed {seed!r} is no whole number")
    processors = [
        _processor(name, options[name]) for name in PROCESSORS if options.get(name) is not None
    ]
    return processors, int(seed) if draws else None


def _processor(name: str, value: Any) -> Any:
    import transformers

    try:
        return getattr(transformers, PROCESSORS[name])(value)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{name} {value!r} is not possible: {first_line(error)}") from None
