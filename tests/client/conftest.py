"""A small HTTP server that plays a server of texts, in a thread; each test scripts its answer."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest


@dataclass
class Script:
    """What the server answers, and what it saw.

    chunks: bytes of the body, sent one by one. endless: go on sending `chunks` until the client hangs up.
    refusals: status and headers of what is answered first, in order.
    """

    status: int = 200
    content_type: str = "application/json"
    chunks: list[bytes] = field(default_factory=list)
    endless: bool = False
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    paths: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    hung_up: Event = field(default_factory=Event)

    def answer(self, content: object, status: int = 200) -> None:
        """Answer with JSON."""
        self.status, self.content_type, self.chunks = status, "application/json", [json.dumps(content).encode()]

    def text(self, content: str, status: int) -> None:
        """Answer with plain text."""
        self.status, self.content_type, self.chunks = status, "text/plain", [content.encode()]

    def stream(self, *chunks: bytes) -> None:
        """Answer with these bytes of a server-sent event stream."""
        self.status, self.content_type, self.chunks = 200, "text/event-stream", list(chunks)


def _handler(script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            script.paths.append(self.path)
            script.bodies.append(json.loads(body))
            script.headers.append({name.lower(): value for name, value in self.headers.items()})
            refused = script.refusals.pop(0) if script.refusals else None
            status, headers = refused or (script.status, {"content-type": script.content_type})
            self.send_response(status)
            for name, value in {**headers, "connection": "close"}.items():
                self.send_header(name, value)
            self.end_headers()
            if refused is None:
                self._send_chunks()
            self.close_connection = True

        def _send_chunks(self) -> None:
            try:
                for chunk in script.chunks:
                    self.wfile.write(chunk)
                while script.endless:
                    self.wfile.write(script.chunks[-1])
            except OSError:
                script.hung_up.set()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are sent again at once."""
    monkeypatch.setattr("text_generation.retries.FIRST_S", 0.0)


@pytest.fixture
def server() -> Iterator[Script]:
    """A running server; `url` says where."""
    script = Script()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(script))
    script.url = f"http://127.0.0.1:{http.server_port}"
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield script
    http.shutdown()
    thread.join()
    http.server_close()
