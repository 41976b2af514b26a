"""The network between a program and the server, which can fall silent, break, and lose an answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Passes on what comes on its port. Its connections take turns, by threads of their own."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._passing = threading.Event()
        self._passing.set()
        self._refusing = False
        self._cut_at: bytes | None = None
        self._passes_it_on = self._refuses_then = False
        self._swallowed: set[socket.socket] = set()
        # How often a program has sent what `cut_at` waits for.
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def pause(self) -> None:
        """Whatever is sent is taken, and comes out when it goes on."""
        self._passing.clear()

    def swallow(self) -> None:
        """The connections that there are stay silent for ever; new ones work."""
        self._swallowed = {each for pair in self._pairs for each in pair}

    def go_on(self) -> None:
        self._refusing = False
        self._passing.set()

    def cut(self, *, refuse: bool = False) -> None:
        """Ends all connections; with *refuse*, new ones too until `go_on`."""
        self._refusing = refuse
        for pair in self._pairs:
            _end(*pair)
        self._pairs.clear()

    def cut_at(self, sent: bytes, *, pass_it_on: bool, refuse: bool = False) -> None:
        """The connection on which a program sends this next is cut: after or before the server has it.

        With *refuse*, new ones are refused from then on until `go_on`.
        """
        self._cut_at, self._passes_it_on, self._refuses_then = sent, pass_it_on, refuse

    def close(self) -> None:
        self._listening.close()
        self.cut(refuse=True)
        self._passing.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                try:
                    server = self._connected()
                except OSError:
                    client.close()
                    continue
                self._pairs.append((client, server))
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _connected(self) -> socket.socket:
        if self._refusing:
            raise ConnectionRefusedError
        return socket.create_connection(("127.0.0.1", self._server_port))

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._passing.wait()
                if source in self._swallowed:
                    continue
                if self._cut_at is not None and self._cut_at in data:
                    self._cut_at = None
                    self.cuts += 1
                    self._refusing = self._refuses_then
                    if self._passes_it_on:
                        # The program loses the connection first, so that no answer can reach it. What the
                        # server gets before the end of the connection it does.
                        source.shutdown(socket.SHUT_RDWR)
                        target.sendall(data)
                        target.shutdown(socket.SHUT_WR)
                        return
                    break
                target.sendall(data)
        _end(source, target)


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
