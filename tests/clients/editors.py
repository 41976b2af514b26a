"""Editors, as a user drives them: open, type after the first character, save, quit."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from tests.clients.terminal import Terminal
from tests.clients.windows import Desktop, end
from tests.mount.conftest import ANSWERS_S, wait_until


class Editor(Protocol):
    """An editor with one document open."""

    def insert(self, text: str) -> None:
        """Types *text* after the first character of the document."""

    def delete(self, count: int) -> None:
        """Deletes so many characters after the first one."""

    def save(self) -> None:
        """Saves; returns when the editor says that it has."""

    def save_in_vain(self) -> None:
        """Saves; returns when the editor says that it could not."""

    def quit(self) -> None: ...


class _InTerminal:
    def __init__(self, open_terminal: Callable[..., Terminal], command: list[str], path: Path) -> None:
        self.terminal: Terminal = open_terminal([*command, path.name], path.parent)
        self.terminal.wait_for(r'"id": ')

    def _typed(self, text: str, first: str = "") -> None:
        """Types, and waits until it shows: what is on the screen from before says nothing about it."""
        self.terminal.type(first + text)
        self.terminal.wait_for(re.escape("{" + text.rstrip()))


class Vim(_InTerminal):
    def __init__(self, open_terminal: Callable[..., Terminal], path: Path) -> None:
        super().__init__(open_terminal, ["vim"], path)

    def insert(self, text: str) -> None:
        self._typed(text, "gg0a")
        self.terminal.press("Escape")

    def delete(self, count: int) -> None:
        self.terminal.type(f"gg0l{count}x")

    def save(self) -> None:
        self.terminal.press(":")
        self.terminal.type("w")
        self.terminal.press("Enter")
        self.terminal.wait_for(r"\d+B written")

    def save_in_vain(self) -> None:
        self.terminal.press(":")
        self.terminal.type("w")
        self.terminal.press("Enter")
        self.terminal.wait_for(r"E\d+: |error")

    def quit(self) -> None:
        self.terminal.press(":")
        self.terminal.type("q")
        self.terminal.press("Enter")
        self.terminal.wait_for_end()


class Nano(_InTerminal):
    def __init__(self, open_terminal: Callable[..., Terminal], path: Path) -> None:
        super().__init__(open_terminal, ["nano"], path)

    def insert(self, text: str) -> None:
        self.terminal.press("M-\\", "Right")
        self._typed(text)

    def delete(self, count: int) -> None:
        self.terminal.press("M-\\", "Right", *["DC"] * count)

    def save(self) -> None:
        self.terminal.press("C-s")
        self.terminal.wait_for(r"(?s)\A(?![^\n]*( \*|Modified)).*Wrote")

    def save_in_vain(self) -> None:
        self.terminal.press("C-s")
        self.terminal.wait_for(r"Error writing")

    def quit(self) -> None:
        self.terminal.press("C-x")
        self.terminal.wait_for_end()


class Emacs(_InTerminal):
    def __init__(self, open_terminal: Callable[..., Terminal], path: Path) -> None:
        super().__init__(open_terminal, ["emacs", "-nw"], path)

    def insert(self, text: str) -> None:
        self.terminal.press("M-<", "C-f")
        self._typed(text)

    def delete(self, count: int) -> None:
        self.terminal.press("M-<", "C-f", *["C-d"] * count)

    def save(self) -> None:
        self.terminal.press("C-x", "C-s")
        self.terminal.wait_for(r"Wrote /")

    def save_in_vain(self) -> None:
        self.terminal.press("C-x", "C-s")
        self.terminal.wait_for(r"Invalid argument|error|Bad message")

    def quit(self) -> None:
        self.terminal.press("C-x", "C-c")
        self.terminal.wait_for_end()


class _InWindow:
    """An editor whose title shows ``*`` while something is not saved."""

    def __init__(self, desktop: Desktop, command: list[str], path: Path, home: Path) -> None:
        self.desktop = desktop
        self._name = path.name
        self.process = desktop.start([*command, str(path)], home)
        self._window = desktop.wait_for_window(re.escape(path.name))

    def _shows(self, *, saved: bool) -> bool:
        title = self.desktop.title(self._window)
        return self._name in title and title.startswith("*") is not saved

    def insert(self, text: str) -> None:
        wait_until(self._takes_keys)
        self.desktop.press("ctrl+Home", "Right")
        self.desktop.type(text)

    def _takes_keys(self) -> bool:
        """While it loads or saves keys are lost, and the title may not say so: blanks are no loss."""
        if not self._shows(saved=False):
            self.desktop.press("ctrl+Home", "Right", "space")
        return self._shows(saved=False)

    def delete(self, count: int) -> None:
        self.desktop.press("ctrl+Home", "Right", *["Delete"] * count)

    def save(self) -> None:
        self.desktop.press("ctrl+s")
        wait_until(lambda: self._shows(saved=True))

    def quit(self) -> None:
        self.desktop.press("ctrl+q")
        self.process.wait(ANSWERS_S)

    def close(self) -> None:
        end(self.process)


class Mousepad(_InWindow):
    def __init__(self, desktop: Desktop, path: Path, home: Path) -> None:
        super().__init__(desktop, ["mousepad"], path, home)

    def save_in_vain(self) -> None:
        self.desktop.press("ctrl+s")
        self.desktop.wait_for_window("^Mousepad$")  # Its message: "Failed to save the document."
        self.desktop.press("Escape")
        self.desktop.wait_for_no_window("^Mousepad$")
        self.desktop.wait_for_window(re.escape(self._name))
        assert self._shows(saved=False)


class Gedit(_InWindow):
    # Two places beside the numbers of lines. In the upper one is the bar that says that it could not save.
    # The colours are others while the window has not got the keyboard.
    _UPPER, _LOWER = (8, 75), (8, 500)
    _TEXT = 500, 500

    def __init__(self, desktop: Desktop, path: Path, home: Path) -> None:
        super().__init__(desktop, ["gedit"], path, home)

    def _has_bar(self) -> bool:
        return self.desktop.pixel(*self._UPPER) != self.desktop.pixel(*self._LOWER)

    def save_in_vain(self) -> None:
        self.desktop.press("ctrl+s")
        wait_until(self._has_bar)

        def is_dismissed() -> bool:
            self.desktop.press("alt+c")  # Which does nothing while the bar is still coming.
            return not self._has_bar()

        wait_until(is_dismissed)
        self.desktop.click(*self._TEXT)  # It gets the keys back only some time later.
        assert self._shows(saved=False)


class VSCode:
    """How VS Code 1.9x saves: in place, with open, write, fdatasync, close; and it compares time and size
    with those after its last save, to notice what others wrote.

    See ``diskFileSystemProvider.ts`` and ``textFileEditorModel.ts`` of its source.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = path.read_text()
        self._seen = self._etag()

    def _etag(self) -> tuple[int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size

    def insert(self, text: str) -> None:
        self._text = self._text[:1] + text + self._text[1:]

    def delete(self, count: int) -> None:
        self._text = self._text[:1] + self._text[1 + count :]

    def save(self) -> None:
        assert self._etag() == self._seen, "the file on disk is newer"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            data, offset = self._text.encode(), 0
            while offset < len(data):
                offset += os.pwrite(descriptor, data[offset : offset + 65536], offset)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        self._seen = self._etag()

    def save_in_vain(self) -> None:
        with pytest.raises(OSError, match="Invalid argument"):
            self.save()

    def quit(self) -> None:
        """Closing a file calls nothing."""
