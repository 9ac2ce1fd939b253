"""Ask an endpoint that speaks OpenAI's protocols.

    ask = endpoint("writer", "--writer openai", "gpt-4o", "chat/completions", read)
    text = ask({"messages": [...]})

Its address and key come from OPENAI_BASE_URL and OPENAI_API_KEY and are never arguments. What is
missing there is BadInput; what the endpoint does not do is a RunError, in which no key stands.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

from nnheads.errors import BadInput, RunError, first_line

TIMEOUT_SECONDS = 120
# what a connection, a body that is no JSON, or `read` raises of an answer that says nothing
UNUSABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, http.client.HTTPException)
Read = TypeVar("Read")


def endpoint(
    who: str, option: str, name: str, path: str, read: Callable[[dict[str, Any]], Read]
) -> Callable[[dict[str, Any]], Read]:
    """Return a function from a request to what `read` makes of the answer's first choice.

    Args:
        who: what it serves as, for errors: "writer". option: how it was named: "--writer openai".
            name: of the model.
        path: behind the address.

    Raises:
        BadInput: no name, no key, a key that no header can hold, an address that is none.
    """
    if not name:
        raise BadInput(f"{option}:NAME needs the name of a model")
    base, key = _address_and_key(option)

    def ask(request: dict[str, Any]) -> Read:
        body = json.dumps({"model": name, **request}).encode()
        try:
            call = urllib.request.Request(
                f"{base}/{path}", body, {"Content-Type": "application/json"}
            )
            # a redirect must not carry it elsewhere
            call.add_unredirected_header("Authorization", f"Bearer {key}")
            with urllib.request.urlopen(call, timeout=TIMEOUT_SECONDS) as answer:
                return read(json.load(answer)["choices"][0])
        except urllib.error.HTTPError as error:
            error.close()
            raise RunError(f"the {who}'s endpoint answered {error.code} {error.reason}") from None
        except UNUSABLE as error:
            raise unusable(who, f"{type(error).__name__}: {first_line(error)}") from None

    return ask


def _address_and_key(option: str) -> tuple[str, str]:
    base = (os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1").rstrip("/")
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key:
        raise BadInput(
            f"{option}:... needs OPENAI_API_KEY in the environment (and OPENAI_BASE_URL for"
            " another host)"
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise BadInput("OPENAI_API_KEY holds blanks, quotes or other characters that no key has")
    if not base.startswith(("http://", "https://")):
        raise BadInput(
            f"OPENAI_BASE_URL {base!r} is no address; expected http://... or https://..."
        )
    return base, key


def unusable(who: str, reason: str) -> RunError:
    """Return the error of an answer that came and says nothing."""
    return RunError(f"the {who}'s endpoint gave no usable answer: {reason}")
