"""Read what a server sends back: tensors and plain data, and nothing that runs.

    values = unpacked(content, compressed=True)    # {name: tensor}

A server is not trusted to send code: a result is loaded as weights are, so that anything but
tensors, numbers, texts and containers of them is refused. Nor is it trusted with this machine's
memory: what would be larger than LARGEST is refused before it is unpacked.
"""

from __future__ import annotations

import io
import pickle
import re
import urllib.parse
import zipfile
from typing import Any

from nnheads.errors import RunError

LARGEST = 1 << 32  # bytes of one result, packed or not


class Foreign(Exception):
    """A result that holds more than tensors and plain data."""


def unpacked(content: bytes, compressed: bool) -> dict[str, Any]:
    """Return the values of a result.

    Raises:
        RunError: it is larger than LARGEST.
        Foreign: it holds more than tensors and plain data.
        Exception: whatever reading half a file raises.
    """
    import torch

    raw = inflated(content) if compressed else content
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        check_size(sum(entry.file_size for entry in archive.infolist()))
    try:
        values = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Foreign("only tensors and plain data are read") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise Foreign(f"values by name were expected, not {type(values).__name__}")
    check_size(_held(values))
    return values


def _held(value: Any) -> int:
    """Return the bytes that values would take: a tensor may be larger than what it is stored as."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value
    return sum(map(_held, parts)) if isinstance(value, (dict, list, tuple, set)) else 0


def inflated(content: bytes) -> bytes:
    """Return compressed bytes as they were, of no more than LARGEST."""
    import zstandard

    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)) as reader:
        raw = reader.read(LARGEST + 1)
    check_size(len(raw))
    return raw


def check_size(size: int) -> None:
    """Refuse a result that is larger than any that was asked for."""
    if size > LARGEST:
        raise RunError(
            f"a server sent a result of more than {LARGEST / 2**30:.0f} GiB, which nobody asked for"
        )


def address_of(host: str, url: Any) -> str:
    """Return where a result is fetched: from the job's own host, or over https.

    Raises:
        RunError: another host over plain http, or no web address.
    """
    wrong = RunError(
        f"{host} says that a result is at {str(url)[:60]!r}; results are fetched from the server"
        " itself, or over https"
    )
    if not isinstance(url, str) or not re.fullmatch(r"[!-~]+", url):
        raise wrong
    if "://" not in url:
        return f"{host}/{url.lstrip('/')}"
    try:
        there, own = urllib.parse.urlsplit(url), urllib.parse.urlsplit(host)
        _ = there.port
    except ValueError:
        raise wrong from None
    if (there.scheme, there.hostname, there.port) == (own.scheme, own.hostname, own.port):
        return urllib.parse.urlunsplit(there._replace(netloc=own.netloc))  # who asks is known there
    if there.scheme == "https":
        return url
    raise wrong
