"""An endpoint that speaks OpenAI's protocols; its address and key come from OPENAI_BASE_URL and
OPENAI_API_KEY and are never arguments."""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TypeVar

from nnheads.errors import BadInput, RunError, first_line

TIMEOUT_SECONDS = 120
Read = TypeVar("Read")


def endpoint(
    who: str, asked_as: str, name: str, path: str, read: Callable[[dict], Read]
) -> Callable[[dict], Read]:
    """A function from a request to what `read` makes of the answer's first choice.

    Args:
        who: what it serves as, for errors: "writer". asked_as: how it was named: "--writer openai".
            name: of the model.
        path: behind the address.

    Raises:
        BadInput: no name, no key, a key that no header can hold, an address that is none.
    """
    base = (os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1").rstrip("/")
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not name:
        raise BadInput(f"{asked_as}:NAME needs the name of a model")
    if not key:
        raise BadInput(
            f"{asked_as}:... needs OPENAI_API_KEY in the environment (and OPENAI_BASE_URL for"
            " another host)"
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise BadInput("OPENAI_API_KEY holds blanks, quotes or other characters that no key has")
    if not base.startswith(("http://", "https://")):
        raise BadInput(
            f"OPENAI_BASE_URL {base!r} is no address; expected http://... or https://..."
        )

    def ask(request: dict) -> Read:
        body = json.dumps({"model": name, **request}).encode()
        try:
            call = urllib.request.Request(
                f"{base}/{path}", body, {"Content-Type": "application/json"}
            )
            call.add_unredirected_header(
                "Authorization", f"Bearer {key}"
            )  # a redirect must not carry it elsewhere
            with urllib.request.urlopen(call, timeout=TIMEOUT_SECONDS) as answer:
                return read(json.load(answer)["choices"][0])
        except urllib.error.HTTPError as error:
            error.close()
            raise RunError(f"the {who}'s endpoint answered {error.code} {error.reason}") from None
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            http.client.HTTPException,
        ) as error:
            raise unusable(who, f"{type(error).__name__}: {first_line(error)}") from None

    return ask


def unusable(who: str, reason: str) -> RunError:
    """An answer that came and says nothing."""
    return RunError(f"the {who}'s endpoint gave no usable answer: {reason}")
