"""Starts and stops the loopback server: a process of its own, in an environment without this
project.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from pathlib import Path

import warm

NDIF = os.environ.get(
    "NNHEADS_NDIF_PYTHON", ""
)  # of an environment with ndif, nnsight, starlette; without nnheads


class Loopback:
    """A server on a free port, which it keeps when it is started again."""

    def __init__(self, store: Path, *options: str):
        self.store, self.options, self.port = store, options, 0
        self.start()

    def start(self) -> None:
        script = Path(__file__).parent / "remote" / "loopback.py"
        words = [str(script), "--store", str(self.store), "--port", str(self.port), *self.options]
        clean = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "NDIF_API_KEY")
        }
        python = NDIF if "--ndif" in self.options else None
        self.process = warm.Program(*words, cwd=self.store.parent, env=clean, python=python)
        self.port = int(self.process.first_line())
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/ping", timeout=5).read()
                return
            except OSError:
                assert time.monotonic() < until, "the loopback server did not start"
                time.sleep(0.05)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def faults(self, *wrong: dict) -> None:
        """What goes wrong from now on; without arguments nothing does."""
        data = json.dumps(list(wrong)).encode()
        urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/faults", data, method="POST"), timeout=10
        ).read()

    @property
    def executed(self) -> list[dict]:
        """Every job that ran, in order."""
        log = self.store / "executed.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
