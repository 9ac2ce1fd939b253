"""Answers that never end, unpack to gigabytes or are in no encoding end no client."""

from __future__ import annotations

import gzip
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from nnheads.errors import RunError
from nnheads.remote import server
from nnheads.remote.web import MOST_SAID, answer_of

BODIES = {
    "/whole": [b'{"a": 1}'],
    "/endless": None,
    "/slow": "slow",
    "/packed": [gzip.compress(b" " * 10_000_000)],
    "/letters": [b'{"a": "\xff\xfe"}'],
}


class Hostile(BaseHTTPRequestHandler):
    def do_GET(self):
        body = BODIES[self.path]
        self.send_response(200)
        self.send_header("content-type", "application/json; charset=of-nobody")
        if self.path == "/packed":
            self.send_header("content-encoding", "gzip")
        self.end_headers()
        try:
            while body in (None, "slow"):
                self.wfile.write(b" " * (1 if body else 100_000))
                time.sleep(0.05 if body else 0)
            self.wfile.write(b"".join(body))
        except OSError:  # the client has gone
            pass

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def host():
    hostile = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    threading.Thread(target=hostile.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{hostile.server_port}"
    hostile.shutdown()
    hostile.server_close()


def test_an_answer_is_read_whole_and_as_it_was_sent(host):
    with httpx.Client() as client:
        assert answer_of(client, "GET", f"{host}/whole").json() == {"a": 1}
        packed = answer_of(client, "GET", f"{host}/packed")
    assert packed.content == BODIES["/packed"][0], "nothing is unpacked that nobody asked for"


def test_an_endless_answer_ends_at_its_limit(host):
    with httpx.Client() as client, pytest.raises(RunError, match=f"more than {MOST_SAID:,} bytes"):
        answer_of(client, "GET", f"{host}/endless")


def test_a_slow_answer_ends_in_time(host):
    with httpx.Client() as client, pytest.raises(httpx.ReadTimeout, match="longer than"):
        answer_of(client, "GET", f"{host}/slow", seconds=0.3)


@pytest.mark.parametrize("path", ["/endless", "/slow", "/packed", "/letters"])
def test_what_a_server_says_of_itself_is_one_line_or_an_object(host, path):
    try:
        assert isinstance(server.asked(host, path, timeout=0.5), dict)
    except RunError as error:
        assert "\n" not in str(error)
