"""Runs ``python -m MODULE ...`` in a fork of a process that has imported the modules of threadfs.

Without that a mount takes 0.8 seconds of a core to start and a command 0.4, nearly all of it for imports, and
the tests start hundreds. Each is still a process of its own, which runs the module from its beginning to its
end. What differs: its command line as the system shows it, what is decided when a program is loaded, as by
``LD_PRELOAD``, and that Python is not taken apart after its last word.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from threadfs.commands import COMMANDS, module_of

ROOT = Path(__file__).parents[1]
# What the commands import when they run, and what a mount imports when it is asked for it.
_IMPORTED = (
    *("threadfs.commands.background", "threadfs.commands.mount", "threadfs.commands.parser"),
    *("threadfs.commands.changes", "threadfs.commands.local_endpoints", "threadfs.commands.mounted_search"),
    *("threadfs.importing.session", "threadfs.openai.exporting", "threadfs.exporting.notes"),
    "threadfs.events.history",
    *("store.disk.builder", "store.disk.catalogue", "store.disk.followed", "store.disk.watching"),
    *("store.disk.fsck.checking", "store.disk.fsck.repairing"),
    *("store.postgres.catalogue", "store.postgres.filling"),
)
_REQUEST_BYTES = 128 << 10
_STANDARD = 3
_NUMBER = struct.Struct("i")


class Process:
    """As `subprocess.Popen`; *streams* are its standard input, output and error."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] = os.environ,
        streams: Sequence[int] = (0, 1, 2),
    ) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._status, theirs = os.pipe()
        request = {
            "arguments": list(arguments),
            "cwd": os.fspath(cwd or Path.cwd()),
            "environment": dict(environment),
        }
        try:
            socket.send_fds(_server(), [json.dumps(request).encode()], [*streams, theirs])
        finally:
            os.close(theirs)
        (self.pid,) = _NUMBER.unpack(os.read(self._status, _NUMBER.size))

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def _ended(self, timeout_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout_s)[0]:
            (self.returncode,) = _NUMBER.unpack(os.read(self._status, _NUMBER.size))
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    arguments: Sequence[str],
    *,
    cwd: Path = ROOT,
    environment: Mapping[str, str] = os.environ,
    given: bytes = b"",
    timeout_s: float,
) -> subprocess.CompletedProcess[bytes]:
    """As `subprocess.run` with its output captured; *given* is its standard input."""
    pipes = [os.pipe() for _ in range(3)]
    (source, giving), (said, saying), (complained, complaining) = pipes
    process = Process(arguments, cwd=cwd, environment=environment, streams=(source, saying, complaining))
    for descriptor in (source, saying, complaining):
        os.close(descriptor)

    def give() -> None:
        with suppress(BrokenPipeError), open(giving, "wb") as stdin:
            stdin.write(given)

    def output(descriptor: int) -> bytes:
        """All of it; what the process leaves running may not keep the pipe open."""
        with open(descriptor, "rb") as stdout:
            return stdout.read()

    threads = ThreadPoolExecutor(3)
    try:
        threads.submit(give)
        texts = [threads.submit(output, descriptor) for descriptor in (said, complained)]
        stdout, stderr = (text.result(timeout_s) for text in texts)
        return subprocess.CompletedProcess(arguments, process.wait(timeout_s), stdout, stderr)
    finally:
        process.kill()  # If it has not ended in time.
        threads.shutdown(wait=False)


_connections: list[socket.socket] = []


def _server() -> socket.socket:
    """Where requests are sent; started by the first one, and it ends with this process."""
    if not _connections:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = theirs.fileno()
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.forking", str(number)], cwd=ROOT, pass_fds=[number]
        )
        theirs.close()
        _connections.append(ours)

        def end() -> None:
            ours.close()
            server.wait()

        atexit.register(end)
    return _connections[0]


# ── The server ──────────────────────────────────────────────────────────────────────────────────────────


def serve(connection: socket.socket) -> list[str]:
    """Returns in each process that is to run a module, with its arguments; in the server never."""
    for name in COMMANDS:
        module_of(name)
    for module in _IMPORTED:
        importlib.import_module(module)
    gc.freeze()  # What is there now is not looked through by each process again.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The tests end first.
    # By a descriptor of each process that has not ended: its number, and where to tell how it ends.
    running: dict[int, tuple[int, int]] = {}
    while True:
        for ready in select.select([connection.fileno(), *running], [], [])[0]:
            if ready in running:
                _tell_end(ready, *running.pop(ready))
                continue
            request, descriptors, _, _ = socket.recv_fds(connection, _REQUEST_BYTES, _STANDARD + 1)
            if not request:
                sys.exit()
            pid = os.fork()
            if pid == 0:
                return _forked(json.loads(request), descriptors)
            *streams, status = descriptors
            for descriptor in streams:
                os.close(descriptor)
            os.write(status, _NUMBER.pack(pid))
            running[os.pidfd_open(pid)] = pid, status


def _tell_end(descriptor: int, pid: int, status: int) -> None:
    _, ended = os.waitpid(pid, 0)
    os.close(descriptor)
    with suppress(BrokenPipeError):  # Nobody wants to know any more.
        os.write(status, _NUMBER.pack(os.waitstatus_to_exitcode(ended)))
    os.close(status)


def _forked(request: dict[str, Any], descriptors: list[int]) -> list[str]:
    """Returns in the new process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(descriptors[:_STANDARD]):
        os.dup2(descriptor, number)
    os.closerange(_STANDARD, os.sysconf("SC_OPEN_MAX"))
    _renew_streams()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    arguments: list[str] = request["arguments"]
    return arguments


def _renew_streams() -> None:
    """As at the start of Python: those of the server know where they led to there."""
    encoding, errors = sys.stdout.encoding, sys.stdout.errors
    sys.stdin = os.fdopen(0, encoding=encoding, errors=errors, closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding=encoding, errors=errors, closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding=encoding, errors=sys.stderr.errors, closefd=False)


def _end(status: int) -> None:
    """Ends as Python does, but for taking all apart that was imported, which copies it: 40 ms of a core."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):  # Which Python reports in its own way.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    sys.argv = serve(socket.socket(fileno=int(sys.argv[1])))
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            raise
        _end(end.code or 0)
    _end(0)
