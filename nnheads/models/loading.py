"""What can go wrong while a model is loaded, said in one line; what goes wrong silently, refused."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
from collections.abc import Iterator

from nnheads.errors import ModelError, first_line

DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("4bit", "8bit")


def held_as(dtype: str, quantization: str | None, remote: bool) -> dict[str, str]:
    """How nnsight's loader is told what weights are held as and what is computed in.

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
    """Refuse a checkpoint that lacks weights: transformers fills them with random numbers, and only
    logs it.

    Meanwhile transformers keeps to itself: no bar for a load of milliseconds, no notes about
        sharding.
    """
    from transformers.utils import logging as talk

    logger, missing = logging.getLogger("transformers.modeling_utils"), _Missing()
    before, verbosity, bars = (
        (logger.level, logger.propagate),
        talk.get_verbosity(),
        talk.is_progress_bar_enabled(),
    )
    talk.set_verbosity_error()
    talk.disable_progress_bar()
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    logger.addHandler(missing)
    try:
        yield
    finally:
        logger.removeHandler(missing)
        talk.set_verbosity(verbosity)
        if bars:
            talk.enable_progress_bar()
        logger.setLevel(before[0])
        logger.propagate = before[1]
    if missing.names:
        more = f" and {len(missing.names) - 1} more" if len(missing.names) > 1 else ""
        raise ModelError(
            f"cannot load {name!r}: its checkpoint has no weights for {missing.names[0]}{more}"
        )


class _Missing(logging.Handler):
    """Collects the names of missing weights from transformers' report of a loading."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.names += re.findall(
            r"(?m)^\s*(\S.*?)\s*\|\s*(?:\x1b\[[\d;]*m)*MISSING\b", record.getMessage()
        )


class one_line:
    """Turn what the loading libraries raise into a ModelError of one line."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        # Loading libraries raise anything: transport errors and broken files have no common base
        # class.
        if isinstance(error, Exception) and not isinstance(error, ModelError):
            raise ModelError(f"cannot load {self.name!r}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """One line for a loading failure; the cause behind transformers' wrapping says which kind it
    is.
    """
    from huggingface_hub import errors

    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__

    def among(*kinds) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if among(errors.GatedRepoError):
        return "the repository is gated; ask for access on its page and set HF_TOKEN"
    if among(errors.RepositoryNotFoundError, errors.HFValidationError):
        return "no such folder and no such model on the Hub (private models need HF_TOKEN)"
    if among(errors.RevisionNotFoundError):
        return "the Hub has no such revision of it"
    offline = (
        errors.OfflineModeIsEnabled,
        errors.LocalEntryNotFoundError,
        ConnectionError,
        TimeoutError,
    )
    if among(*offline) or any("Connect" in type(link).__name__ for link in chain):
        return (
            "no such folder here, and the Hub cannot be reached (no network, or HF_HUB_OFFLINE is"
            " set)"
        )
    return first_line(error)
