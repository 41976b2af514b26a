"""An endpoint for chat completions that does what a test says, and keeps what it was asked.

A script gets each request to ``/chat/completions``, as an `Exchange`, and answers it::

    endpoint.script = lambda exchange: exchange.says("Hello", " there")
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

ENDS_S = 20.0


class Exchange:
    """A request, and the connection it came by. Times are those of `time.monotonic`."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self.path = handler.path
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        given = handler.rfile.read(int(self.headers.get("content-length", 0)))
        self.body: dict[str, Any] = json.loads(given) if given else {}
        self.hung_up = threading.Event()
        self.hung_up_s = 0.0
        self.first_text_s = 0.0
        # The process of a test that lets a held exchange go on.
        self.go_on = threading.Event()
        self._handler = handler
        self._is_chunked = False

    @property
    def messages(self) -> list[tuple[str, Any]]:
        """The prompt, as pairs of a role and a text."""
        return [(message["role"], message["content"]) for message in self.body["messages"]]

    # ── A whole answer ──────────────────────────────────────────────────────────────────────────────

    def replies(self, status: int, body: object = "", **headers: str) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self._handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **_headers(headers)}.items():
            self._handler.send_header(name, value)
        self._handler.send_header("Content-Length", str(len(content)))
        self._handler.end_headers()
        self.sends(content)

    def refuses(self, status: int, message: str = "so it is", **headers: str) -> None:
        self.replies(status, {"error": {"message": message, "type": "t"}}, **headers)

    def is_silent(self) -> None:
        """Begins a stream, and says nothing."""
        self.begins()
        self.waits()

    def is_empty(self) -> None:
        """A stream without an event."""
        self.begins()
        self.ends()

    # ── A stream ────────────────────────────────────────────────────────────────────────────────────

    def begins(self, content_type: str = "text/event-stream", **headers: str) -> None:
        """Sends the head of a stream."""
        self._handler.send_response(200)
        for name, value in {"Content-Type": content_type, **_headers(headers)}.items():
            self._handler.send_header(name, value)
        self._handler.send_header("Transfer-Encoding", "chunked")
        self._handler.end_headers()
        self._is_chunked = True

    def event(self, data: object, name: str = "") -> None:
        """Sends an event: text as it is, all else as JSON."""
        text = data if isinstance(data, str) else json.dumps(data)
        self.sends(f"{f'event: {name}' + chr(10) if name else ''}data: {text}\n\n".encode())

    def text(self, *pieces: str) -> None:
        for piece in pieces:
            self.first_text_s = self.first_text_s or time.monotonic()
            self.event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})

    def finishes(self, reason: str | None = "stop", usage: object = None, *, is_done: bool = True) -> None:
        if reason is not None:
            self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        if usage is not None:
            self.event({"choices": [], "usage": usage})
        if is_done:
            self.event("[DONE]")
        self.ends()

    def says(self, *pieces: str, reason: str | None = "stop", usage: object = None) -> None:
        """A whole stream."""
        self.begins()
        self.text(*pieces)
        self.finishes(reason, usage)

    def calls(self, *calls: tuple[str, str, str], text: str = "") -> None:
        """A stream that calls tools, each with an id, a name and arguments, which come in two pieces."""
        self.begins()
        if text:
            self.text(text)
        for index, (call_id, name, arguments) in enumerate(calls):
            first: dict[str, Any] = {"index": index, "id": call_id, "type": "function"}
            self._call({**first, "function": {"name": name, "arguments": arguments[:3]}})
            self._call({"index": index, "function": {"arguments": arguments[3:]}})
        self.finishes("tool_calls")

    def _call(self, call: dict[str, Any]) -> None:
        self.event({"choices": [{"index": 0, "delta": {"content": None, "tool_calls": [call]}}]})

    def sends(self, content: bytes) -> None:
        """Sends bytes as they are; in a stream as a chunk."""
        if self._is_chunked:
            content = b"%x\r\n%s\r\n" % (len(content), content)
        with suppress(BrokenPipeError, ConnectionResetError):
            self._handler.wfile.write(content)
            self._handler.wfile.flush()

    def ends(self) -> None:
        self.sends(b"")
        self._is_chunked = False

    def drops(self) -> None:
        """Closes the connection, whatever has been sent."""
        self._is_chunked = False
        self._handler.close_connection = True

    def waits(self) -> None:
        """Says nothing more until the other side closes the connection."""
        self._handler.connection.settimeout(ENDS_S)
        with suppress(OSError):
            self._handler.connection.recv(1)
        self.hung_up_s = time.monotonic()
        self.hung_up.set()
        self.drops()


Script: TypeAlias = Callable[[Exchange], None]


def _headers(given: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in given.items()}


class ScriptedEndpoint:
    """*script* answers requests for completions, after those in *first*, each of which answers one."""

    def __init__(self) -> None:
        self.url = ""
        self.exchanges: list[Exchange] = []
        self.models_asked = 0
        self.models: Script = lambda exchange: exchange.replies(200, {"data": [{"id": "small"}]})
        self.first: list[Script] = []
        self.script: Script = lambda exchange: exchange.says("four")
        self._came = threading.Condition()

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    def has(self, *models: str) -> None:
        """Lists these models."""
        self.models = lambda exchange: exchange.replies(200, {"data": [{"id": model} for model in models]})

    def exchange(self, number: int = 0) -> Exchange:
        """The request of that number; waits for it."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.exchanges) > number, ENDS_S), "nothing was asked"
            return self.exchanges[number]

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        exchange = Exchange(handler)
        if handler.path == "/v1/models":
            self.models_asked += 1
            self.models(exchange)
            return
        if handler.path != "/v1/chat/completions":
            exchange.refuses(404)
            return
        with self._came:
            self.exchanges.append(exchange)
            script = self.first.pop(0) if self.first else self.script
            self._came.notify_all()
        script(exchange)


@contextmanager
def scripted() -> Iterator[ScriptedEndpoint]:
    """A new endpoint, as long as the block lasts."""
    endpoint = ScriptedEndpoint()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            endpoint.handle(self)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # Who asked has gone.

    server = Server(("127.0.0.1", 0), Handler)
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    serving = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    serving.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
