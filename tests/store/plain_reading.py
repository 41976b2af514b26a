"""A plain reading of a store on the disk, to compare a catalogue with, and random changes to it."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from store import DocumentKey, Run, RunStatus, RunStep, StoreError, Thread, ThreadMessage, ThreadStore
from store.catalogue.matching import matches
from store.catalogue.names import name_of
from store.catalogue.queries import parsed
from store.catalogue.values import Kind
from store.errors import Damaged
from store.models import ContentBlock, MessageRole
from tests.store.catalogue.conftest import NOW_S

QUERIES = ("bee", "honey", '"bee honey"', "b*", "role:user bee", "bee -honey", "title:bee")
WORDS = ("bee", "honey", "wasp", "蜂", "café")


class Plain:
    """A store, and what a plain reading of it says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = ThreadStore(root)

    def say(self, thread_id: str, text: str, role: MessageRole = MessageRole.user) -> None:
        message = ThreadMessage(role=role, content=[ContentBlock.of_text(text)], created_at=NOW_S)
        self.store.append_message(thread_id, message)

    def plain_threads(self) -> list[tuple[str, str]]:
        """What each is called, and its id."""
        plain = []
        for thread_id in self.store.list_thread_ids():
            title = self.store.get_thread(thread_id).metadata.get("title", "")
            messages = list(self.store.iter_messages(thread_id))
            first = next((one.text for one in messages if one.role is MessageRole.user), "")
            plain.append((name_of(thread_id, title, first), thread_id))
        return plain

    def plain_runs(self) -> set[tuple[str, str, str]]:
        """The ids of the thread and of the run, and the status."""
        runs = set()
        for thread_id in self.store.list_thread_ids():
            for run_id in self.store.list_run_ids(thread_id):
                with suppress(Damaged):
                    runs.add((thread_id, run_id, self.store.get_run(thread_id, run_id).status.value))
        return runs

    def plain_hits(self, text: str) -> list[tuple[str, int]]:
        query, found = parsed(text, NOW_S), []
        for thread_id in self.store.list_thread_ids():
            thread = self.store.get_thread(thread_id)
            title = thread.metadata.get("title", "")
            document = self.store.read_document(DocumentKey(thread_id))[0].decode().split("\n")
            line = next((n for n, one in enumerate(document, 1) if '"title"' in one), 1)
            if not query.is_about_messages:
                if "bee" in title.split():
                    found.append((thread_id, line))
                continue
            if title and matches(query, Kind.TITLE, thread.created_at, title):
                found.append((thread_id, line))
            for number, stored in enumerate(self.lines(thread_id), 1):
                with suppress(ValueError, KeyError):  # No message.
                    fields = json.loads(stored)
                    said = "\n".join(block["text"]["value"] for block in fields["content"])
                    if matches(query, Kind[fields["role"].upper()], fields["created_at"], said):
                        found.append((thread_id, number))
        return sorted(found)

    def lines(self, thread_id: str) -> list[bytes]:
        with suppress(FileNotFoundError):
            return (self.root / thread_id / "messages.jsonl").read_bytes().split(b"\n")[:-1]
        return []


def thread(plain: Plain, thread_id: str = "thread_1", **metadata: Any) -> str:
    return plain.store.create_thread(Thread(id=thread_id, metadata=metadata, created_at=NOW_S)).id


class Changes:
    """Random changes, by the store and by programs that take no lock and set times back."""

    def __init__(self, plain: Plain, seed: int) -> None:
        self.plain, self.store, self.root = plain, plain.store, plain.root
        self.random = random.Random(seed)
        self.count = 0

    def one(self) -> None:
        self.count += 1
        threads = self.store.list_thread_ids()
        if len(threads) < 2:
            return self.new_thread("")
        change: Callable[[str], object] = self.random.choice(
            [
                *(self.new_thread, self.say, self.say, self.retitle, self.delete, self.new_run, self.end_run),
                *(self.new_step, self.delete_run, self.edit_in_place, self.replace_log, self.foreign_append),
                *(self.touch, self.log_goes, self.foreign_run, self.torn_line, self.recreate),
            ]
        )
        # The store refuses to change what is damaged or foreign; another process may have removed the thread.
        with suppress(StoreError, FileNotFoundError):
            change(self.random.choice(threads))
        return None

    def text(self) -> str:
        return " ".join(self.random.choices(WORDS, k=self.random.randrange(1, 5)))

    def new_thread(self, _: str) -> None:
        title = self.random.choice([{}, {"title": self.text()}, {"x": 1, "title": self.text(), "y": 2}])
        self.store.create_thread(Thread(id=f"thread_{self.count}", metadata=title, created_at=NOW_S))

    def say(self, thread_id: str) -> None:
        self.plain.say(thread_id, self.text(), self.random.choice([*MessageRole]))

    def retitle(self, thread_id: str) -> None:
        self.store.patch_document(DocumentKey(thread_id), {"metadata": {"title": self.text()}})

    def delete(self, thread_id: str) -> None:
        self.store.delete_thread(thread_id, force=True)

    def recreate(self, thread_id: str) -> None:
        self.delete(thread_id)
        thread(self.plain, thread_id)
        self.say(thread_id)

    def new_run(self, thread_id: str) -> None:
        self.store.create_run(thread_id, Run(id=f"run_{self.count}", model="m"))

    def run_of(self, thread_id: str) -> str | None:
        return next(iter(self.store.list_run_ids(thread_id)), None)

    def end_run(self, thread_id: str) -> None:
        if run_id := self.run_of(thread_id):
            status = self.random.choice([RunStatus.completed, RunStatus.failed])
            self.store.force_update_run_status(thread_id, run_id, status)

    def new_step(self, thread_id: str) -> None:
        if run_id := self.run_of(thread_id):
            self.store.append_step(thread_id, run_id, RunStep(id=f"step_{self.count}"))

    def delete_run(self, thread_id: str) -> None:
        if run_id := self.run_of(thread_id):
            self.store.delete_run(thread_id, run_id, force=True)

    def log(self, thread_id: str) -> Path:
        return self.root / thread_id / "messages.jsonl"

    def edit_in_place(self, thread_id: str) -> None:
        """The same size, and the mtime that it had."""
        log = self.log(thread_id)
        if log.exists():
            times = log.stat().st_atime_ns, log.stat().st_mtime_ns
            data = log.read_bytes().replace(b"honey", b"wasps", 1).replace(b"bee", b"ant", 1)
            with log.open("r+b") as written:
                written.write(data)
            os.utime(log, ns=times)

    def replace_log(self, thread_id: str) -> None:
        log = self.log(thread_id)
        if log.exists():
            lines = log.read_bytes().splitlines(keepends=True)
            self.random.shuffle(lines)
            new = log.parent / f".new{os.getpid()}"
            new.write_bytes(b"".join(lines[: self.random.randrange(len(lines) + 1)]))
            os.rename(new, log)

    def foreign_append(self, thread_id: str) -> None:
        with self.log(thread_id).open("ab") as log:
            log.write(self.random.choice([b"\n", b"{}\n", b"no JSON bee\n"]))

    def torn_line(self, thread_id: str) -> None:
        with self.log(thread_id).open("ab") as log:
            log.write(b'{"bee": ')

    def touch(self, thread_id: str) -> None:
        for path in (self.root / thread_id).rglob("*.json*"):
            os.utime(path, ns=(1, self.random.randrange(10**18)))

    def log_goes(self, thread_id: str) -> None:
        self.log(thread_id).unlink(missing_ok=True)

    def foreign_run(self, thread_id: str) -> None:
        """A directory that becomes a run later, or is damaged."""
        directory = self.root / thread_id / "runs" / f"foreign_{self.random.randrange(2)}"
        directory.mkdir(parents=True, exist_ok=True)
        if self.random.random() < 0.7:
            made = {"id": directory.name, "created_at": 1, "status": "queued", "model": "m"}
            (directory / "status.json").write_text(self.random.choice(["{", json.dumps(made)]))
