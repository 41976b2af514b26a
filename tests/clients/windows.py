"""A desktop without a screen, on which programs with windows run, and what a user does to a window."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.clients.programs import require
from tests.mount.conftest import wait_until


class Desktop:
    """An X server and a message bus of its own, with empty settings."""

    def __init__(self, home: Path) -> None:
        for program in ("Xvfb", "xdotool", "dbus-run-session"):
            require(program)
        self._home = home
        home.mkdir(parents=True, exist_ok=True)
        reading, writing = os.pipe()
        command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1000x700x24", "-nolisten", "tcp"]
        command += ["-fbdir", str(home), "-noreset"]
        self._server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            self.display = f":{pipe.readline().strip()}"

    def environment(self, home: Path | None = None) -> Mapping[str, str]:
        at = home or self._home
        runtime = at / "runtime"
        runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(at),
            "XDG_RUNTIME_DIR": str(runtime),
            "DISPLAY": self.display,
            "LANG": "C.UTF-8",
            # Settings in memory, no accessibility bus, no portals: nothing that outlives the program.
            "GSETTINGS_BACKEND": "memory",
            "NO_AT_BRIDGE": "1",
            "GTK_USE_PORTAL": "0",
            "GIO_USE_VFS": "local",
        }

    def start(self, command: list[str], home: Path) -> subprocess.Popen[bytes]:
        """A program with a bus of its own, so that no instance that runs already answers for it."""
        return subprocess.Popen(
            ["dbus-run-session", "--", *command],
            env=self.environment(home),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def xdotool(self, *arguments: str) -> str:
        result = subprocess.run(
            ["xdotool", *arguments], env=self.environment(), capture_output=True, text=True, check=False
        )
        return result.stdout

    def titles(self) -> dict[str, str]:
        """The title of each visible window."""
        windows = self.xdotool("search", "--onlyvisible", "--name", ".").split()
        return {window: self.title(window) for window in windows}

    def title(self, window: str) -> str:
        return self.xdotool("getwindowname", window).rstrip("\n")

    def wait_for_window(self, pattern: str) -> str:
        """The window whose title matches, when it is there; the keyboard is its from then on."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [window for window, title in self.titles().items() if re.search(pattern, title)]
            return bool(found)

        try:
            wait_until(look)
        except AssertionError:
            raise AssertionError(f"no window matches {pattern!r}, but there are {self.titles()}") from None
        self.xdotool("windowfocus", "--sync", found[0])
        return found[0]

    def wait_for_no_window(self, pattern: str) -> None:
        wait_until(lambda: not any(re.search(pattern, title) for title in self.titles().values()))

    def pixel(self, x: int, y: int) -> bytes:
        """What is shown there: blue, green, red, and a byte without meaning."""
        return self.rows(y, 1)[4 * x : 4 * x + 4]

    def rows(self, y: int, count: int) -> bytes:
        """The pixels of some rows from *y* on. As in xwd(1), see XWDFile.h."""
        data = (self._home / "Xvfb_screen0").read_bytes()
        header = struct.unpack(">25I", data[:100])
        header_bytes, line_bytes, colors = header[0], header[12], header[19]
        start = header_bytes + 12 * colors + y * line_bytes
        return data[start : start + count * line_bytes]

    def type(self, text: str) -> None:
        self.xdotool("type", "--delay", "5", text)

    def press(self, *keys: str) -> None:
        """Keys as xdotool names them: ``ctrl+s``, ``Home``."""
        self.xdotool("key", "--delay", "5", *keys)

    def click(self, x: int, y: int) -> None:
        self.xdotool("mousemove", str(x), str(y), "click", "1")

    def close(self) -> None:
        self._server.terminate()
        self._server.wait()


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a program that `Desktop.start` started, with all that it started."""

    def is_gone() -> bool:
        process.poll()
        return not _lives(process.pid)

    if not is_gone():
        os.killpg(process.pid, signal.SIGTERM)
        try:
            wait_until(is_gone)  # Not the first of them alone: the others write their settings at the end.
        except AssertionError:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _lives(group: int) -> bool:
    """Whether a process of the group is there that has not ended; see proc(5) for the fields."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, process_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == group and state != "Z":
                return True
    return False
