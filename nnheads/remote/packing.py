"""Pack what is sent to a server, without the folders of the machine that it is sent from.

    blob = packed(tracer, compress=True)

nnsight sends functions as source, and with each the file that it is from, so that a server's
traceback can name it. A name within the package says as much as a path of somebody's machine.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


def packed(tracer: Any, compress: bool) -> bytes:
    """Return the bytes of a request: its block, what the block reads, and the model's inputs."""
    from nnsight.intervention.serialization import reduce_block
    from nnsight.ndif import pull_env

    pull_env()  # modules of the user that are not installed travel by value
    frame = tracer.info.frame
    block = reduce_block(tracer.node, frame.f_globals, dict(frame.f_locals))
    buffer = io.BytesIO()
    _pickler()(buffer).dump((tracer, block))
    data = buffer.getvalue()
    if not compress:
        return data
    import zstandard

    return zstandard.ZstdCompressor(level=6).compress(data)


def _pickler() -> Any:
    """Return nnsight's pickler, which names files as `short_name` does."""
    from nnsight.intervention.serialization import DEFAULT_PROTOCOL, CustomCloudPickler
    from nnsight.tracing.util import SerializedFrame

    class Pickler(CustomCloudPickler):
        """Name files within the package, others by their last part."""

        def _dynamic_function_reduce(self, func: Any) -> tuple[Any, ...]:
            made = super()._dynamic_function_reduce(func)
            own = func.__code__.co_filename
            arguments = tuple(short_name(own) if one == own else one for one in made[1])
            return (made[0], arguments, *made[2:])

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, SerializedFrame):
                code = obj.f_code
                arguments = short_name(code.co_filename), code.co_firstlineno, code.co_name
                return SerializedFrame, arguments
            return super().reducer_override(obj)

    return lambda file: Pickler(file, protocol=DEFAULT_PROTOCOL)


def short_name(filename: str) -> str:
    """Return a file's name within the package, else its last part."""
    path = Path(filename)
    if path.is_relative_to(PACKAGE):
        return str(Path(PACKAGE.name) / path.relative_to(PACKAGE))
    return path.name
