"""Two mounts of one store, and a program beside them that writes as the reference does."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from store import RunStatus, StoreError, Thread, ThreadStore
from tests.attacks.conftest import Effort, attacked
from tests.attacks.writers import Writer, writers
from tests.mount.conftest import Mount

SHARED = "shared"
# How soon what other programs did is to be seen.
FRESH_WITHIN_S = 1.0


class Reference:
    """Appends messages with one plain write each, and replaces documents by rename, without any lock."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._thread = store / SHARED
        self.said: list[str] = []
        self._is_over = threading.Event()
        self._at_work = threading.Thread(target=self._work)
        self._at_work.start()

    def _work(self) -> None:
        chance = random.Random()
        while not self._is_over.wait(chance.uniform(0, 0.01)):
            text = f"reference {len(self.said)}"
            message = {
                "id": f"msg_{len(self.said)}",
                "object": "thread.message",
                "created_at": int(time.time()),
                "thread_id": SHARED,
                "role": "assistant",
                "content": [{"type": "text", "text": {"value": text, "annotations": []}}],
                "metadata": {},
            }
            with (self._thread / "messages.jsonl").open("ab", buffering=0) as log:
                log.write(json.dumps(message).encode() + b"\n")
            self.said.append(text)

    def end(self) -> None:
        self._is_over.set()
        self._at_work.join()


class Claimants(threading.Thread):
    """Claims and completes runs on one mount, and notes what it won."""

    def __init__(self, mount: Mount) -> None:
        super().__init__()
        self._mount = mount
        self.won: list[str] = []
        self.is_over = threading.Event()
        self.start()

    def run(self) -> None:
        queued, claimed = self._mount.path("runs", "queued"), self._mount.path("runs", "in_progress")
        while not self.is_over.is_set():
            for link in queued.iterdir():
                try:
                    (queued / link.name).rename(claimed / link.name)
                except FileNotFoundError:
                    continue  # The other one was faster.
                self.won.append(link.name)
            self.is_over.wait(0.01)

    def end(self) -> None:
        self.is_over.set()
        self.join()


def shown(mount: Mount) -> Iterator[tuple[str, bytes]]:
    for thread in sorted(mount.path("threads").iterdir()):
        yield thread.name, (thread / "meta.json").read_bytes()
        yield f"{thread.name} log", (thread / "messages.jsonl").read_bytes()
        for run in sorted((thread / "runs").iterdir()):
            yield f"{thread.name} {run.name}", (run / "status").read_bytes()
            yield f"{thread.name} {run.name} steps", str(sorted(os.listdir(run / "steps"))).encode()
    for status in sorted(mount.path("runs").iterdir()):
        yield status.name, str(sorted(os.listdir(status))).encode()


def test_nothing_is_lost_between_two_mounts_and_another_program_and_all_see_the_same(
    tmp_path: Path, effort: Effort
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    store = tmp_path / "store"
    with attacked(tmp_path / "one", store=store) as one, attacked(tmp_path / "two", store=store) as two:
        ThreadStore(store).create_thread(Thread(id=SHARED))
        working: list[Writer] = []
        helpers: list[Reference | Claimants] = []
        try:
            working = [*writers(one.root, 2), *writers(two.root, 2, first=2)]
            reference, claimants = Reference(store), [Claimants(one), Claimants(two)]
            helpers = [reference, *claimants]
            for number in range(effort(100, 3000)):
                said = f"mount {number}"
                ((one, two)[number % 2].path("threads", SHARED, "say")).write_text(said)
                time.sleep(0.1 - (time.time() % 0.1))
        finally:
            for helper in helpers:
                helper.end()
            for writer in working:
                writer.pause()
                writer.end()
        time.sleep(FRESH_WITHIN_S)
        assert dict(shown(one)) == dict(shown(two))
        said_there = [message.text for message in ThreadStore(store).list_messages(SHARED)]
        assert sorted(said_there) == sorted(
            [*reference.said, *(f"mount {number}" for number in range(effort(100, 3000)))]
        )
        for writer in working:
            assert not writer.why
            writer.judge(store)
        won = [name for claimant in claimants for name in claimant.won]
        assert len(won) == len(set(won)) > 0
        check_claims(ThreadStore(store), won)


def check_claims(store: ThreadStore, won: list[str]) -> None:
    """Each run that was claimed is in progress: it had one winner."""
    for name in won:
        run_id, thread_id = name.split("@")
        try:
            assert store.get_run(thread_id, run_id).status is RunStatus.in_progress
        except StoreError as error:
            raise AssertionError(f"{name} was claimed and is lost") from error
