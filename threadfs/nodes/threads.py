"""``threads/`` and what is in it: the canonical part of the tree, everything that is data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from store import DocumentKey, NotFound, Run, Thread, names
from threadfs.nodes.base import (
    Attributes,
    Directory,
    FixedDirectory,
    Node,
    NoSuchName,
    Reader,
    regular,
)
from threadfs.nodes.controls import CancelFile, SayFile, StartFile
from threadfs.nodes.documents import MetaFile, StatusFile, StepFile

# The store's own names for what has another one in the tree.
_STEP_SUFFIX = ".json"


def _id(name: str) -> str:
    """*name* as an id that can be looked up: what cannot be one is not there."""
    if not names.is_id(name):
        raise NoSuchName(name)
    return name


@dataclass(frozen=True, slots=True)
class ThreadsDirectory(Directory):
    """``threads/``: ``mkdir`` makes a thread."""

    is_slow: ClassVar[bool] = True

    @property
    def path(self) -> str:
        return "threads"

    def lookup(self, name: str) -> Node:
        self.store.document_info(DocumentKey(_id(name)))
        return ThreadDirectory(self.tree, name)

    def entries(self) -> Iterable[tuple[str, Node]]:
        return (
            (thread_id, ThreadDirectory(self.tree, thread_id)) for thread_id in self.store.list_thread_ids()
        )

    def make_directory(self, name: str) -> Node:
        self.store.create_thread(Thread(id=names.checked(name)))
        return ThreadDirectory(self.tree, name)


@dataclass(frozen=True, slots=True)
class ThreadDirectory(FixedDirectory):
    """``threads/<thread>/``: its time is that of the last change of anything in it."""

    thread_id: str

    @property
    def path(self) -> str:
        return f"threads/{self.thread_id}"

    def modified_ns(self) -> int:
        return self.store.thread_modified_ns(self.thread_id)

    def children(self) -> dict[str, Node]:
        # `runs` is last: `rm -r` removes in the order of the listing, and fails where a run is in progress.
        return {
            "meta.json": MetaFile(self.tree, DocumentKey(self.thread_id)),
            "messages.jsonl": LogFile(self.tree, self.thread_id),
            "say": SayFile(self.tree, self.thread_id),
            "start": StartFile(self.tree, self.thread_id),
            "runs": RunsDirectory(self.tree, self.thread_id),
        }

    def lookup(self, name: str) -> Node:
        self.store.document_info(DocumentKey(self.thread_id))
        return FixedDirectory.lookup(self, name)

    def entries(self) -> Iterable[tuple[str, Node]]:
        self.store.document_info(DocumentKey(self.thread_id))
        return FixedDirectory.entries(self)


@dataclass(frozen=True, slots=True)
class LogFile(Node):
    """``messages.jsonl``: the log as stored, complete lines only."""

    thread_id: str

    @property
    def path(self) -> str:
        return f"threads/{self.thread_id}/messages.jsonl"

    def attributes(self) -> Attributes:
        info = self.store.log_info(self.thread_id)
        return regular(0o644, info.size_bytes, info.modified_ns)

    def set_modified(self, modified_ns: int) -> None:
        self.store.set_log_modified(self.thread_id, modified_ns)

    def open_for_reading(self) -> Reader:
        return _LogReader(self)


class _LogReader:
    """Reads on as the log grows; a log without a message is looked for again at each read."""

    def __init__(self, node: LogFile) -> None:
        self._node = node
        self._log = node.store.open_log(node.thread_id)
        # One version for as long as it only grows: the file that it is.
        self.version: object = self._log.info().version[:1]

    def read(self, offset: int, size: int) -> bytes:
        if not self.version:
            self._log.close()
            self._log = self._node.store.open_log(self._node.thread_id)
            self.version = self._log.info().version[:1]
        return self._log.read(offset, size)

    def attributes(self) -> Attributes:
        info = self._log.info()
        return regular(0o644, info.size_bytes, info.modified_ns)

    def close(self) -> None:
        self._log.close()


@dataclass(frozen=True, slots=True)
class RunsDirectory(Directory):
    """``threads/<thread>/runs/``: ``mkdir`` queues a run."""

    is_slow: ClassVar[bool] = True

    thread_id: str

    @property
    def path(self) -> str:
        return f"threads/{self.thread_id}/runs"

    def modified_ns(self) -> int:
        return self.store.thread_modified_ns(self.thread_id)

    def lookup(self, name: str) -> Node:
        self.store.document_info(DocumentKey(self.thread_id, _id(name)))
        return RunDirectory(self.tree, self.thread_id, name)

    def entries(self) -> Iterable[tuple[str, Node]]:
        run_ids = self.store.list_run_ids(self.thread_id)
        return ((run_id, RunDirectory(self.tree, self.thread_id, run_id)) for run_id in run_ids)

    def make_directory(self, name: str) -> Node:
        self.store.create_run(self.thread_id, Run(id=names.checked(name)))
        return RunDirectory(self.tree, self.thread_id, name)


@dataclass(frozen=True, slots=True)
class RunDirectory(FixedDirectory):
    """``runs/<run>/``: its time is that of the last change of its status."""

    thread_id: str
    run_id: str

    @property
    def path(self) -> str:
        return f"threads/{self.thread_id}/runs/{self.run_id}"

    @property
    def key(self) -> DocumentKey:
        return DocumentKey(self.thread_id, self.run_id)

    def modified_ns(self) -> int:
        return self.store.document_info(self.key).modified_ns

    def children(self) -> dict[str, Node]:
        return {
            "status": StatusFile(self.tree, self.key),
            "cancel": CancelFile(self.tree, self.thread_id, self.run_id),
            "steps": StepsDirectory(self.tree, self.thread_id, self.run_id),
        }

    def lookup(self, name: str) -> Node:
        self.store.document_info(self.key)
        return FixedDirectory.lookup(self, name)

    def entries(self) -> Iterable[tuple[str, Node]]:
        self.store.document_info(self.key)
        return FixedDirectory.entries(self)


@dataclass(frozen=True, slots=True)
class StepsDirectory(Directory):
    """``steps/``: a document for each step."""

    thread_id: str
    run_id: str

    @property
    def path(self) -> str:
        return f"threads/{self.thread_id}/runs/{self.run_id}/steps"

    def _key(self, step_id: str) -> DocumentKey:
        return DocumentKey(self.thread_id, self.run_id, step_id)

    def modified_ns(self) -> int:
        times = [self.store.document_info(DocumentKey(self.thread_id, self.run_id)).modified_ns]
        for step_id in self.store.list_step_ids(self.thread_id, self.run_id):
            try:
                times.append(self.store.document_info(self._key(step_id)).modified_ns)
            except NotFound:
                continue
        return max(times)

    def lookup(self, name: str) -> Node:
        if not name.endswith(_STEP_SUFFIX):
            raise NoSuchName(name)
        key = self._key(_id(name.removesuffix(_STEP_SUFFIX)))
        self.store.document_info(key)
        return StepFile(self.tree, key)

    def entries(self) -> Iterable[tuple[str, Node]]:
        step_ids = self.store.list_step_ids(self.thread_id, self.run_id)
        return ((step_id + _STEP_SUFFIX, StepFile(self.tree, self._key(step_id))) for step_id in step_ids)
