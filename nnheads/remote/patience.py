"""Try again, at growing distances, what fails for reasons that pass.

    response = patiently(job, lambda: checked(client.get(url)))

What does not pass is a RunError of one line, in which no key stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from nnheads.errors import NNHeadsError, RunError, first_line, redacted
from nnheads.remote.server import refusal

# seconds between tries before the server was ever reached: it may be the wrong address
FIRST_DELAYS = (0.3, 0.7, 1.5)
DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # afterwards
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
Result = TypeVar("Result")


class Damaged(Exception):
    """Bytes that arrived and cannot be read; another download may be whole."""


def patiently(job: Any, attempt: Callable[[], Result]) -> Result:
    """Return what an attempt returns, once it succeeds.

    Raises:
        RunError: it still fails after the last delay, or for a reason that does not pass.
    """
    import httpx

    tries = 0
    while True:
        try:
            result = attempt()
        except NNHeadsError:
            raise
        except httpx.HTTPStatusError as error:
            delays: tuple[float, ...] = FIRST_DELAYS
            if error.response.status_code not in TRANSIENT or tries >= len(delays):
                reason = refusal(job.host, error.response)
                raise RunError(redacted(reason, job.api_key or "")) from None
        except (httpx.HTTPError, OSError, Damaged) as error:
            delays = DELAYS if job.host in job.reached else FIRST_DELAYS
            if tries >= len(delays):
                raise _gone(job, error) from error
        else:
            job.reached.add(job.host)
            return result
        time.sleep(delays[tries])
        tries += 1


def _gone(job: Any, error: Exception) -> RunError:
    what = "sent something unreadable" if isinstance(error, Damaged) else "cannot be reached"
    sent = "jobs that were sent are written down, and " if job.place.ledger.totals["jobs"] else ""
    return RunError(
        f"the server {job.host} {what} ({first_line(error)}); {sent}the same command goes on"
    )


def checked(answer: Any) -> Any:
    """Return an HTTP answer that is no error; one of a job that is not known passes."""
    if answer.status_code != 404:
        answer.raise_for_status()
    return answer
