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
from pathlib import Path
from typing import Any

from nnheads.errors import ModelError, first_line

DTYPES = ("auto", "float32", "bfloat16", "float16")
MOST_LAYERS = 10_000
SPREADING = ("auto", "balanced", "balanced_low_0", "sequential")  # as accelerate spreads a model
QUANTIZATIONS = ("4bit", "8bit")
# what transformers' report calls weights -> what is wrong with them
WRONG = {
    "MISSING": "its checkpoint has no weights for",
    "UNEXPECTED": "its configuration has no place for the weights",
    "MISMATCH": "its configuration and its checkpoint differ in the size of",
}
# tables that older checkpoints hold and that are computed today; they are no weights
LEFT_OVER = re.compile(r"(rotary_emb\.inv_freq|\.(attn|attention)\.(masked_)?bias)$")
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


def check_device_map(device_map: str | dict[str, Any] | None) -> None:
    """Refuse a device map that names no device and no way to spread a model.

    Raises:
        ModelError: naming it.
    """
    import torch

    if not isinstance(device_map, str) or device_map in SPREADING:
        return
    try:
        torch.device(device_map)
    except RuntimeError:
        ways = ", ".join(SPREADING)
        raise ModelError(
            f"device_map {device_map!r} is no device; use one such as cpu or cuda:0, or {ways}"
        ) from None


def check_folder(name: str, folder: Path) -> None:
    """Refuse a folder that holds no model.

    Raises:
        ModelError: it holds an adapter of one, or nothing of the kind.
    """
    if (folder / "config.json").is_file():
        return
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{name} holds an adapter (LoRA) and not a model; merge it into its base model with"
            " peft's merge_and_unload, and save that with save_pretrained"
        )
    raise ModelError(
        f"{name} is a folder without config.json; save a model there with save_pretrained"
    )


def check_form(config: Any) -> None:
    """Refuse a form of a known family that its row does not describe.

    Raises:
        ModelError: a number of layers that no model has; BLOOM whose norms join the stream; OPT as
            its 350m: norms behind each part and none at the end, or embeddings of another width.
    """
    layers = getattr(config, "num_hidden_layers", 1)
    if not isinstance(layers, int) or not 1 <= layers <= MOST_LAYERS:
        raise ModelError(f"its configuration says {layers!r} layers; expected 1 to {MOST_LAYERS}")
    if getattr(config, "apply_residual_connection_post_layernorm", False):
        raise ModelError(
            "this model adds what its norms give back to the residual stream"
            " (apply_residual_connection_post_layernorm); nnheads reads the form without"
        )
    if config.model_type != "opt":
        return
    if not config.do_layer_norm_before or config.word_embed_proj_dim != config.hidden_size:
        raise ModelError(
            "this OPT has norms behind its parts and none at the end, or embeddings of another"
            " width (do_layer_norm_before, word_embed_proj_dim; as opt-350m); nnheads reads the"
            " form of the other sizes"
        )


@contextlib.contextmanager
def whole_checkpoint(name: str) -> Iterator[None]:
    """Refuse a checkpoint that lacks weights, or has some that its configuration has no place for.

    transformers fills in random numbers for those, drops these, and only logs it.

    Raises:
        ModelError: weights are missing, or left over.
    """
    logger, report = logging.getLogger("transformers.modeling_utils"), _Report()
    level, propagate = logger.level, logger.propagate
    with quiet():
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        logger.addHandler(report)
        try:
            yield
        except Exception:
            report.refuse(name)  # it says more than what was raised
            raise
        finally:
            logger.removeHandler(report)
            logger.setLevel(level)
            logger.propagate = propagate
    report.refuse(name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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


class _Report(logging.Handler):
    """Collect names of weights by what transformers' report of a loading says of them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.names: dict[str, list[str]] = {status: [] for status in WRONG}

    def refuse(self, name: str) -> None:
        """Raise ModelError where anything is wrong."""
        for status, meaning in WRONG.items():
            names = self.names[status]
            if names:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                raise ModelError(f"cannot load {name!r}: {meaning} {names[0]}{more}")

    def emit(self, record: logging.LogRecord) -> None:
        rows = r"(?m)^\s*(\S.*?)\s*\|\s*(?:\x1b\[[\d;]*m)*([A-Z]+)\b"
        for name, status in sorted(re.findall(rows, record.getMessage())):
            if status in self.names and not LEFT_OVER.search(name):
                self.names[status].append(name)


@contextlib.contextmanager
def one_line(name: str, advice: str = "") -> Iterator[None]:
    """Turn what the loading libraries raise into a ModelError of one line.

    They raise anything: transport errors and broken files have no common base class.

    advice: what the line ends in.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"cannot load {name!r}: {_reason(error)}{advice}") from error


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
    if "custom code" in str(error):
        return "it needs code of its own, and nnheads runs no code from a model's folder"
    return first_line(error)


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and all that it came from."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain
