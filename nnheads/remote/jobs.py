"""Jobs on a server, NDIF or another that speaks its protocol: sent once, written down, awaited.

A job's id is in the run's ledger before anything is awaited. A connection that breaks, a client
that is killed or a server that comes back therefore costs nothing that was computed: the same
command asks for the same jobs again, and sends only those that the server no longer knows. Results
are fetched over plain HTTP, which can be tried again, and not over a socket that stays open.

`nnsight` makes, packs and unpacks the requests; this module decides when they are sent, how often,
and what is kept. What cannot be done is a RunError of one line; what is not done yet is `Pending`
where nobody waits.
"""

from __future__ import annotations

import functools
import re
import sys
import time
from typing import Any, ClassVar

from nnheads.errors import Pending, RunError, first_line, redacted
from nnheads.remote.digest import digest_of
from nnheads.remote.ledger import Ledger
from nnheads.remote.packing import packed
from nnheads.remote.patience import Damaged, checked, patiently
from nnheads.remote.results import LARGEST, Foreign, address_of, unpacked
from nnheads.remote.web import answer_of, certificates

# seconds between questions whether a job is done; the last one goes on
POLLS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
# Seconds after which a job that the server does not know counts as lost. Until its first status
# lands a server knows nothing of a job that was sent just now: a queue, or a model that is loaded.
UNKNOWN = 5.0
UNKNOWN_YET = 600.0
SENDINGS = 3  # of one job, if the server keeps losing it
READ_TIMEOUT = 600.0


@functools.cache
def job_class() -> type:
    """Return nnsight's way to a server, with a ledger.

    It is made when it is needed: the libraries behind it are slow to import.
    """
    from nnsight.intervention.backends.display import StatusDisplay
    from nnsight.intervention.backends.remote import RemoteBackend

    class Job(RemoteBackend):
        """Send one request, or find it in the ledger, and await it."""

        reached: ClassVar[set[str]] = set()

        def __init__(self, place, *args, **options):
            super().__init__(*args, **options)
            self.place = place
            # results go to stdout, and nothing else does
            self.display = StatusDisplay(enabled=False)

        def request(self, request, tracer):
            return obtained(self, request, tracer)

    return Job


def obtained(job: Any, request: Any, tracer: Any) -> dict[str, Any]:
    """Return the result of the job in the ledger, if the server still has it, or of one sent now.

    Raises:
        Pending: it is not there yet, and nobody waits.
        RunError: it cannot be sent, it failed, the server keeps losing it or cannot be reached.
    """
    notes, request.session_id = job.place.ledger, ""
    key = notes.key(digest_of(job, tracer))
    job.job_id = notes.sent(key)
    for _ in range(SENDINGS):
        if job.job_id is None:
            send(job, request, tracer, key, notes)
            if not job.place.waiting:
                raise Pending(f"job {job.job_id} was sent", notes.run)
        result = awaited(job, key, notes, fresh=notes.sent_here(job.job_id))
        if result is not None:
            return result
        job.job_id = None
    raise RunError(
        f"{job.host} lost a job {SENDINGS} times; finished batches are kept, and the same command"
        " goes on"
    )


def send(job: Any, request: Any, tracer: Any, key: str, notes: Ledger) -> None:
    """Send a job and write its id down.

    Raises:
        RunError: it cannot be packed, or the server cannot be reached or refuses it.
    """
    try:
        blob = packed(tracer, job.compress)
    except Exception as error:
        raise RunError(f"this cannot be sent to a server: {first_line(error)}") from error

    job.job_id = patiently(job, functools.partial(posted, job, request.metadata(), blob))
    notes.note(key=key, job=job.job_id, up=len(blob), host=redacted(job.host))


def posted(job: Any, about: str, blob: bytes) -> str:
    """Send a packed job once, and return the id that the server gives it."""
    import httpx
    import nnsight

    versions = {"nnsight-version": nnsight.__version__, "python-version": sys.version}
    headers = {"ndif-timestamp": repr(time.time()), **versions, **key_header(job)}
    packed = {"blob": ("request", blob, "application/octet-stream")}
    with httpx.Client(timeout=limits(), verify=certificates()) as client:
        answer = answer_of(
            client,
            "POST",
            f"{job.host}/request",
            headers=headers,
            seconds=READ_TIMEOUT,
            data={"data": about},
            files=packed,
        )
    answer.raise_for_status()
    number = str(response_in(answer.text).id)
    if not re.fullmatch(r"[\w.-]{1,200}", number, re.ASCII):
        raise Damaged("an id that no job has")
    return number


def response_in(text: str) -> Any:
    """Return what a server says of a job.

    Raises:
        Damaged: it says something else, such as a page that asks who one is.
    """
    from nnsight.schema.response import ResponseModel

    try:
        return ResponseModel.model_validate_json(text)
    except ValueError as error:
        raise Damaged("an answer that is not about a job; is it an NDIF server?") from error


def key_header(job: Any) -> dict[str, str]:
    """Return the header that carries the user's key, if there is one."""
    return {"ndif-api-key": job.api_key} if job.api_key else {}


def limits() -> Any:
    """Return how long a server may take to connect and to answer."""
    import httpx

    return httpx.Timeout(10.0, read=READ_TIMEOUT)


def awaited(job: Any, key: str, notes: Ledger, fresh: bool) -> dict[str, Any] | None:
    """Return the result of a job once it is there.

    None if the server does not know the job or lost its result, or if an earlier command's job (not
    `fresh`) failed: what failed then may work now.

    Raises:
        Pending: it is not there yet, and nobody waits.
        RunError: the job failed, or the server cannot be reached.
    """
    import httpx

    unknown_since, questions = None, 0
    patience = UNKNOWN_YET if fresh else UNKNOWN
    with httpx.Client(timeout=limits(), verify=certificates()) as client:
        url = f"{job.host}/response/{job.job_id}"
        ask = functools.partial(
            answer_of, client, "GET", url, headers=key_header(job), seconds=READ_TIMEOUT
        )
        while True:
            state = patiently(job, lambda: _state(job, checked(ask()), fresh))
            if state is None:
                unknown_since = unknown_since or time.monotonic()
                if time.monotonic() - unknown_since > patience:
                    return None
            else:
                unknown_since, patience = None, UNKNOWN
                done, failed, url = state
                if failed:
                    return None
                if done:
                    return fetched(job, client, url, key, notes)
            if not job.place.waiting:
                raise Pending(f"job {job.job_id} is not finished", notes.run)
            time.sleep(POLLS[min(questions, len(POLLS) - 1)])
            questions += 1


def _state(job: Any, answer: Any, fresh: bool) -> tuple[bool, bool, str] | None:
    """Return whether a job is done, whether it failed before this command, and where its result is.

    None where the server knows no such job.

    Raises:
        RunError: it was sent by this command and failed.
    """
    from nnsight.schema.response import Status

    if answer.status_code == 404:
        return None
    response = response_in(answer.text)
    failed = response.status == Status.ERROR
    if failed and fresh:
        raise RunError(f"{job.host} could not run a job: {server_reason(response.description)}")
    return response.status == Status.COMPLETED, failed, response.data


def fetched(job: Any, client: Any, url: str, key: str, notes: Ledger) -> dict[str, Any] | None:
    """Return a finished job's values; None if the server has dropped them."""
    if not url:
        raise RunError(f"{job.host} finished a job and sent no result; it may run another nnsight")

    place = address_of(job.host, url)

    def download() -> tuple[dict[str, Any] | None, int]:
        answer = answer_of(client, "GET", place, most=LARGEST)
        if answer.status_code in (403, 404, 410):  # what was stored for a while only
            return None, 0
        content = checked(answer).content
        try:
            return unpacked(content, job.compress), len(content)
        except Foreign as error:
            raise RunError(f"{job.host} sent a result that is not read: {error}") from error
        except RunError:
            raise
        except Exception as error:  # whatever reading half a file raises
            raise Damaged(f"a result arrived damaged ({type(error).__name__})") from error

    values, size = patiently(job, download)
    if values is not None:
        notes.note(key=key, down=size)
    return values


def server_reason(description: str) -> str:
    """Return the last line of a server's traceback, which says what went wrong."""
    lines = [line.strip() for line in description.splitlines() if line.strip()]
    said = next(
        (line for line in reversed(lines) if not line.startswith(("^", "~", "File "))),
        "no reason was given",
    )
    return said[:400]
