"""Random programs on a real mount and on the plain model of the contract that nodes are tested by.

To the model's rules come those that need a kernel and processes: several descriptors at once, offsets,
flags, programs side by side, programs that are killed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from functools import partial
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from store import DocumentKey, RunStatus, ThreadStore
from tests.attacks.conftest import Effort
from tests.attacks.programs import at_once, killed_after
from tests.mount.conftest import Mount
from tests.mount.test_tree_model import SystemCalls
from tests.nodes.driving import Programs, outcome
from tests.nodes.tree_machine import PIECES, RUNS, TEXTS, THREADS, TreeMachine, line

OFFSETS = st.integers(0, 5000)


class MountMachine(TreeMachine):
    """*steps* counts the rules of all machines."""

    mount: ClassVar[Mount]
    steps: ClassVar[int] = 0

    def begin(self) -> Programs:
        self.system = SystemCalls(self.mount)
        self.opened_store = ThreadStore(self.mount.store)
        self.readers: list[tuple[int, bytes]] = []
        return self.system

    def at(self, path: str) -> str:
        return str(self.mount.path(path))

    def teardown(self) -> None:
        for reader, _ in self.readers:
            os.close(reader)
        for thread_id in self.system.names("threads"):
            for run in self.mount.path("threads", thread_id, "runs").iterdir():
                (run / "cancel").write_text("force")
            shutil.rmtree(self.mount.path("threads", thread_id))
        for draft in self.mount.path("drafts").iterdir():
            shutil.rmtree(draft)

    # ── Several descriptors ─────────────────────────────────────────────────────────────────────────

    @rule(thread=THREADS, run=RUNS)
    def begin_to_read(self, thread: str, run: str) -> None:
        if self.run(thread, run) is not None and len(self.readers) < 20:
            path = f"threads/{thread}/runs/{run}/status"
            whole = self.system.read(path)
            reader = os.open(self.at(path), os.O_RDONLY)
            assert os.read(reader, 10) == whole[:10]
            self.readers.append((reader, whole))

    @rule()
    def read_on(self) -> None:
        """A reader gets the version that it opened, whatever has happened since."""
        if self.readers:
            reader, whole = self.readers.pop(0)
            try:
                assert os.read(reader, 1 << 20) == whole[10:]
            finally:
                os.close(reader)

    @rule(thread=THREADS, texts=st.lists(TEXTS, min_size=2, max_size=6))
    def append_through_two_descriptors(self, thread: str, texts: list[str]) -> None:
        if (found := self.threads.get(thread)) is None:
            return
        path = self.at(f"threads/{thread}/messages.jsonl")
        files = [os.open(path, os.O_WRONLY | os.O_APPEND) for _ in range(2)]
        for number, text in enumerate(texts):
            os.write(files[number % 2], line(text))
        for file in files:
            os.close(file)
        found.texts += texts

    @rule(thread=THREADS, status=st.sampled_from(["in_progress", "queued"]))
    def write_and_read_back_through_one_descriptor(self, thread: str, status: str) -> None:
        found = self.run(thread, "r")
        if found is None or found.status.is_terminal:
            return
        file = os.open(self.at(f"threads/{thread}/runs/r/status"), os.O_RDWR)
        try:
            document = json.loads(os.pread(file, 1 << 16, 0)) | {
                "status": status,
                "metadata": {"n": "x" * 99},
            }
            data = json.dumps(document).encode()
            os.ftruncate(file, 0)
            os.pwrite(file, data, 0)
            assert os.pread(file, 1 << 16, 0) == data
            os.fsync(file)
        finally:
            os.close(file)
        found.status = RunStatus(status)

    # ── Offsets and flags ───────────────────────────────────────────────────────────────────────────

    @rule(thread=THREADS, start=OFFSETS, size=st.integers(1, 300))
    def write_a_piece_of_the_log_again(self, thread: str, start: int, size: int) -> None:
        path = f"threads/{thread}/messages.jsonl"
        log = self.system.read(path) if thread in self.threads else b""
        piece = log[start : start + size]
        if not start or not piece:
            return
        file = os.open(self.at(path), os.O_WRONLY)
        try:
            assert os.pwrite(file, piece, start) == len(piece)
            changed = bytes([piece[0] ^ 1]) + piece[1:]
            assert outcome(lambda: os.pwrite(file, changed, start)) == "EPERM"
            assert outcome(lambda: os.ftruncate(file, start)) == "EPERM"
        finally:
            os.close(file)

    @rule(thread=THREADS, name=st.sampled_from(["meta.json", "messages.jsonl", "say", "runs/r/status"]))
    def create_what_is_there(self, thread: str, name: str) -> None:
        path = f"threads/{thread}/{name}"
        if os.path.lexists(self.at(path)):
            assert outcome(lambda: os.open(self.at(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL)) == "EEXIST"

    @rule(thread=THREADS, data=st.binary(max_size=2000), start=OFFSETS, cut=OFFSETS)
    def keep_a_scratch_file(self, thread: str, data: bytes, start: int, cut: int) -> None:
        if thread not in self.threads:
            return
        path = self.at(f"threads/{thread}/.scratch.swp")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        os.unlink(path) if cut % 2 else None
        try:
            os.pwrite(file, data, start)
            os.ftruncate(file, cut)
            expected = (bytes(start) + data if data else b"")[:cut].ljust(cut, b"\0")
            assert os.pread(file, 1 << 20, 0) == expected
        finally:
            os.close(file)
            if not cut % 2:
                os.unlink(path)

    # ── Processes ───────────────────────────────────────────────────────────────────────────────────

    @rule(thread=THREADS, texts=st.lists(st.text("abc", min_size=1, max_size=9), min_size=2, max_size=4))
    def say_at_once(self, thread: str, texts: list[str]) -> None:
        if (found := self.threads.get(thread)) is None:
            return
        path = f"threads/{thread}/say"
        at_once([partial(self.system.write, path, text.encode()) for text in texts])
        stored = [message.text for message in self.opened_store.list_messages(thread)]
        assert stored[: len(found.texts)] == found.texts
        assert sorted(stored[len(found.texts) :]) == sorted(texts)
        found.texts = stored

    @rule(thread=THREADS)
    def claim_at_once(self, thread: str) -> None:
        found = self.run(thread, "r")
        if found is None or found.status is not RunStatus.queued:
            return

        def claim() -> None:
            try:
                self.system.rename(f"runs/queued/r@{thread}", f"runs/in_progress/r@{thread}")
            except FileNotFoundError:
                return  # Somebody else has it.
            self.system.write(f"threads/{thread}/say", b"mine")

        at_once([claim] * 3)
        found.status = RunStatus.in_progress
        self.threads[thread].texts.append("mine")

    @rule(thread=THREADS, texts=st.lists(TEXTS, max_size=2), rest=st.integers(0, 20))
    def append_and_be_killed(self, thread: str, texts: list[str], rest: int) -> None:
        if (found := self.threads.get(thread)) is None:
            return
        data = b"".join(map(line, texts)) + line("never whole")[:rest]

        def append() -> None:
            file = os.open(self.at(f"threads/{thread}/messages.jsonl"), os.O_WRONLY | os.O_APPEND)
            os.write(file, data)

        killed_after(append)
        found.texts += texts

    @rule(thread=THREADS, run=RUNS, size=st.integers(1, 60))
    def replace_a_run_and_be_killed_halfway(self, thread: str, run: str, size: int) -> None:
        if self.run(thread, run) is None:
            return
        path = f"threads/{thread}/runs/{run}/status"
        half = self.system.read(path)[:size]

        def begin() -> None:
            file = os.open(self.at(path), os.O_WRONLY | os.O_TRUNC)
            os.write(file, half)

        killed_after(begin)

    @rule(thread=THREADS, pieces=PIECES)
    def say_half_and_be_killed(self, thread: str, pieces: int) -> None:
        if (found := self.threads.get(thread)) is None:
            return

        def say() -> None:
            file = os.open(self.at(f"threads/{thread}/say"), os.O_WRONLY)
            for _ in range(pieces):
                os.write(file, b"half ")

        killed_after(say)
        found.texts.append("half " * pieces)

    @rule(thread=THREADS)
    def do_what_is_never_allowed(self, thread: str) -> None:
        for call, expected in (
            (lambda: os.rename(self.at("threads"), self.at("drafts/x")), errno.EACCES),
            (lambda: os.rmdir(self.at("runs")), errno.EACCES),
            (lambda: os.unlink(self.at("README.md")), errno.EACCES),
            (lambda: os.mkfifo(self.at(f"threads/{thread}/fifo")), errno.EACCES),
            (lambda: os.link(self.at("README.md"), self.at("drafts/l")), errno.EPERM),
        ):
            assert outcome(call) in (errno.errorcode[expected], "ENOENT", "EPERM")

    # ── The store ───────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def the_store_holds_what_is_shown(self) -> None:
        MountMachine.steps += 1
        store = self.opened_store
        assert sorted(store.list_thread_ids()) == sorted(self.threads)
        for thread, found in self.threads.items():
            assert [message.text for message in store.list_messages(thread)] == found.texts
            assert {run: store.get_run(thread, run).status for run in store.list_run_ids(thread)} == {
                run_id: run.status for run_id, run in found.runs.items()
            }
            for run_id in found.runs:
                shown = self.system.read(f"threads/{thread}/runs/{run_id}/status")
                assert shown == store.read_document(DocumentKey(thread, run_id))[0]


@pytest.mark.timeout(900)  # Enough to shrink what fails.
def test_random_programs_find_a_mount_and_its_store_as_the_contract_says(
    mount: Mount, effort: Effort, capsys: pytest.CaptureFixture[str]
) -> None:
    end_s = time.monotonic() + effort(20, 3600)
    chosen = settings(
        max_examples=5,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    MountMachine.mount = mount
    while time.monotonic() < end_s:
        run_state_machine_as_test(MountMachine, settings=chosen)
    with capsys.disabled():
        print(f" {MountMachine.steps} steps, ", end="")
