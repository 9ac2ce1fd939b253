"""A server on the loopback interface in place of the endpoint that writes sentences."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-not-a-real-key"


class Endpoint:
    """A server on the loopback interface that answers what it is told and remembers what it was
    asked.
    """

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.asked: list[tuple[str, dict, dict]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                endpoint.asked.append((self.path, dict(self.headers), json.loads(content)))
                self.answer()

            def do_GET(self):
                endpoint.asked.append((self.path, dict(self.headers), {}))
                self.answer()

            def answer(self):
                if status == 0:
                    self.wfile.write(b"this is no HTTP\r\n\r\n")
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@contextlib.contextmanager
def serving(monkeypatch, status: int = 200, body: bytes = b"", **headers):
    endpoint = Endpoint(status, body, headers)
    thread = threading.Thread(target=endpoint.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url + "/")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "*")
    try:
        yield endpoint
    finally:
        endpoint.server.shutdown()
        endpoint.server.server_close()
        thread.join()


def chat(content) -> bytes:
    return json.dumps(
        {"choices": [{"message": {"role": "assistant", "content": content}}]}
    ).encode()
