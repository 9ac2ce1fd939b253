"""What a server says of itself: which models it has, which versions it runs, why it refuses.

    models_of(asked(host_of(True), "/status"))

A server that cannot be reached or does not answer is a RunError.
"""

from __future__ import annotations

import contextlib
import urllib.parse
from typing import Any

from nnheads.errors import RunError, first_line
from nnheads.remote.web import answer_of, certificates

MATTERS = ("python", "nnsight", "torch", "transformers")
HEALTH = {"RUNNING": 0, "DEPLOYING": 1, "NOT_STARTED": 2, "UNHEALTHY": 3}
AGAIN = "it may be over soon: issue the same command again"
HINTS = {
    400: "it does not accept the request",
    401: "it wants a key: set NDIF_API_KEY, or run nnsight.login",
    403: "it does not accept this key: check NDIF_API_KEY",
    413: "the job is too large: use a smaller --batch-size",
}


def host_of(remote: bool | str) -> str:
    """Return the address of a server: NDIF's own for True."""
    if isinstance(remote, str):
        return remote.rstrip("/")
    from nnsight import CONFIG

    return str(CONFIG.API.HOST)


def asked(host: str, path: str, timeout: float = 30.0) -> Any:
    """Return what a server says of itself, a JSON object.

    Raises:
        RunError: it cannot be reached, or answers with anything else.
    """
    import httpx

    try:
        patience = httpx.Timeout(5.0, read=timeout)
        with httpx.Client(timeout=patience, verify=certificates()) as client:
            answer = answer_of(client, "GET", f"{host}{path}", seconds=timeout)
        answer.raise_for_status()
        return object_in(host, path, answer)
    except httpx.HTTPStatusError as error:
        raise RunError(refusal(host, error.response)) from None
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise RunError(
            f"the server {host} cannot be reached ({first_line(error)}); is the address right?"
        ) from error


def object_in(host: str, path: str, answer: Any) -> dict[str, Any]:
    """Return the JSON object that a server answers with.

    Raises:
        RunError: it answers with something else, such as a page that asks who one is.
    """
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        kind = answer.headers.get("content-type", "").partition(";")[0] or "something else"
        raise RunError(
            f"the server {host} answers {path} with {kind} where a JSON object was expected; is it"
            " an NDIF server?"
        )
    return found


def models_of(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each model that a server has, those that are loaded first.

    A row holds model, revision, replicas, and the level and state of the healthiest replica.
    """
    rows: dict[tuple[Any, Any], dict[str, Any]] = {}
    deployments = status.get("deployments")
    for one in deployments.values() if isinstance(deployments, dict) else ():
        if not isinstance(one, dict):
            continue
        row = {
            "model": _word(one.get("repo_id"), "?"),
            "revision": _word(one.get("revision"), "main"),
            "level": _word(one.get("deployment_level"), "?"),
            "state": _word(one.get("application_state"), "?"),
            "replicas": 1,
        }
        key = (row["model"], row["revision"])
        rows[key] = _with_replica(rows[key], row) if key in rows else row
    return sorted(rows.values(), key=lambda row: (row["level"] != "HOT", row["model"]))


def _word(value: Any, missing: str) -> str:
    """Return what a server says where a word belongs."""
    return value if isinstance(value, str) and value else missing


def _with_replica(known: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return a model's row with one replica more."""
    healthier = HEALTH.get(known["state"], 9) < HEALTH.get(other["state"], 9)
    shown = known if healthier else other
    count = known["replicas"] + other["replicas"]
    return {**other, "level": shown["level"], "state": shown["state"], "replicas": count}


def refusal(host: str, answer: Any) -> str:
    """Return what an HTTP error means and what to do about it."""
    try:
        body = answer.json()
        said = str(body.get("detail", body)) if isinstance(body, dict) else str(body)
    except (ValueError, RecursionError):
        said = answer.text
    said = " ".join(said.split())[:300].rstrip(".")
    elsewhere = "it points to another address; name that one with --remote"
    usual = elsewhere if answer.status_code // 100 == 3 else AGAIN
    hint = HINTS.get(answer.status_code, usual)
    return (
        f"the server {host} answered {answer.status_code} ({said or answer.reason_phrase}); {hint}"
    )


def plain_key(host: str) -> list[str]:
    """Return a warning where the user's key would travel for everybody on the way to read."""
    from nnsight import CONFIG

    address = urllib.parse.urlsplit(host)
    own = address.hostname in ("localhost", "127.0.0.1", "::1")
    if address.scheme == "https" or own or not CONFIG.API.APIKEY:
        return []
    return [f"the NDIF key travels unencrypted to {host}; use https, or unset NDIF_API_KEY"]


def gaps(env: dict[str, Any]) -> list[dict[str, Any]]:
    """Return our versions beside a server's: name, here, there, and whether the difference matters.

    Patch versions do not matter, except nnsight's.
    """
    import platform
    from importlib import metadata

    packages = env.get("packages")
    python = str(env.get("python_version", "")).split(" ")[0]
    there = {**(packages if isinstance(packages, dict) else {}), "python": python}
    rows = []
    for name in MATTERS:
        here = platform.python_version() if name == "python" else metadata.version(name)
        other = _word(there.get(name), "?")
        parts = 3 if name == "nnsight" else 2
        same = here.split("+")[0].split(".")[:parts] == other.split("+")[0].split(".")[:parts]
        rows.append(
            {"name": name, "here": here, "there": other, "matters": other != "?" and not same}
        )
    return rows


def warnings_for(remote: bool | str, model: str) -> list[str]:
    """Return what somebody should know before a job is sent.

    These are versions that differ and a model that is not loaded there; nothing where the server
    does not say.
    """
    host, warnings = host_of(remote), plain_key(host_of(remote))
    with contextlib.suppress(RunError):
        warnings += [
            f"{host} has {row['name']} {row['there']}, here is {row['here']}: numbers may differ"
            for row in gaps(asked(host, "/env", 10.0))
            if row["matters"]
        ]
    with contextlib.suppress(RunError):
        models = models_of(asked(host, "/status", 10.0))
        hot = [row["model"] for row in models if row["level"] == "HOT"]
        if models and model not in hot:
            warnings.append(
                f"{model} is not hot at {host}: the first job may wait until it is loaded"
            )
    return warnings
