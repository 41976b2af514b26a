"""An endpoint for chat completions that answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Of a request: the status and the body of the answer.
Script = Callable[[dict[str, Any]], tuple[int, object]]


class Endpoint:
    """What was asked, and what is answered: by default the text ``four``, at once."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.script: Script = lambda request: (200, {"choices": [{"message": {"content": "four"}}]})
        # With it cleared, requests are held until it is set, or whoever asked has closed the connection.
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Event()
        self.hung_up = threading.Event()
        self.url = ""

    def fail(self, status: int, body: object) -> None:
        self.script = lambda request: (status, body)


@contextmanager
def served() -> Iterator[Endpoint]:
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            endpoint.requests.append(request)
            endpoint.paths.append(self.path)
            endpoint.asked.set()
            if not endpoint.answers.is_set():
                self.connection.recv(1)  # Nothing more comes: it returns when the other side closes.
                endpoint.hung_up.set()
                return
            status, body = endpoint.script(request)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode() if isinstance(body, str) else json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    serving = threading.Thread(target=server.serve_forever, args=(0.05,))
    serving.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
