"""Editors.

Editors save in their own ways: in place, by a temporary file that is renamed, with swap, lock, probe and
backup files beside the document. What they save is in the store, what is refused they say, and nothing of
theirs reaches the store or stays in the tree. (emacs keeps a backup, `status~`: it is gone from the tree
after two seconds.) What is wrong with a refused document is in `.threadfs/errors`; gedit takes the refusal
for a matter of character encoding: press Cancel, and go on editing. Which names of temporary files are taken
is in [tree.md](tree.md#scratch-files); where another one is refused, most programs write in place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.editors import Editor, Emacs, Gedit, Mousepad, Nano, Vim, VSCode
from tests.clients.terminal import Terminal
from tests.mount.conftest import Mount, wait_until
from tests.mount.scripts import new_work

Open = Callable[[Path], Editor]

_IN_TERMINAL: dict[str, type[Vim] | type[Nano] | type[Emacs]] = {"vim": Vim, "nano": Nano, "emacs": Emacs}
_IN_WINDOW: dict[str, type[Mousepad] | type[Gedit]] = {"Mousepad": Mousepad, "gedit": Gedit}
_PLAYED = "VS Code (its system calls)"
EDITORS = [
    pytest.param(title, marks=[pytest.mark.program(title)]) for title in (*_IN_TERMINAL, *_IN_WINDOW, _PLAYED)
]
DOCUMENTS = ("status", "meta.json", "step")


@pytest.fixture
def mount(shared_mount: Mount) -> Mount:
    return shared_mount


@pytest.fixture(params=EDITORS)
def edit(
    request: pytest.FixtureRequest, mount: Mount, terminal: Callable[..., Terminal], home: Path
) -> Iterator[Open]:
    """Opens a file in an editor."""
    opened: list[Mousepad | Gedit] = []

    def open_editor(path: Path) -> Editor:
        if in_terminal := _IN_TERMINAL.get(request.param):
            return in_terminal(terminal, path)
        if in_window := _IN_WINDOW.get(request.param):
            opened.append(in_window(request.getfixturevalue("desktop"), path, home))
            return opened[-1]
        return VSCode(path)

    yield open_editor
    for editor in opened:
        editor.close()


class Document:
    """A document in the mount, and where the store keeps it."""

    def __init__(self, mount: Mount, name: str) -> None:
        run = new_work(mount)
        thread = run.parent.parent
        step = next((run / "steps").iterdir())
        self.path = {"status": run / "status", "meta.json": thread / "meta.json", "step": step}[name]
        self.thread = thread
        stored = self.path if name != "status" else run / "status.json"
        self.stored = mount.store / stored.relative_to(mount.root / "threads")
        self._store = mount.store
        self._names = self._all_names()

    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.stored.read_bytes())
        assert self.path.read_bytes() == self.stored.read_bytes()
        return fields

    def _all_names(self) -> tuple[list[Path], list[Path]]:
        return sorted(self.thread.rglob("*")), self._stored_names()

    def _stored_names(self) -> list[Path]:
        return sorted(self._store.rglob("*"))

    def assert_nothing_is_left(self) -> None:
        """In the store at once; in the tree a backup that the editor keeps is gone in a few seconds."""
        assert self._stored_names() == self._names[1]
        wait_until(lambda: self._all_names() == self._names)


@pytest.fixture(params=DOCUMENTS)
def document(request: pytest.FixtureRequest, mount: Mount) -> Document:
    return Document(mount, request.param)


def test_saves_a_document_and_saves_it_again(edit: Open, document: Document) -> None:
    before = document.fields()
    editor = edit(document.path)
    editor.insert('"note": "one", ')
    editor.save()
    assert document.fields() == {"note": "one", **before}
    editor.insert('"more": "two", ')
    editor.save()
    assert document.fields() == {"note": "one", "more": "two", **before}
    editor.quit()


# The first is refused when it is written, the second when it is complete.
@pytest.mark.parametrize("broken", ["]]", '"deep": {'], ids=["wrong", "unfinished"])
def test_says_that_broken_JSON_was_not_saved_and_keeps_what_was_typed(
    edit: Open, document: Document, broken: str
) -> None:
    before = document.stored.read_bytes()
    editor = edit(document.path)
    editor.insert('"note": "one", ')
    editor.insert(broken)
    editor.save_in_vain()
    assert document.stored.read_bytes() == before
    assert document.path.read_bytes() == before
    editor.delete(len(broken))
    editor.save()
    assert document.fields() == {"note": "one", **json.loads(before)}
    editor.quit()


@pytest.mark.parametrize("document", ["meta.json"], indirect=True)
def test_leaves_no_file_of_its_own_behind(edit: Open, document: Document) -> None:
    editor = edit(document.path)
    editor.insert('"note": "one", ')
    editor.save()
    editor.quit()
    document.assert_nothing_is_left()
