"""A server that answers as a test tells it: by the protocol, or against it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request, with what an answer needs."""

    server: Served
    protocol_version = "HTTP/1.1"
    body: bytes

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append(self)
        try:
            self.server.answer(self)
        except (BrokenPipeError, ConnectionResetError):  # the client has had enough
            self.close_connection = True

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def send(self, value: Any, status: int = 200, mime: str = "application/json", **headers: str) -> None:
        """A whole answer: bytes as they are, everything else as JSON."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.begin(mime, status, **{**headers, "content-length": str(len(data))})
        self.wfile.write(data)

    def begin(self, mime: str = "text/event-stream", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("content-type", mime)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "content-length" not in headers:
            self.send_header("connection", "close")
            self.close_connection = True
        self.end_headers()

    def event(self, value: Any) -> None:
        """One server-sent event."""
        data = value if isinstance(value, str) else json.dumps(value)
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()

    def say(self, *texts: str, reason: str = "stop") -> None:
        """A whole streamed answer in words."""
        self.begin()
        for text in texts:
            self.event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        self.event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(texts)}})
        self.event("[DONE]")


class Served(ThreadingHTTPServer):
    """The server: where it is, what it was asked."""

    daemon_threads = True
    answer: Answer

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answer, self.seen = answer, list[Request]()
        self.over = threading.Event()  # answers that hang wait for it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def serving(answer: Answer) -> Iterator[Served]:
    """A server on a free port of this machine."""
    with Served(answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()
