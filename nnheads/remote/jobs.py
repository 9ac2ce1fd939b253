"""Jobs on a server, NDIF or another that speaks its protocol: sent once, written down, awaited.

A job's id is in the run's ledger before anything is awaited. A connection that breaks, a client
that is killed or a server that comes back therefore costs nothing that was computed: the same
command asks for the same jobs again, and sends only those that the server no longer knows. Results
are fetched over plain HTTP, which can be tried again, and not over a socket that stays open.

`nnsight` makes, packs and unpacks the requests; this module decides when they are sent, how often,
and what is kept.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import time
from collections.abc import Callable
from typing import ClassVar, TypeVar

import numpy as np

from nnheads.errors import NNHeadsError, Pending, RunError, first_line
from nnheads.remote.ledger import Ledger, sent_now
from nnheads.remote.server import refusal

FIRST_DELAYS = (
    0.3,
    0.7,
    1.5,
)  # seconds between tries before the server was ever reached: it may be the wrong address
DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # afterwards
POLLS = (
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
)  # seconds between questions whether a job is done; the last one goes on
UNKNOWN = 5.0  # seconds after which a job that the server does not know counts as lost
SENDINGS = 3  # of one job, if the server keeps losing it
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
READ_TIMEOUT = 600.0
Result = TypeVar("Result")


@functools.cache
def job_class():
    """nnsight's way to a server, with a ledger.

    Made when it is needed: the libraries behind it are slow to import.
    """
    from nnsight.intervention.backends.display import StatusDisplay
    from nnsight.intervention.backends.remote import RemoteBackend

    class Job(RemoteBackend):
        """One request: sent, or found in the ledger, and awaited."""

        reached: ClassVar[set[str]] = set()

        def __init__(self, place, *args, **options):
            super().__init__(*args, **options)
            self.place = place
            self.display = StatusDisplay(
                enabled=False
            )  # results go to stdout, and nothing else does

        def request(self, request, tracer):
            return obtained(self, request, tracer)

    return Job


def obtained(job, request, tracer) -> dict:
    """The result of a job: of the one in the ledger, if the server still has it, or of one that is
    sent now.
    """
    notes, request.session_id = job.place.ledger, ""
    key = notes.key(digest_of(job, tracer))
    job.job_id = notes.sent(key)
    for _ in range(SENDINGS):
        if job.job_id is None:
            send(job, request, tracer, key, notes)
            if not job.place.waiting:
                raise Pending(f"job {job.job_id} was sent", notes.run)
        found = awaited(job, key, notes, fresh=sent_now(job.job_id))
        if found is not None:
            return found
        job.job_id = None
    raise RunError(
        f"{job.host} lost a job {SENDINGS} times; finished batches are kept, and the same command"
        " goes on"
    )


def digest_of(job, tracer) -> str:
    """A hash of what a job does and what it works on: the model, the code of the block, all that
    the block reads, and
    what the model is given. The payload itself does not serve: its bytes differ from process to
        process."""
    from importlib import metadata

    from nnsight.intervention.serialization import reduce_block

    frame = tracer.info.frame
    code, names, variables = reduce_block(tracer.node, frame.f_globals, dict(frame.f_locals))
    given = getattr(tracer, "args", ()), getattr(tracer, "kwargs", {})
    said = [
        job.model_key,
        job.env,
        code.strip(),
        metadata.version("nnsight"),
        metadata.version("nnheads"),
    ]
    return hashlib.sha256(repr([said, content([names, variables, given])]).encode()).hexdigest()[
        :16
    ]


def content(value) -> str:
    """A hash of a value: numbers and texts by what they are, containers by what they hold,
    functions by their source and what they hold, and everything else, such as the model, by its
    kind."""
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        own = [
            str(value.dtype),
            tuple(value.shape),
            value.flatten().view(torch.uint8).numpy().tobytes(),
        ]
    elif isinstance(value, np.ndarray):
        own = [str(value.dtype), value.shape, np.ascontiguousarray(value).tobytes()]
    elif isinstance(value, dict):
        own = sorted((repr(name), content(item)) for name, item in value.items())
    elif isinstance(value, (list, tuple)):
        own = [content(item) for item in value]
    elif isinstance(value, (set, frozenset)):
        own = sorted(content(item) for item in value)
    elif inspect.isfunction(value):
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        own = [
            value.__module__,
            value.__qualname__,
            _source(value),
            content([held, value.__defaults__]),
        ]
    elif dataclasses.is_dataclass(value):
        own = [content({one.name: getattr(value, one.name) for one in dataclasses.fields(value)})]
    elif value is None or isinstance(
        value, (bool, int, float, complex, str, bytes, torch.dtype, torch.device)
    ):
        own = [repr(value)]
    else:
        own = []
    return hashlib.sha256(repr([type(value).__qualname__, own]).encode()).hexdigest()


def _source(function: Callable) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # typed into an interpreter
        return repr(function.__code__.co_code)


def send(job, request, tracer, key: str, notes: Ledger) -> None:
    """Send a job and write its id down."""
    from nnsight.intervention.backends.remote import RemoteError

    try:
        blob = job._serialize(tracer)
    except Exception as error:
        raise RunError(f"this cannot be sent to a server: {first_line(error)}") from error

    def post():
        try:
            return job._post(request, blob)
        except RemoteError as error:
            raise error.__cause__ or error from error

    response = patiently(job, post)
    job.job_id = response.id
    notes.note(key=key, job=response.id, up=len(blob), host=job.host)


def awaited(job, key: str, notes: Ledger, fresh: bool) -> dict | None:
    """The result, once it is there; None if the server does not know the job or lost its result, or
    if an earlier
    command's job (not `fresh`) failed: what failed then may work now.

    Raises:
        Pending: it is not there yet, and nobody waits. RunError: the job failed, or the server
            cannot be reached.
    """
    import httpx
    from nnsight.schema.response import ResponseModel, Status

    headers = {"ndif-api-key": job.api_key} if job.api_key else None
    unknown_since, asked = None, 0
    with httpx.Client(timeout=httpx.Timeout(10.0, read=READ_TIMEOUT)) as client:
        while True:
            answer = patiently(
                job,
                lambda: checked(client.get(f"{job.host}/response/{job.job_id}", headers=headers)),
            )
            if answer.status_code == 404:
                unknown_since = unknown_since or time.monotonic()
                if time.monotonic() - unknown_since > UNKNOWN:
                    return None
            else:
                response = ResponseModel.model_validate_json(answer.text)
                if response.status == Status.ERROR and not fresh:
                    return None
                if response.status == Status.ERROR:
                    raise RunError(
                        f"{job.host} could not run a job: {server_reason(response.description)}"
                    )
                if response.status == Status.COMPLETED:
                    return fetched(job, client, response.data, key, notes)
            if not job.place.waiting:
                raise Pending(f"job {job.job_id} is not finished", notes.run)
            time.sleep(POLLS[min(asked, len(POLLS) - 1)])
            asked += 1


def fetched(job, client, url: str, key: str, notes: Ledger) -> dict | None:
    """A finished job's values; None if the server has dropped them."""
    if not url:
        raise RunError(f"{job.host} finished a job and sent no result; it may run another nnsight")

    def download():
        answer = client.get(url if "://" in url else f"{job.host}/{url.lstrip('/')}")
        if answer.status_code in (403, 404, 410):  # what was stored for a while only
            return None, 0
        content = checked(answer).content
        try:
            return job.finalize(content), len(content)
        except Exception as error:  # whatever reading half a file raises
            raise Damaged(f"a result arrived damaged ({type(error).__name__})") from error

    found, size = patiently(job, download)
    if found is not None:
        notes.note(key=key, down=size)
    return found


class Damaged(Exception):
    """Bytes that arrived and cannot be read; another download may be whole."""


def checked(answer):
    """An HTTP answer that is no error; one of a job that is not known passes."""
    if answer.status_code != 404:
        answer.raise_for_status()
    return answer


def patiently(job, attempt: Callable[[], Result]) -> Result:
    """Try again, at growing distances, what fails for reasons that pass; say in one line why the
    rest failed.
    """
    import httpx

    tries = 0
    while True:
        try:
            found = attempt()
        except NNHeadsError:
            raise
        except httpx.HTTPStatusError as error:
            delays: tuple[float, ...] = FIRST_DELAYS
            if error.response.status_code not in TRANSIENT or tries >= len(delays):
                raise RunError(redacted(job, refusal(job.host, error.response))) from None
        except (httpx.HTTPError, OSError, Damaged) as error:
            delays = DELAYS if job.host in job.reached else FIRST_DELAYS
            if tries >= len(delays):
                what = (
                    "sent something unreadable"
                    if isinstance(error, Damaged)
                    else "cannot be reached"
                )
                raise RunError(
                    f"the server {job.host} {what} ({first_line(error)}); jobs that were sent are"
                    " written down, and the same command goes on"
                ) from error
        else:
            job.reached.add(job.host)
            return found
        time.sleep(delays[tries])
        tries += 1


def redacted(job, text: str) -> str:
    """The key is nobody's business, even where a server repeats it."""
    return text.replace(job.api_key, "***") if job.api_key else text


def server_reason(description: str) -> str:
    """The last line of a server's traceback, which says what went wrong."""
    lines = [line.strip() for line in description.splitlines() if line.strip()]
    said = next(
        (line for line in reversed(lines) if not line.startswith(("^", "~", "File "))),
        "no reason was given",
    )
    return said[:400]
