"""Ask a server over HTTP, and read no more of its answer than there can be, and no longer.

    with httpx.Client(timeout=..., verify=certificates()) as client:
        answer = answer_of(client, "GET", url, seconds=30)

What a server sends is read as it is: bytes that unpack to gigabytes, letters of an unknown
encoding and answers that never end are all somebody's way to stop a client.
"""

from __future__ import annotations

import functools
import ssl
import time
from typing import Any

from nnheads.errors import RunError

MOST_SAID = 1 << 22  # bytes of an answer that is no result


@functools.cache
def certificates() -> ssl.SSLContext:
    """Return whose servers are trusted, read once: that takes longer than a small job."""
    import httpx

    return httpx.create_ssl_context()


def answer_of(
    client: Any,
    method: str,
    url: str,
    *,
    most: int = MOST_SAID,
    seconds: float | None = None,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> Any:
    """Return the answer to a request, its body whole and as it was sent.

    Args:
        client: of httpx. options: of its `stream`.
        most: bytes that the body may have. seconds: that it may take; None for as long as it comes.

    Raises:
        RunError: it is larger than that.
        httpx.HTTPError: the server cannot be reached, or takes longer than that.
    """
    import httpx

    plain = {**(headers or {}), "accept-encoding": "identity"}
    end = None if seconds is None else time.monotonic() + seconds
    with client.stream(method, url, headers=plain, **options) as answer:
        parts, size = [], 0
        for part in answer.iter_raw():
            parts.append(part)
            size += len(part)
            if size > most:
                raise RunError(f"a server sent more than {most:,} bytes, which nobody asked for")
            if end is not None and time.monotonic() > end:
                raise httpx.ReadTimeout(f"an answer took longer than {seconds:.0f} s")
    kind = answer.headers.get("content-type", "").partition(";")[0]
    return httpx.Response(
        answer.status_code,
        headers={"content-type": kind},
        content=b"".join(parts),
        request=answer.request,
    )
