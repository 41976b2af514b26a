"""Whatever happens in a thread: what is read of a text only grows, and what is opened is rendered anew."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from store import RunStatus, StoreError, ThreadStore
from store.working import Answer
from tests.nodes.driving import Programs
from tests.nodes.working import Answering, WithoutSyncs, finish
from threadfs.nodes.base import Node, Reader
from threadfs.nodes.growing import ThreadText
from threadfs.nodes.root import root_of

DIRECTORIES = ("transcripts", "answers")
PIECES = st.sampled_from(["a", "ü\n", "#", "# x", "\n## ", "```\n", "\r", "\n", "> Run `", "\x1b"])
ENDS = st.sampled_from([RunStatus.completed, RunStatus.failed, RunStatus.incomplete, RunStatus.cancelled])


class Texts(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        store = Path(self.place.name) / "store"
        self.programs = Programs(root_of(ThreadStore(store, calls=WithoutSyncs())))
        self.programs.mkdir("threads/T")
        self.answering = Answering(store)
        self.answer: Answer | None = None
        self.known_runs: list[str] = []
        # What is open, the node that it was opened at, and what was read of it.
        self.open: list[tuple[Reader, Node, bytes]] = []

    def teardown(self) -> None:
        self.answering.close()
        self.place.cleanup()

    def runs(self) -> list[str]:
        """In the order in which they were made: their names are random."""
        names = self.programs.names("threads/T/runs")
        self.known_runs += sorted(set(names) - set(self.known_runs))
        return [name for name in self.known_runs if name in names]

    # ── What others do ──────────────────────────────────────────────────────────────────────────────

    @rule(text=PIECES)
    def say(self, text: str) -> None:
        self.programs.write("threads/T/say", f"said {text}".encode())

    @rule()
    def ask(self) -> None:
        self.programs.write("threads/T/ask", b"Why?")
        self.runs()

    @rule(created_at=st.integers(1, 3), has_run=st.booleans())
    def append_an_answer_of_long_ago(self, created_at: int, has_run: bool) -> None:
        line = {"role": "assistant", "content": "old", "created_at": created_at}
        if has_run and (runs := self.runs()):
            line["run_id"] = runs[0]
        self.programs.write("threads/T/messages.jsonl", json.dumps(line).encode() + b"\n", append=True)

    @precondition(lambda self: self.answer is None)
    @rule(pieces=st.lists(PIECES, max_size=2))
    def begin_an_answer(self, pieces: list[str]) -> None:
        self.ask()
        for run in self.runs():
            with suppress(StoreError):
                self.answer = self.answering.worker.claim("T", run)
                break
        for piece in pieces if self.answer is not None else ():
            self.grow(piece)

    @precondition(lambda self: self.answer is not None)
    @rule(piece=PIECES)
    def grow(self, piece: str) -> None:
        assert self.answer is not None
        self.answer.append(piece)

    @precondition(lambda self: self.answer is not None)
    @rule(status=ENDS)
    def end(self, status: RunStatus) -> None:
        assert self.answer is not None
        finish(self.answer, status)
        self.answer.close()
        self.answer = None

    @precondition(lambda self: self.answer is not None)
    @rule()
    def hand_back(self) -> None:
        assert self.answer is not None
        with suppress(StoreError):
            self.answer.hand_back()
        self.answer.close()
        self.answer = None

    @rule(at=st.integers(0, 3), word=st.sampled_from(["1", "force"]))
    def cancel(self, at: int, word: str) -> None:
        for run in self.runs()[at : at + 1]:
            with suppress(StoreError):
                self.programs.write(f"threads/T/runs/{run}/cancel", word.encode())

    @rule(at=st.integers(0, 3), ended_at=st.integers(1, 3))
    def end_long_ago(self, at: int, ended_at: int) -> None:
        for run in self.runs()[at : at + 1]:
            document = json.loads(self.programs.read(f"threads/T/runs/{run}/status"))
            document |= {"status": "completed", "completed_at": ended_at, "cancelled_at": None}
            with suppress(StoreError):
                self.programs.write(f"threads/T/runs/{run}/status", json.dumps(document).encode())

    @rule(at=st.integers(0, 3))
    def remove_a_run(self, at: int) -> None:
        for run in self.runs()[at : at + 1]:
            with suppress(StoreError):
                self.programs.remove_all(f"threads/T/runs/{run}")

    @rule(title=st.sampled_from(["", "title", "another title"]))
    def give_a_title(self, title: str) -> None:
        patch = json.dumps({"metadata": {"title": title}}).encode()
        self.programs.write("threads/T/meta.json", patch)

    @precondition(lambda self: self.answer is None)
    @rule()
    def make_the_thread_anew(self) -> None:
        with suppress(StoreError):
            self.programs.remove_all("threads/T")
            self.programs.mkdir("threads/T")

    # ── Who reads ───────────────────────────────────────────────────────────────────────────────────

    @rule(directory=st.sampled_from(DIRECTORIES))
    def open_it(self, directory: str) -> None:
        node = self.programs.at(f"{directory}/T.md")
        assert isinstance(node, ThreadText)
        self.open.append((node.open_for_reading(), node, b""))

    @precondition(lambda self: self.open)
    @rule(number=st.integers(0, 5))
    def close_it(self, number: int) -> None:
        self.open.pop(number % len(self.open))[0].close()

    @precondition(lambda self: self.open)
    @rule(number=st.integers(0, 5))
    def read_on(self, number: int) -> None:
        number %= len(self.open)
        reader, node, before = self.open[number]
        text = before + reader.read(len(before), 1 << 20)
        assert reader.read(0, len(text)) == text
        self.open[number] = reader, node, text

    @invariant()
    def readers_have_read_what_is_there(self) -> None:
        for reader, node, before in self.open:
            size_bytes = node.attributes().size_bytes
            text = reader.read(0, 1 << 20)
            assert text.startswith(before)
            assert len(text) == size_bytes

    @invariant()
    def what_is_opened_is_what_a_new_mount_shows(self) -> None:
        new_mount = Programs(root_of(self.programs.root.tree.store))
        for directory in DIRECTORIES:
            assert self.programs.read(f"{directory}/T.md") == new_mount.read(f"{directory}/T.md")


TestTexts = Texts.TestCase
TestTexts.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
