"""Two other programs change a store at random: each path that changed is told to who watches, no other is."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from store import DocumentKey, Run, RunStatus, RunStep, Store, Thread, ThreadStore
from tests.conftest import seeds
from tests.mount.conftest import Mount, checked_mount, wait_until
from tests.mount.scripts import succeeds
from tests.mount.watcher import Watcher
from tests.store.conftest import message

_STEPS = 60


@pytest.fixture
def own_mount(tmp_path: Path) -> Iterator[Mount]:
    with checked_mount(tmp_path) as mounted:
        yield mounted


class Writers:
    """Makes a random change, and knows at which paths who watches has to hear of it."""

    def __init__(self, stores: list[Store], seed: int) -> None:
        self._stores = stores
        self._random = random.Random(seed)
        self._numbers = iter(range(10_000))
        # The status of each run, by thread.
        self.threads: dict[str, dict[str, RunStatus]] = {}

    def change(self) -> list[tuple[str, str]]:
        store = self._random.choice(self._stores)
        number = next(self._numbers)
        actions = [
            self._thread,
            self._message,
            self._message,
            self._run,
            self._status,
            self._status,
            self._step,
        ]
        actions += [self._title, self._remove_run, self._remove_thread]
        action = self._random.choice(actions) if len(self.threads) > 2 else self._thread
        return action(store, f"{number}")

    def _any(self) -> str:
        return self._random.choice(list(self.threads))

    def _any_run(self) -> tuple[str, str, RunStatus] | None:
        found = [
            (thread, run, status) for thread, runs in self.threads.items() for run, status in runs.items()
        ]
        return self._random.choice(found) if found else None

    def _thread(self, store: Store, name: str) -> list[tuple[str, str]]:
        store.create_thread(Thread(id=name))
        self.threads[name] = {}
        return [
            ("CREATE", path) for path in (f"threads/{name}", f"transcripts/{name}.md", f"answers/{name}.md")
        ]

    def _message(self, store: Store, name: str) -> list[tuple[str, str]]:
        thread = self._any()
        store.append_message(thread, message(name))
        paths = f"threads/{thread}/messages.jsonl", f"transcripts/{thread}.md"
        return [("CLOSE_WRITE", path) for path in paths]

    def _title(self, store: Store, name: str) -> list[tuple[str, str]]:
        thread = self._any()
        store.patch_document(DocumentKey(thread), {"metadata": {"title": name}})
        return [("CLOSE_WRITE", f"threads/{thread}/meta.json")]

    def _run(self, store: Store, name: str) -> list[tuple[str, str]]:
        thread = self._any()
        store.create_run(thread, Run(id=name))
        self.threads[thread][name] = RunStatus.queued
        return [("CREATE", f"runs/queued/{name}@{thread}")]

    def _status(self, store: Store, name: str) -> list[tuple[str, str]]:
        if (found := self._any_run()) is None:
            return []
        thread, run, before = found
        after = self._random.choice(
            [
                status
                for status in (RunStatus.queued, RunStatus.in_progress, RunStatus.failed)
                if status is not before
            ]
        )
        store.force_update_run_status(thread, run, after)
        self.threads[thread][run] = after
        return [("MOVED_FROM", f"runs/{before}/{run}@{thread}"), ("MOVED_TO", f"runs/{after}/{run}@{thread}")]

    def _step(self, store: Store, name: str) -> list[tuple[str, str]]:
        if (found := self._any_run()) is None:
            return []
        store.append_step(*found[:2], RunStep(id=name))
        return [("ATTRIB", f"threads/{found[0]}")]

    def _remove_run(self, store: Store, name: str) -> list[tuple[str, str]]:
        if (found := self._any_run()) is None:
            return []
        thread, run, status = found
        store.delete_run(thread, run, force=True)
        del self.threads[thread][run]
        return [("DELETE", f"runs/{status}/{run}@{thread}")]

    def _remove_thread(self, store: Store, name: str) -> list[tuple[str, str]]:
        thread = self._any()
        store.delete_thread(thread, force=True)
        links = [f"runs/{status}/{run}@{thread}" for run, status in self.threads.pop(thread).items()]
        return [("DELETE", path) for path in (f"threads/{thread}", f"transcripts/{thread}.md", *links)]


@pytest.mark.parametrize("seed", seeds(5))
def test_each_change_of_two_other_programs_is_told_once_and_nothing_else_is(
    own_mount: Mount, seed: int
) -> None:
    with (
        closing(ThreadStore(own_mount.store)) as one,
        closing(ThreadStore(own_mount.store)) as two,
        closing(Watcher(own_mount.root)) as watcher,
    ):
        writers = Writers([one, two], seed)
        watcher.watch(
            "threads", "transcripts", "answers", *(f"runs/{s}" for s in ("queued", "in_progress", "failed"))
        )
        for _ in range(_STEPS):
            begin = len(watcher.look())
            expected = writers.change()
            wait_until(
                lambda begin=begin, expected=expected: {*expected} <= {*watcher.look()[begin:]}  # type: ignore[misc]
            )
            for _, path in expected:  # As a program that watches all of it does, of what it has heard.
                if path.startswith("threads/") and path.count("/") == 1:
                    with suppress(OSError):
                        watcher.watch(path)
        names = [seen for seen in watcher.look() if seen[0] in ("CREATE", "DELETE") and "threads/" in seen[1]]
        assert len(set(names)) == len(names)
        told = {path.split("/")[1] for _, path in names}
        assert told == {str(number) for number in range(_STEPS)} & told
        for name in writers.threads:
            assert ("CREATE", f"threads/{name}") in names
            assert ("DELETE", f"threads/{name}") not in names


# Makes, changes and removes a few threads again and again, with the same ids, as fast as it can.
_RESTLESS = """
import random, sys
from contextlib import suppress
from store import Run, RunStatus, StoreError, Thread, ThreadStore
store, number = ThreadStore(sys.argv[1]), random.Random(1)
while True:
    thread, run = f"restless {number.randrange(4)}", f"run {number.randrange(3)}"
    with suppress(StoreError):
        number.choice([
            lambda: store.create_thread(Thread(id=thread)),
            lambda: store.create_run(thread, Run(id=run)),
            lambda: store.force_update_run_status(thread, run, number.choice([*RunStatus])),
            lambda: store.delete_run(thread, run, force=True),
            lambda: store.delete_thread(thread, force=True),
        ])()
"""
# What a user does in a thread that has just come from elsewhere. /bin/pwd asks the kernel.
_WORKS = """
is_here() { [ "$(/bin/pwd)" = "$1" ] || echo "lost $1: $(/bin/pwd)" >&2; }
cd "threads/$T" && here=$PWD
for n in 1 2 3; do
    is_here "$here"
    (cd runs/R && is_here "$here/runs/R" && cat status > /dev/null)
    mkdir "runs/$n" && (cd "runs/$n" && is_here "$here/runs/$n")
    { /bin/echo one; cat meta.json > /dev/null; /bin/echo two; } > say
done
is_here "$here"
wc -l < messages.jsonl
"""


def test_who_works_in_a_thread_keeps_it_while_others_come_and_go_and_the_machine_is_busy(
    own_mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = [
        [sys.executable, "-c", _RESTLESS, str(own_mount.store)],
        *[["sh", "-c", "while :; do :; done"]] * 2,
    ]
    with closing(ThreadStore(own_mount.store)) as other, closing(Watcher(own_mount.root)) as watcher:
        watcher.watch("threads", "runs/queued")
        processes = [subprocess.Popen(command) for command in busy]
        try:
            monkeypatch.setenv("T", "work")
            for _ in range(2):
                other.create_thread(Thread(id="work"))
                other.create_run("work", Run(id="R"))
                wait_until(own_mount.path("threads", "work", "runs", "R").is_dir)
                assert succeeds(_WORKS, own_mount.root).strip() == "3"
                other.delete_thread("work", force=True)
        finally:
            for process in processes:
                process.kill()
                process.wait()
