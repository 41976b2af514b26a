"""An endpoint for chat completions whose tokens are the times when they are sent.

    python -m bench.endpoint TOKENS INTERVAL_S

Each token is a blank and the value of `time.monotonic_ns`, which all processes of the machine share. Its URL
goes to stdout, then a line for each thing that happens: ``asked NS`` and ``closed NS``. A prompt that ends
with ``hold`` gets one token and no end. The process ends when stdin is closed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_TOKENS, _INTERVAL_S = int(sys.argv[1]), float(sys.argv[2])


def tell(*words: object) -> None:
    print(*words, flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = b'{"data": [{"id": "clock"}]}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tell("asked", time.monotonic_ns())
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if request["messages"][-1]["content"].endswith("hold"):
            self._token()
            self.connection.recv(1)
            tell("closed", time.monotonic_ns())
            self.close_connection = True
            return
        for _ in range(_TOKENS):
            self._token()
            if _INTERVAL_S:
                time.sleep(_INTERVAL_S)
        self._send(b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
        self._send(b"")

    def _token(self) -> None:
        event = {"choices": [{"index": 0, "delta": {"content": f" {time.monotonic_ns()}"}}]}
        self._send(b"data: %s\n\n" % json.dumps(event).encode())

    def _send(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tell(f"http://127.0.0.1:{server.server_port}/v1")
    sys.stdin.read()


if __name__ == "__main__":
    main()
