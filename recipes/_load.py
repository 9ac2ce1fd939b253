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


def load(arguments: dict[str, Any], **changed: Any) -> Any:
    """Load the model that the options name, and say on stderr what to know of its server.

    arguments: the options of a study by name; those that it does not have are as in `nnheads.load`.
    changed: options with another value, such as `dtype` of the second side of a comparison, or
        `attention`, the implementation.
    """
    from nnheads.models.load import load as load_model
    from nnheads.remote.place import PlainKey, place_of, remote_value
    from nnheads.remote.server import warnings_for

    quieten()
    request = {**arguments, **changed}
    remote, waiting = request.get("remote"), not request.get("submit", False)
    if not waiting and remote_value(remote) in (False, "local"):
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
    place = place_of(model)
    for warning in warnings_for(place.remote, model.repo_id) if place.on_server else ():
        sys.stderr.write(f"note: {safe(warning)}\n")
    return model


def quieten() -> None:
    """Keep libraries from talking over the study; call it before they are imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
