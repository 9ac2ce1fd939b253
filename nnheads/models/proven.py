"""What is known of a model's family: its row, from the table or derived, and the proof of it.

    row = row_of(config)                 # refused by name, with the line that fails
    told = told_of(config)
    told.row, told.refusal               # "" where every line of the proof holds

The model is built small, with random weights: a row that is not in the table is derived from one
run of it (`derive`), and every row is held against it (`proof`). That takes a second once: what
comes out is kept in the user's cache, under a hash of the configuration and of the versions that
had a part in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnheads.errors import ModelError, first_line
from nnheads.models.families import FAMILIES, Family, digest, learn
from nnheads.models.kept import cache, keep
from nnheads.models.loading import quiet
from nnheads.models.small import small

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from nnheads.models.proof import Line

LARGEST = 30_000_000  # weights of a small model; more were not made small
LOUDER = 5  # times the usual random weights, so that every head matters
LAYOUT = 1  # of what is kept; another number proves again
PARTS = ("derive", "proof", "proof_checks", "proof_subject", "recorded", "small")


@dataclass(frozen=True)
class Told:
    """What is known of a configuration: its row and the proof of it, or why there is none."""

    row: Family | None
    lines: tuple[Line, ...] = ()
    reason: str = ""

    @property
    def refusal(self) -> str:
        """Why the model cannot be used; empty if it can."""
        failed = [f"{line.says}: {line.failure}" for line in self.lines if line.failure]
        return self.reason or (f"not so: {failed[0]}" if failed else "")


def row_of(config: PretrainedConfig) -> Family:
    """Return the row of a model's family: that of the table, else one that is proven.

    Raises:
        ModelError: a model whose row cannot be derived, or does not hold; it says why.
    """
    known = FAMILIES.get(config.model_type)
    if known is not None:
        return known
    told = told_of(config)
    if told.row is None or told.refusal:
        raise ModelError(
            f"model family {config.model_type!r} is not known to nnheads, and cannot be derived"
            f" from the model: {told.refusal}"
        )
    learn(config, told.row)
    return told.row


def types() -> list[str]:
    """Return the types of models that transformers knows as causal language models."""
    from transformers.models.auto import modeling_auto

    return sorted(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def usual(kind: str) -> PretrainedConfig:
    """Return the configuration that transformers gives a type if nothing is said.

    Raises:
        ModelError: it gives none.
    """
    from transformers import AutoConfig

    try:
        with quiet():
            config: PretrainedConfig = AutoConfig.for_model(kind)
            return config
    except Exception as error:  # a type whose usual configuration contradicts itself
        raise ModelError(f"it has no usual configuration ({_said(error)})") from error


def told_of(config: PretrainedConfig) -> Told:
    """Return the row of a configuration and the proof of it, kept or made now."""
    path = _path(config)
    told = _read(path)
    if told is None:
        told = examined(config)
        keep(path, json.dumps(dataclasses.asdict(told)))
    return told


def examined(config: PretrainedConfig) -> Told:
    """Build a small model; prove the row that the table has, or that is derived from it."""
    from nnheads.models.derive import derived
    from nnheads.models.proof import proof

    try:
        with quiet():
            module = built(config)
            row = FAMILIES.get(config.model_type) or derived(module)
            learn(module.config, row)
            return Told(row, tuple(proof(module, row, any_tokenizer())))
    except ModelError as error:
        return Told(None, reason=str(error))
    except Exception as error:  # what a model's own file raises where its sizes do not fit
        return Told(
            None,
            reason=f"its small copy cannot be built and run ({_said(error)})",
        )


def built(config: PretrainedConfig) -> Any:
    """Return a small random model of a configuration, which computes attention eagerly.

    Raises:
        ModelError: it is not small.
    """
    import torch
    from transformers import AutoModelForCausalLM

    made: Any = AutoModelForCausalLM
    shape = small(config)
    with torch.device("meta"):
        weights = sum(one.numel() for one in made.from_config(shape).parameters())
    if weights > LARGEST:
        raise ModelError(f"its small copy still has {weights:,} weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = made.from_config(shape, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(LOUDER if parameter.dim() > 1 else 1).requires_grad_(False)
    return module


def _said(error: BaseException) -> str:
    line = first_line(error)
    short = line if len(line) < 120 else f"{line[:119]}…"
    return f"{type(error).__name__}: {short}"


def any_tokenizer() -> Any:
    """Return a tokenizer that says nothing, for models that are only given numbers."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1}, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")


def _path(config: PretrainedConfig) -> Path:
    """Return where the proof of a configuration is kept."""
    from importlib.metadata import version

    own = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in PARTS]
    versions = [version(name) for name in ("transformers", "torch", "nnsight")]
    facts = [digest(config), str(LAYOUT), *versions]
    key = hashlib.sha256(b"\n".join([*own, *(one.encode() for one in facts)])).hexdigest()
    return cache() / "families" / f"{config.model_type}-{key[:32]}.json"


def _read(path: Path) -> Told | None:
    """Return what a file keeps; None where there is none, or it is of no use."""
    from nnheads.models.proof import Line

    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        row = None if kept["row"] is None else Family(**kept["row"])
        return Told(row, tuple(Line(**line) for line in kept["lines"]), kept["reason"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
