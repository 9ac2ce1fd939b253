"""Start Python programs whose large libraries are loaded already, which takes seconds elsewhere.

    done = warm.run("-c", "print(1)", cwd=folder)     # as subprocess.run
    process = warm.Program("server.py", "--port", "0", cwd=folder)  # as subprocess.Popen

A server loads the libraries once, nothing of ours among them, and forks for every program.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

LIBRARIES = [
    "torch",
    "nnsight",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.pipelines",
    "xarray",
    "netCDF4",
    "scipy.stats",
    "sklearn.linear_model",
    "seaborn",
    "typer",
]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(LIBRARIES)


class Program:
    """A running Python program.

    words: what stands behind `python` on its command line. python: another one, which starts cold.
    """

    def __init__(
        self,
        *words: object,
        cwd: Path | str = ".",
        env: Mapping[str, str] | None = None,
        python: str | None = None,
    ) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="warm-")
        self.out, self.err = (Path(self.folder.name) / name for name in ("out", "err"))
        given = dict(os.environ if env is None else env)
        arguments = ([str(word) for word in words], str(Path(cwd).resolve()), given)
        files = (str(self.out), str(self.err))
        target = _program if python is None else _other
        self.process = CONTEXT.Process(
            target=target, args=(*arguments, *files, python), daemon=True
        )
        self.process.start()

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.process.exitcode is None:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def first_line(self, timeout: float = 60.0) -> str:
        """Return its first line of output, once it is whole."""
        end = time.monotonic() + timeout
        while not (self.out.exists() and b"\n" in self.out.read_bytes()):
            assert self.poll() is None and time.monotonic() < end, self.texts()[1]
            time.sleep(0.01)
        return self.texts()[0].splitlines()[0]

    def texts(self) -> tuple[str, str]:
        """Return standard output and standard error so far."""
        return tuple(path.read_text() if path.exists() else "" for path in (self.out, self.err))

    def wait(self, timeout: float = 300.0) -> subprocess.CompletedProcess:
        """Return exit code and texts when it has ended; kill it after `timeout` seconds."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.out, timeout)
        out, err = self.texts()
        self.folder.cleanup()
        return subprocess.CompletedProcess([], self.process.exitcode, out, err)


def run(
    *words: object,
    cwd: Path | str = ".",
    env: Mapping[str, str] | None = None,
    timeout: float = 300.0,
) -> subprocess.CompletedProcess:
    """Run a program to its end."""
    return Program(*words, cwd=cwd, env=env).wait(timeout)


def _other(words, cwd, env, out, err, python: str) -> None:
    """Become a program of another Python, in the forked process."""
    _turn(cwd, out, err)
    os.execve(python, [python, *words], env)


def _turn(cwd: str, out: str, err: str) -> None:
    """Write to these files from now on, in this folder."""
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)


def _program(words: list[str], cwd: str, env: dict[str, str], out: str, err: str, _) -> None:
    """Become the program, in the forked process."""
    _turn(cwd, out, err)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    os.environ.clear()
    os.environ.update(env)
    # of this process alone: where the tests' own modules lie is not where the program looks
    tests = str(Path(__file__).parent)
    sys.path[:] = [one for one in sys.path if not one.startswith(tests)]
    sys.path[:0] = env["PYTHONPATH"].split(os.pathsep) if env.get("PYTHONPATH") else []
    code = 1
    try:
        _execute(words)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)


def _execute(words: list[str]) -> None:
    """Run `-c CODE`, `-m MODULE` or a script as Python does."""
    first, *rest = words
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path.insert(0, "")
        scope = {"__name__": "__main__", "__builtins__": __builtins__}
        exec(compile(rest[0], "<string>", "exec"), scope)
    elif first == "-m":
        sys.argv = rest
        sys.path.insert(0, "")
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(first).resolve().parent))
        runpy.run_path(first, run_name="__main__")
