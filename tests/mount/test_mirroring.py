"""Who looks only where inotify says so knows all that two others change at once, and nothing else is told."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from inotify_simple import INotify, flags

from store import DocumentKey, Run, RunStatus, RunStep, StoreError, Thread, ThreadStore
from tests.conftest import seeds
from tests.mount.conftest import Mount, checked_mount, wait_until
from tests.mount.watcher import MASK
from tests.store.conftest import message

_CHANGES = 60
_SHOWN = ("threads", "transcripts", "answers", "runs")
# What they hold is no data.
_CONTROLS = ("say", "ask", "start", "cancel")
_DIRECTORY = "a directory"


def shown(place: Path) -> str | bytes | None:
    """What is at a path; ``None``: nothing."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if place.is_symlink():
            return os.readlink(place)
        try:
            return b"" if place.name in _CONTROLS and place.exists() else place.read_bytes()
        except IsADirectoryError:
            return _DIRECTORY
    return None


def walked(root: Path) -> dict[str, str | bytes | None]:
    """All that is shown, by path."""
    found: dict[str, str | bytes | None] = {}
    for top in _SHOWN:
        found[top] = _DIRECTORY
        for directory, directories, files in os.walk(root / top):
            for name in (*directories, *files):
                place = Path(directory, name)
                found[str(place.relative_to(root))] = shown(place)
    return found


class Mirror:
    """What a program knows that has looked at everything once, and since then at what it was told of."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._inotify = INotify()
        self._directories: dict[int, str] = {}
        self.tree: dict[str, str | bytes | None] = {}
        self.told: set[str] = set()
        for top in _SHOWN:
            self._look_at(top)

    def _look_at(self, path: str) -> None:
        found = shown(self._root / path)
        if found != _DIRECTORY:
            for gone in [known for known in self.tree if known.startswith(f"{path}/")]:
                del self.tree[gone]
        if found is None:
            self.tree.pop(path, None)
            return
        was_there = path in self.tree
        self.tree[path] = found
        if found == _DIRECTORY:
            is_new = self._watch(path) or not was_there
            try:
                for name in os.listdir(self._root / path):
                    if is_new or f"{path}/{name}" not in self.tree:
                        self._look_at(f"{path}/{name}")
            except FileNotFoundError:  # It has gone again.
                self.tree.pop(path, None)

    def _watch(self, path: str) -> bool:
        """Whether it was not watched, and is there. What comes into it from now on is told."""
        try:
            number = self._inotify.add_watch(self._root / path, sum(MASK) | flags.ONLYDIR)
        except OSError:  # It has gone: that is told.
            return False
        is_new = self._directories.get(number) != path
        self._directories[number] = path
        return is_new

    def look(self) -> dict[str, str | bytes | None]:
        while events := self._inotify.read(timeout=0):
            for event in events:
                if event.name:
                    path = f"{self._directories[event.wd]}/{event.name}"
                    self.told.add(path)
                    self._look_at(path)
        return self.tree

    def close(self) -> None:
        self._inotify.close()


class Writer(threading.Thread):
    """Another program, which makes random changes and notes what it may have changed by them."""

    def __init__(self, store: Path, stay: list[str], seed: str) -> None:
        super().__init__()
        self._stay = stay
        self._store = ThreadStore(store)
        self._random = random.Random(seed)
        self.changes: set[tuple[str, ...]] = set()

    def run(self) -> None:
        with closing(self._store):
            for _ in range(_CHANGES):
                with suppress(StoreError):  # The other one has removed it, or made it.
                    self._change()

    def _change(self) -> None:
        store, pick = self._store, self._random
        thread, run = pick.choice([*self._stay, "comes", "goes"]), f"run {pick.randrange(3)}"
        match pick.randrange(9):
            case 0 | 1 if thread not in self._stay:
                self.changes.add((thread,))
                store.create_thread(Thread(id=thread, created_at=1))
            case 2 if thread not in self._stay:
                self.changes.add((thread,))
                store.delete_thread(thread, force=True)
            case 3 | 4:
                self.changes.add((thread, "messages.jsonl"))
                store.append_message(thread, message(f"{pick.random()}"))
            case 5:
                self.changes.add((thread, "meta.json"))
                store.patch_document(DocumentKey(thread), {"metadata": {"title": f"{pick.random()}"}})
            case 6:
                self.changes.add((thread, "runs", run))
                store.create_run(thread, Run(id=run, created_at=1))
            case 7:
                self.changes.add((thread, "runs", run))
                store.append_step(thread, run, RunStep(id=f"step {pick.random()}"))
            case 8:
                self.changes.add((thread, "runs", run))
                store.delete_run(thread, run, force=True)
            case _:
                self.changes.add((thread, "runs", run))
                store.force_update_run_status(thread, run, pick.choice([*RunStatus]))


def concerns(path: str, thread: str, below: tuple[str, ...]) -> bool:
    """Whether a change of what is *below* a thread may be told at the path."""
    top, *parts = path.split("/")
    if top == "threads":
        return all(one == two for one, two in zip(parts, [thread, *below], strict=False))
    if top == "runs" and len(parts) == 1:  # The directory of a status, which comes and goes with its runs.
        return below != ("messages.jsonl",) and below != ("meta.json",)
    if top == "runs":
        run, _, of_thread = parts[1].partition("@")
        return of_thread == thread and below in ((), ("runs", run))
    return parts == [f"{thread}.md"]


@pytest.fixture
def own_mount(tmp_path: Path) -> Iterator[Mount]:
    with checked_mount(tmp_path) as mounted:
        yield mounted


@pytest.mark.parametrize("seed", seeds(3))
def test_who_looks_where_it_is_told_knows_all_that_two_others_change_and_hears_of_nothing_else(
    own_mount: Mount, seed: int
) -> None:
    stay = sorted(os.listdir(own_mount.store))[:2]  # The other threads are left alone.
    with closing(Mirror(own_mount.root)) as mirror:
        writers = [Writer(own_mount.store, stay, f"{seed} {number}") for number in range(2)]
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            writers[0].join(0.01)
            mirror.look()
        wait_until(lambda: mirror.look() == walked(own_mount.root))
        changes = writers[0].changes | writers[1].changes
        others = [
            path
            for path in mirror.told
            if not any(concerns(path, thread, tuple(below)) for thread, *below in changes)
        ]
        assert others == []
    # Much is told together; how much depends on what else the machine does.
    assert len(mirror.told) > _CHANGES / 10
