"""A server that speaks NDIF's protocol on this machine, for tests: a program of its own, in which
nnheads cannot be imported and labels, tables and plots are hidden, as on a server that has never
heard of this project.

    python loopback.py --store FOLDER [--port 0] [--sandbox] [--key KEY]

It prints its port and serves until it is killed. What it has finished is kept in FOLDER, as NDIF
keeps it in an object
store: a server that died and came back still has it, and no longer knows the jobs that were
    running. `POST /faults`
takes a list of things that go wrong, each at one stage and so many times; `executed.log` in FOLDER
has a line for every job that ran.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import socket
import sys
import threading
import time
import traceback
import uuid
from pathlib import Path
from typing import ClassVar

HIDDEN = (
    "nnheads",
    "xarray",
    "pandas",
    "netCDF4",
    "seaborn",
    "matplotlib",
    "typer",
    "sklearn",
    "jaxtyping",
)
for hidden in HIDDEN:
    sys.modules[hidden] = None  # type: ignore[assignment]

os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
import uvicorn  # noqa: E402
import zstandard  # noqa: E402
from nnsight import TransformersModel  # noqa: E402
from nnsight.intervention.envoy import Envoy  # noqa: E402
from nnsight.intervention.serialization import CustomCloudUnpickler  # noqa: E402
from nnsight.intervention.tracer import InterleavingTracer  # noqa: E402
from nnsight.modeling import huggingface  # noqa: E402
from nnsight.schema.request import RequestModel  # noqa: E402
from nnsight.schema.response import ResponseModel, Status  # noqa: E402
from nnsight.tracing.globals import BLOCKS, SOURCES  # noqa: E402
from nnsight.tracing.tracer import _saves, dec, inc  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.responses import JSONResponse, PlainTextResponse, Response  # noqa: E402
from starlette.routing import Route, WebSocketRoute  # noqa: E402

torch.set_num_threads(1)


class Server:
    """Models, jobs and faults of one server."""

    def __init__(self, store: Path, sandbox: bool, key: str | None, ndif: bool = False):
        self.store, self.sandbox, self.key, self.ndif = store, sandbox, key, ndif
        self.models: dict[str, TransformersModel] = {}
        self.sessions: dict[str, asyncio.Queue] = {}
        self.faults: list[dict] = []
        self.turn, self.loading = threading.Lock(), threading.Lock()
        store.mkdir(parents=True, exist_ok=True)
        for path in store.glob("*.json"):  # what was running when the server died is forgotten
            if json.loads(path.read_text())["status"] not in ("COMPLETED", "ERROR"):
                path.unlink()

    def fault(self, stage: str) -> dict:
        """What goes wrong at this stage now, if anything; each fault counts down."""
        for one in self.faults:
            if one["stage"] == stage and one.get("after", 0) > 0:
                one["after"] -= 1
            elif one["stage"] == stage and one.get("times", 1) > 0:
                one["times"] = one.get("times", 1) - 1
                if one["do"] == "die":
                    os._exit(1)
                if one["do"] == "delay":
                    time.sleep(one["seconds"])
                return one
        return {"do": ""}

    def model(self, key: str) -> TransformersModel:
        with self.loading:  # transformers leaves out tied weights where two threads load at once
            if key not in self.models:
                path = json.loads(key.split(":", 1)[1])["repo_id"]
                huggingface._ID_CACHE[path] = path
                loaded = TransformersModel.from_model_key(key, dispatch=True, dtype=torch.float32)
                loaded._module.requires_grad_(False)
                self.models[key] = loaded
        return self.models[key]

    def execute(self, request: RequestModel, blob: bytes) -> tuple[bytes, dict, list[str]]:
        """Run a job: its saved values as bytes, the size of each, and the modules that the payload
        named.
        """
        model = self.model(request.model_key)
        model._remoteable_set_env(request.env)
        persistent = model._remoteable_persistent_objects()
        if self.ndif:
            with self.turn, one_block():
                content = untrusted(model, request, blob)
            return (
                zstandard.ZstdCompressor().compress(content) if request.compress else content,
                {},
                [],
            )
        with self.turn, one_block(), sandboxed() if self.sandbox else contextlib.nullcontext():
            Listening.modules = set()
            tracer = RequestModel.deserialize(
                blob, persistent, compress=request.compress, unpickler=Listening
            )
            inc()
            try:
                tracer.execute(tracer.info.code)
                wanted, scope = _saves(), tracer.info.frame.f_locals
                saved = {name: value for name, value in scope.items() if id(value) in wanted}
            finally:
                dec()
        file = io.BytesIO()
        torch.save(saved, file)
        found = (
            zstandard.ZstdCompressor().compress(file.getvalue())
            if request.compress
            else file.getvalue()
        )
        return (
            found,
            {name: sizes_in(value) for name, value in saved.items()},
            sorted(Listening.modules),
        )

    def run(self, job: str, request: RequestModel, blob: bytes, loop) -> None:
        """A job from its queue to its end; statuses go to whoever listens."""

        def tell(status: Status, text: str = "", data=None) -> None:
            response = ResponseModel(id=job, status=status, description=text, data=data)
            if request.session_id:
                message = (
                    response.pickle() if isinstance(data, bytes) else response.model_dump_json()
                )
                queue = self.sessions[request.session_id]
                loop.call_soon_threadsafe(queue.put_nowait, message)
            else:
                self.keep(response)

        tell(Status.RUNNING)
        wrong = self.fault("run")
        try:
            if wrong["do"] == "error":
                raise RuntimeError(wrong.get("detail", "CUDA out of memory"))
            result, saved, modules = self.execute(request, blob)
        except BaseException as error:
            tell(Status.ERROR, "".join(traceback.format_exception(error)))
            return
        line = {"id": job, "up": len(blob), "down": len(result), "saved": saved, "modules": modules}
        with (self.store / "executed.log").open("a") as log:
            log.write(json.dumps(line) + "\n")
        self.fault("finish")
        if request.session_id:
            tell(Status.COMPLETED, data=result)
        else:
            (self.store / f"{job}.result").write_bytes(result)
            tell(Status.COMPLETED, data=f"/result/{job}")

    def keep(self, response: ResponseModel) -> None:
        part = self.store / f"{response.id}.part"
        part.write_text(response.model_dump_json())
        part.replace(self.store / f"{response.id}.json")


class Listening(CustomCloudUnpickler):
    """Unpickles a payload and remembers which modules it names."""

    modules: ClassVar[set[str]] = set()

    def find_class(self, module, name):
        Listening.modules.add(module.split(".")[0])
        return super().find_class(module, name)


def sizes_in(value) -> list:
    """Shapes and storage of the tensors in a saved value."""
    if isinstance(value, torch.Tensor):
        return [[str(value.dtype), list(value.shape), value.untyped_storage().nbytes()]]
    if isinstance(value, dict):
        return [one for each in value.values() for one in sizes_in(each)]
    if isinstance(value, (list, tuple)):
        return [one for each in value for one in sizes_in(each)]
    return [[type(value).__name__, [], 0]]


@contextlib.contextmanager
def one_block():
    """What a request leaves in the caches of sources would be run by the next one from the same
    line.
    """
    import linecache

    caches = (linecache.cache, SOURCES, BLOCKS)
    before = [dict(cache) for cache in caches]
    try:
        yield
    finally:
        for cache, old in zip(caches, before, strict=True):
            cache.clear()
            cache.update(old)


def untrusted(model: TransformersModel, request: RequestModel, blob: bytes) -> bytes:
    """What NDIF itself does for a key without trust: the block runs in a process of its own, which
    holds no weights.
    """
    from ndif.services.ray.sandbox.driver import SandboxDriver
    from ndif.services.ray.sandbox.host import spawn

    runner = spawn(model_key=request.model_key, timeout=120)
    connection = runner.connection()
    try:
        connection.send((blob, request.compress, "torch.float32", None, request.env))
        return SandboxDriver(model, torch.float32).pump(connection)[0]
    finally:
        connection.close()
        runner.stop()


@contextlib.contextmanager
def sandboxed():
    """What keys without trust get: no weights and no gradients. Weights that the block asks for are
    on the meta device, as they are in NDIF's runner; modules may be called, and are called here. No
    trace follows one that was
    stopped: NDIF 0.1.2 leaves the stopped trace's answer on its socket, and the next one takes it
        for its own."""
    plain, backward, grad = Envoy.__getattr__, torch.Tensor.backward, torch.autograd.grad
    stop, interleave, stopped = InterleavingTracer.stop, Envoy.interleave, []

    def weightless(self, name):
        found = plain(self, name)
        return (
            found.to("meta")
            if isinstance(found, torch.Tensor) and isinstance(found, torch.nn.Parameter)
            else found
        )

    def refuse(*_, **__):
        raise RuntimeError("OutOfOrderError: gradients do not cross into the sandbox")

    def noted(self):
        stopped.append(self)
        return stop(self)

    def first(self, *arguments, **options):
        if stopped:
            raise RuntimeError("a trace follows one that was stopped")
        return interleave(self, *arguments, **options)

    Envoy.__getattr__, torch.Tensor.backward, torch.autograd.grad = weightless, refuse, refuse
    InterleavingTracer.stop, Envoy.interleave = noted, first
    try:
        with torch.no_grad():
            yield
    finally:
        Envoy.__getattr__, torch.Tensor.backward, torch.autograd.grad = plain, backward, grad
        InterleavingTracer.stop, Envoy.interleave = stop, interleave


def app(server: Server) -> Starlette:
    async def request(call):
        wrong = await asyncio.to_thread(server.fault, "request")
        if wrong["do"] == "status":
            return JSONResponse({"detail": wrong.get("detail", "no")}, wrong["code"])
        if server.key is not None and call.headers.get("ndif-api-key") is None:
            return JSONResponse({"detail": "Missing or invalid API key."}, 401)
        if server.key is not None and call.headers["ndif-api-key"] != server.key:
            return JSONResponse({"detail": "Unknown API key."}, 403)
        form = await call.form()
        asked, blob = RequestModel.model_validate_json(form["data"]), await form["blob"].read()
        job = uuid.uuid4().hex
        received = ResponseModel(id=job, status=Status.RECEIVED)
        if not asked.session_id:
            server.keep(received)
        threading.Thread(
            target=server.run, args=(job, asked, blob, asyncio.get_running_loop()), daemon=True
        ).start()
        if wrong["do"] == "drop":  # the job is there, and the answer is lost
            return Response(
                cut(received.model_dump_json().encode()), headers={"content-length": "100000"}
            )
        return Response(received.model_dump_json(), media_type="application/json")

    async def asked_for(call, kind: str, suffix: str, missing: str):
        """Return what goes wrong, the file asked for, and the answer if it cannot be had."""
        wrong = await asyncio.to_thread(server.fault, kind)
        path = server.store / f"{call.path_params['id']}.{suffix}"
        if wrong["do"] == "status":
            return wrong, path, JSONResponse({"detail": wrong.get("detail", "no")}, wrong["code"])
        return wrong, path, None if path.exists() else JSONResponse({"detail": missing}, 404)

    async def response(call):
        _, path, refused = await asked_for(call, "response", "json", "No response for request.")
        if refused is not None:
            return refused
        found = json.loads(path.read_text())
        if found.get("data"):
            found["data"] = str(call.base_url).rstrip("/") + found["data"]
        return JSONResponse(found)

    async def result(call):
        wrong, path, refused = await asked_for(call, "result", "result", "No such result.")
        if refused is not None:
            return refused
        content = path.read_bytes()
        if wrong["do"] == "cut":
            return Response(cut(content), headers={"content-length": str(len(content))})
        if wrong["do"] == "corrupt":
            content = content[: len(content) // 2] + bytes(len(content) - len(content) // 2)
        return Response(content)

    async def subscribe(socket):
        await socket.accept()
        session = uuid.uuid4().hex
        queue = server.sessions.setdefault(session, asyncio.Queue())
        await socket.send_json({"session_id": session})
        if (await asyncio.to_thread(server.fault, "subscribe"))["do"] == "drop":
            await socket.close()
            return
        with contextlib.suppress(Exception):
            while True:
                message = await queue.get()
                await (
                    socket.send_bytes(message)
                    if isinstance(message, bytes)
                    else socket.send_text(message)
                )

    async def faults(call):
        server.faults = await call.json()
        return JSONResponse(server.faults)

    async def status(_):
        wrong = await asyncio.to_thread(server.fault, "status")
        if wrong["do"] == "status":
            return JSONResponse({"detail": wrong.get("detail", "no")}, wrong["code"])
        replicas = {
            str(number): {
                "model_key": key,
                "repo_id": json.loads(key.split(":", 1)[1])["repo_id"],
                "revision": "main",
                "deployment_level": "HOT",
                "application_state": "RUNNING",
            }
            for number, key in enumerate(server.models)
        }
        return JSONResponse({"deployments": replicas})

    async def env(_):
        import importlib.metadata as metadata

        packages = {
            name: metadata.version(name) for name in ("nnsight", "torch", "transformers", "numpy")
        }
        return JSONResponse({"python_version": sys.version, "packages": packages})

    async def ping(_):
        return PlainTextResponse("pong")

    return Starlette(
        routes=[
            Route("/request", request, methods=["POST"]),
            Route("/response/{id}", response),
            Route("/result/{id}", result),
            Route("/faults", faults, methods=["POST"]),
            Route("/status", status),
            Route("/env", env),
            Route("/ping", ping),
            WebSocketRoute("/subscribe", subscribe),
        ]
    )


def cut(content: bytes) -> bytes:
    """Half of it: a connection that ends before its length is reached."""
    return content[: len(content) // 2]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--sandbox", action="store_true")
    parser.add_argument(
        "--ndif", action="store_true", help="jobs run in NDIF's own runner; needs the ndif package"
    )
    parser.add_argument("--key")
    given = parser.parse_args()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", given.port))
    print(listener.getsockname()[1], flush=True)
    settings = uvicorn.Config(
        app(Server(given.store, given.sandbox, given.key, given.ndif)), log_level="critical"
    )
    asyncio.run(uvicorn.Server(settings).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
