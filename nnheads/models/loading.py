"""Refuse what cannot be loaded, in one line, and what transformers would load wrong in silence.

    with one_line(name), whole_checkpoint(name):
        model = TransformersModel(...)

Everything that goes wrong is a ModelError.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
from collections.abc import Iterator
from typing import Any

from nnheads.errors import ModelError, first_line

DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("4bit", "8bit")
OFFLINE = (
    "no such folder here, and the Hub cannot be reached (no network, or HF_HUB_OFFLINE is set)"
)


def held_as(dtype: str, quantization: str | None, remote: bool) -> dict[str, str]:
    """Return how nnsight's loader is told what weights are held as and what is computed in.

    Raises:
        ModelError: a name that is not known, bitsandbytes missing, a dtype that 8 bit cannot
            compute in, or a model whose weights are a server's.
    """
    if dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r} is not known; use one of {', '.join(DTYPES)}")
    if quantization is None:
        return {"dtype": dtype}
    if quantization not in QUANTIZATIONS:
        raise ModelError(
            f"quantization {quantization!r} is not known; use one of {', '.join(QUANTIZATIONS)}"
        )
    if remote:
        raise ModelError(
            f"quantization {quantization} is not possible on a server, which decides how it holds"
            " weights"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"quantization {quantization} needs bitsandbytes; pip install 'nnheads[quantized]'"
        )
    if quantization == "8bit" and dtype not in ("auto", "float16"):
        raise ModelError(
            f"8bit computes in float16, not in {dtype}; leave --dtype out, or use 4bit"
        )
    return {"dtype": quantization} | ({} if dtype == "auto" else {"compute_dtype": dtype})


@contextlib.contextmanager
def whole_checkpoint(name: str) -> Iterator[None]:
    """Refuse a checkpoint that lacks weights.

    transformers fills them with random numbers, and only logs it.

    Raises:
        ModelError: weights are missing.
    """
    logger, missing = logging.getLogger("transformers.modeling_utils"), _Missing()
    level, propagate = logger.level, logger.propagate
    with _quiet():
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        logger.addHandler(missing)
        try:
            yield
        finally:
            logger.removeHandler(missing)
            logger.setLevel(level)
            logger.propagate = propagate
    if missing.names:
        more = f" and {len(missing.names) - 1} more" if len(missing.names) > 1 else ""
        raise ModelError(
            f"cannot load {name!r}: its checkpoint has no weights for {missing.names[0]}{more}"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers to itself: no bar for a load of milliseconds, no notes about sharding."""
    from transformers.utils import logging as talk

    talk_of: Any = talk  # its functions carry no types
    verbosity, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk_of.set_verbosity_error()
    talk_of.disable_progress_bar()
    try:
        yield
    finally:
        talk.set_verbosity(verbosity)
        if bars:
            talk_of.enable_progress_bar()


class _Missing(logging.Handler):
    """Collect the names of missing weights from transformers' report of a loading."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.names += re.findall(
            r"(?m)^\s*(\S.*?)\s*\|\s*(?:\x1b\[[\d;]*m)*MISSING\b", record.getMessage()
        )


@contextlib.contextmanager
def one_line(name: str) -> Iterator[None]:
    """Turn what the loading libraries raise into a ModelError of one line.

    They raise anything: transport errors and broken files have no common base class.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"cannot load {name!r}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Return why loading failed; the cause behind transformers' wrapping says which kind it is."""
    from huggingface_hub import errors

    reasons: dict[tuple[type[BaseException], ...], str] = {
        (errors.GatedRepoError,): (
            "the repository is gated; ask for access on its page and set HF_TOKEN"
        ),
        (errors.RepositoryNotFoundError, errors.HFValidationError): (
            "no such folder and no such model on the Hub (private models need HF_TOKEN)"
        ),
        (errors.RevisionNotFoundError,): "the Hub has no such revision of it",
        (
            errors.OfflineModeIsEnabled,
            errors.LocalEntryNotFoundError,
            ConnectionError,
            TimeoutError,
        ): OFFLINE,
    }
    chain = _chain(error)
    for kinds, reason in reasons.items():
        if any(isinstance(link, kinds) for link in chain):
            return reason
    if any("Connect" in type(link).__name__ for link in chain):
        return OFFLINE
    return first_line(error)


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and all that it came from."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain
