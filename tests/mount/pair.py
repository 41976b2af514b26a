"""A mount and its store, changed at random through both, and compared after each change."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from store import (
    DocumentKey,
    MessageRole,
    NotFound,
    Run,
    RunStep,
    RunStepType,
    StoreError,
    Thread,
    ThreadMessage,
    ThreadStore,
)
from store.catalogue.names import name_of, told_apart
from store.models import ContentBlock
from tests.mount.conftest import Mount, wait_until

FRESH_WITHIN_S = 1.0
# Queries, and how a message begins that they find.
SEARCHES = {"search/here*": "here", "search/elsewhere*": "elsewhere"}


def message(text: str) -> ThreadMessage:
    return ThreadMessage(role=MessageRole.user, content=[ContentBlock.of_text(text)])


def called(said: Mapping[str, tuple[str, list[str]]]) -> set[str]:
    """What threads are called, by the title and the texts of each."""
    names = ((name_of(one, title, next(iter(texts), "")), one) for one, (title, texts) in said.items())
    return {name for name, _ in told_apart(names)}


class Pair:
    """A mount and its store, changed at random through both."""

    def __init__(self, mount: Mount, behind: Path, seed: int, reading: ExitStack) -> None:
        self.mount = mount
        self.behind = behind
        self.reading = reading
        self.random = random.Random(seed)
        self.other = ThreadStore(behind)
        self.statuses = os.listdir(mount.path("runs"))
        self.names = [f"thread {number}" for number in range(4)]
        # Documents that somebody reads, and what they held when they were opened.
        self.read: list[tuple[BinaryIO, bytes]] = []

    def text(self) -> str:
        return "x" * self.random.randrange(99)

    def thread(self) -> str:
        return self.random.choice(self.names)

    def read_on(self) -> None:
        """Those who read an old version look at what they have open; some leave, and some come."""
        self.ask_about_read()
        if self.read and self.random.random() < 0.5:
            file, held = self.read.pop(self.random.randrange(len(self.read)))
            with file:
                assert file.read() == held[10:]
        for path in self.mount.path("threads").rglob("*"):
            if (path.name == "status" or path.suffix == ".json") and self.random.random() < 0.1:
                with suppress(FileNotFoundError):
                    self.read.append((self.reading.enter_context(path.open("rb")), path.read_bytes()))
                    assert self.read[-1][0].read(10) == self.read[-1][1][:10]

    def ask_about_read(self) -> None:
        for file, held in self.read:
            assert os.fstat(file.fileno()).st_size == len(held)

    def change_here(self) -> None:
        place = self.mount.path("threads", self.thread())
        run = place / "runs" / f"r{self.random.randrange(3)}"
        action = self.random.choice(["mkdir", "rm", "say", "run", "meta", "status", "cancel", "step"])
        try:
            if action == "mkdir":
                place.mkdir()
            elif action == "rm":
                shutil.rmtree(place)
            elif action == "say":
                (place / "say").write_text("here" * self.random.randrange(200))
            elif action == "run":
                run.mkdir()
            elif action == "meta":
                (place / "meta.json").write_text(
                    '{"metadata": {"n": "%s"}}' % ("x" * self.random.randrange(99))
                )
            elif action == "status":
                (run / "status").write_text(json.dumps({"note": self.text()}))
            elif action == "cancel":
                (run / "cancel").write_text("1")
            else:
                (run / "steps" / "s.json").write_text('{"step_type": "tool_calls"}')
        except OSError:
            pass  # Not there, or there already: what it looks like afterwards is what matters.

    def change_elsewhere(self) -> None:
        thread_id, run_id = self.thread(), f"r{self.random.randrange(3)}"
        action = self.random.choice(
            ["create", "delete", "append", "run", "meta", "status", "drop", "step", "replace"]
        )
        store = self.other
        try:
            if action == "create":
                store.create_thread(Thread(id=thread_id))
            elif action == "delete":
                store.delete_thread(thread_id, force=True)
            elif action == "append":
                store.append_message(thread_id, message("elsewhere" * self.random.randrange(99)))
            elif action == "run":
                store.create_run(thread_id, Run(id=run_id))
            elif action == "meta":
                store.patch_document(DocumentKey(thread_id), {"m": self.text()})
            elif action == "status":
                store.patch_document(DocumentKey(thread_id, run_id), {"m": self.text()})
            elif action == "drop":
                store.delete_run(thread_id, run_id, force=True)
            elif action == "replace":
                run = self.behind / thread_id / "runs" / run_id
                self.replace(self.random.choice([run / "steps", run, run.parent, run.parent.parent]))
            else:
                store.append_step(thread_id, run_id, RunStep(id="s", step_type=RunStepType.tool_calls))
        except (StoreError, FileNotFoundError):
            pass

    def replace(self, directory: Path) -> None:
        """Another directory with the same names, and other documents."""
        copy = self.behind.parent / "copy"
        shutil.copytree(directory, copy)
        for document in copy.rglob("*.json"):
            document.write_text(json.dumps(json.loads(document.read_text()) | {"copied": self.text()}))
        aside = self.behind.parent / "aside"
        directory.rename(aside)
        copy.rename(directory)
        shutil.rmtree(aside)

    def file(self, path: Path) -> tuple[int, bytes]:
        return path.stat().st_size, path.read_bytes()

    def named(self) -> dict[str, object]:
        """What the mount shows under the names of the files in the store: nothing is listed."""
        tree: dict[str, object] = {}
        for name, known in self.stored().items():
            with suppress(FileNotFoundError):
                path = self.mount.path("threads", name)
                if isinstance(known, set):
                    tree[name] = self.list(name)
                else:
                    tree[name] = self.file(path) if isinstance(known, tuple) else path.stat().st_mtime_ns
        return tree

    def list(self, directory: str) -> set[str]:
        return set(os.listdir(self.mount.path(directory)))

    def shown(self) -> dict[str, object]:
        """All that the mount shows: contents, and sizes by stat; of threads their times."""
        tree: dict[str, object] = {}
        for thread in os.scandir(self.mount.path("threads")):
            with suppress(FileNotFoundError):
                tree[thread.name] = thread.stat().st_mtime_ns
        for directory, _, names in os.walk(self.mount.path("threads")):
            for name in names:
                path = Path(directory, name)
                with suppress(FileNotFoundError):
                    tree[str(path.relative_to(self.mount.path("threads")))] = self.file(path)
        controls = ("say", "ask", "start", "cancel")
        shown = {name: value for name, value in tree.items() if not name.endswith(controls)}
        lists = ("by-title", *SEARCHES, *(f"runs/{status}" for status in self.statuses))
        return {**shown, **{name: self.list(name) for name in lists}}

    @staticmethod
    def shows(look: Callable[[], dict[str, object]], stored: dict[str, object]) -> bool:
        return look() == stored

    def stored(self) -> dict[str, object]:
        tree: dict[str, bytes] = {}
        times: dict[str, int] = {}
        said: dict[str, tuple[str, list[str]]] = {}
        store = self.other
        for thread_id in store.list_thread_ids():
            try:
                tree[f"{thread_id}/meta.json"] = store.read_document(DocumentKey(thread_id))[0]
                log = store.open_log(thread_id)
                tree[f"{thread_id}/messages.jsonl"] = log.read(0, 1 << 20)
                log.close()
                for run_id in store.list_run_ids(thread_id):
                    place = f"{thread_id}/runs/{run_id}"
                    tree[f"{place}/status"] = store.read_document(DocumentKey(thread_id, run_id))[0]
                    for step_id in store.list_step_ids(thread_id, run_id):
                        key = DocumentKey(thread_id, run_id, step_id)
                        tree[f"{place}/steps/{step_id}.json"] = store.read_document(key)[0]
                title = json.loads(tree[f"{thread_id}/meta.json"])["metadata"].get("title", "")
                said[thread_id] = title, [message.text for message in store.list_messages(thread_id)]
                times[thread_id] = store.thread_modified_ns(thread_id)
            except NotFound:
                continue
        runs = {f"runs/{status}": set[str]() for status in self.statuses}
        for thread_id, run_id, status in store.runs_by_status():
            runs[f"runs/{status}"].add(f"{run_id}@{thread_id}")
        views = {"by-title": called(said)}
        for name, word in SEARCHES.items():
            found = {one for one, (_, texts) in said.items() if any(text.startswith(word) for text in texts)}
            views[name] = called({one: said[one] for one in found}) | {"hits.txt"}
        return {**{name: (len(data), data) for name, data in tree.items()}, **times, **runs, **views}


def compare_under_random_changes(
    mount: Mount, behind: Path, seed: int, rounds: int, *, leaving: Collection[str] | None = None
) -> None:
    """Fails when the mount does not show what the store holds, at first all or the threads *leaving*.

    After a change made here, it must at once; after one of another program, which makes its changes in
    *behind*, within a second. Meanwhile others go on reading what they have opened.
    """
    with ExitStack() as reading:
        pair = Pair(mount, behind, seed, reading)
        if leaving is not None:
            for thread_id in {*pair.other.list_thread_ids()}.difference(leaving):
                pair.other.delete_thread(thread_id, force=True)
            wait_until(partial(pair.shows, pair.shown, pair.stored()), FRESH_WITHIN_S)
        for _ in range(rounds):
            pair.shown()
            pair.read_on()
            if pair.random.random() < 0.5:
                pair.change_here()
                assert pair.shown() == pair.stored()
            else:
                pair.change_elsewhere()
                deadline = time.monotonic() + 0.05
                while time.monotonic() < deadline:
                    pair.ask_about_read()
                stored = pair.stored()
                wait_until(partial(pair.shows, pair.named, stored), FRESH_WITHIN_S)
                wait_until(partial(pair.shows, pair.shown, stored), FRESH_WITHIN_S)
