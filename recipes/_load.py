"""Load the model that the options of a study name.

    model = load(study.arguments)
    second = load(study.arguments, dtype="bfloat16")  # the other side of a comparison

A value of `--remote` that names no server, and `--submit` without a server, are refused.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

from nnheads.errors import BadInput, safe


def parse_remote(text: str | None) -> bool | str:
    """Return `--remote` as nnsight takes it: False, True (NDIF), "local" or a URL."""
    from nnheads.remote.place import remote_value

    return remote_value(text)


def load(arguments: dict[str, Any], **changed: Any) -> Any:
    """Load the model that the options name, and say on stderr what to know of its server.

    arguments: the options of a study by name; those that it does not have are as in `nnheads.load`.
    changed: options with another value, such as `dtype` of the second side of a comparison, or
        `attention`, the implementation.
    """
    from nnheads.models.load import load as load_model
    from nnheads.remote.place import PlainKey
    from nnheads.remote.server import warnings_for

    quieten()
    request = {**arguments, **changed}
    remote, waiting = parse_remote(request.get("remote")), not request.get("submit", False)
    on_server = remote not in (False, "local")
    if not on_server and not waiting:
        raise BadInput("--submit is for jobs on a server; give --remote ndif or a URL with it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PlainKey)  # it is among the notes below
        model = load_model(
            request["model"],
            revision=request.get("revision"),
            dtype=request.get("dtype", "auto"),
            quantization=request.get("quantization"),
            device_map=request.get("device_map"),
            attn_implementation=request.get("attention"),
            remote=remote,
            waiting=waiting,
        )
    for warning in warnings_for(remote, model.repo_id) if on_server else ():
        sys.stderr.write(f"note: {safe(warning)}\n")
    return model


def quieten() -> None:
    """Keep libraries from talking over the study; call it before they are imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
