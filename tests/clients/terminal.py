"""A program in a terminal that a test can type into and read."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.clients.programs import require
from tests.mount.conftest import wait_until


class Terminal:
    """A terminal of its own (a tmux server), 100 columns wide, that ends with the program in it."""

    def __init__(self, socket: Path, command: list[str], cwd: Path, environment: Mapping[str, str]) -> None:
        require("tmux")
        self._socket = socket
        self._tmux_environment = {**os.environ, **environment, "TERM": "xterm"}
        self._tmux_environment.pop("TMUX", None)
        self._tmux(
            "new-session", "-d", "-x", "100", "-y", "40", "-c", str(cwd), f"exec {shlex.join(command)}"
        )

    def _tmux(self, *arguments: str, check: bool = True) -> str:
        command = ["tmux", "-S", str(self._socket), "-f", "/dev/null", *arguments]
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self._tmux_environment
        )
        assert result.returncode == 0 or not check, result.stderr
        return result.stdout

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Keys as tmux names them: ``Enter``, ``C-x``, ``M-<``."""
        self._tmux("send-keys", "--", *keys)

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p", check=False)

    def wait_for(self, pattern: str) -> None:
        """Until the screen shows what matches."""
        try:
            wait_until(lambda: re.search(pattern, self.screen()) is not None)
        except AssertionError:
            raise AssertionError(f"the screen does not show {pattern!r}:\n{self.screen()}") from None

    def has_ended(self) -> bool:
        alive = ["tmux", "-S", str(self._socket), "has-session"]
        return (
            subprocess.run(alive, capture_output=True, check=False, env=self._tmux_environment).returncode
            != 0
        )

    def wait_for_end(self) -> None:
        try:
            wait_until(self.has_ended)
        except AssertionError:
            raise AssertionError(f"it has not ended:\n{self.screen()}") from None

    def close(self) -> None:
        self._tmux("kill-server", check=False)
