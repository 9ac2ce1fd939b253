"""Hashes that say whether two jobs are the same, whatever process made them.

    digest_of(job, tracer)  # "3f2a90c1b7d4e855"

The bytes of a request do not serve: they differ from process to process. A value whose kind is not
known here, such as the model, counts by its kind alone.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from types import CodeType
from typing import Any

import numpy as np

PLAIN = (bool, int, float, complex, str, bytes)


def digest_of(job: Any, tracer: Any) -> str:
    """Return a hash of what a job does and what it works on.

    It covers the model, the code of the block, all that the block reads, and the model's inputs.
    """
    from importlib import metadata

    from nnsight.intervention.serialization import reduce_block

    frame = tracer.info.frame
    code, names, variables = reduce_block(tracer.node, frame.f_globals, dict(frame.f_locals))
    inputs = getattr(tracer, "args", ()), getattr(tracer, "kwargs", {})
    versions = [metadata.version("nnsight"), metadata.version("nnheads")]
    who = [job.model_key, job.env, code.strip(), *versions]
    text = repr([who, content([names, variables, inputs])])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content(value: Any) -> str:
    """Return a hash of a value.

    Numbers and texts count by what they are, containers by what they hold, functions by their
    source and what they hold, and everything else by its kind.
    """
    text = repr([type(value).__qualname__, _parts(value)])
    return hashlib.sha256(text.encode()).hexdigest()


def _parts(value: Any) -> list[Any]:
    """Return what tells a value from others of its kind."""
    import torch

    if isinstance(value, torch.Tensor):
        return _parts_of_tensor(value)
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, np.ascontiguousarray(value).tobytes()]
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        return _parts_of_container(value)
    if inspect.isfunction(value):
        return _parts_of_function(value)
    if dataclasses.is_dataclass(value):
        fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
        return [content(fields)]
    plain = value is None or isinstance(value, (*PLAIN, torch.dtype, torch.device))
    return [repr(value)] if plain else []


def _parts_of_tensor(value: Any) -> list[Any]:
    import torch

    value = value.detach().cpu().contiguous()
    numbers = value.flatten().view(torch.uint8).numpy().tobytes()
    return [str(value.dtype), tuple(value.shape), numbers]


def _parts_of_container(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return sorted((repr(name), content(item)) for name, item in value.items())
    hashes = [content(item) for item in value]
    return sorted(hashes) if isinstance(value, (set, frozenset)) else hashes


def _parts_of_function(value: Any) -> list[Any]:
    held = [cell.cell_contents for cell in value.__closure__ or ()]
    source = _source(value.__code__)
    return [value.__module__, value.__qualname__, source, content([held, value.__defaults__])]


@functools.cache
def _source(code: CodeType) -> str:
    """Return the source of a function, looked up once: what is loaded is what runs."""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):  # typed into an interpreter
        return repr(code.co_code)
