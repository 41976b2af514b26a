"""``threads/`` and the directories in it: the canonical part of the tree, with all data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from store import (
    DocumentKey,
    Foreign,
    NotEmpty,
    NotFound,
    Run,
    RunInProgress,
    StoreError,
    Thread,
    Times,
    names,
)
from store.waiting import waits
from threadfs.nodes.base import (
    ALL_THREADS,
    Attributes,
    Directory,
    ListDirectory,
    Node,
    NoSuchName,
    PathNode,
    directory_attributes,
)
from threadfs.nodes.canonical import CanonicalDirectory
from threadfs.nodes.controls import AskFile, CancelFile, SayFile, StartFile
from threadfs.nodes.documents import MetaFile, StatusFile, StepFile
from threadfs.nodes.drafts import make_thread
from threadfs.nodes.lives import Life
from threadfs.nodes.log import LogFile
from threadfs.nodes.loose_directories import LooseDirectory
from threadfs.nodes.tools import TOOLS, ToolsDirectory, awaited_calls

# What the tree adds to the id of a step.
_STEP_SUFFIX = ".json"

_LONG_LIST = 1000

_TAKES_ALONG = ": rm -r takes it along"


def _located(error: StoreError, location: str, what_to_do: str) -> StoreError:
    """Adds the store's location: a foreign file is not in the tree, so its path is the one in the store."""
    return NotEmpty(f"{location}/{error}{what_to_do}") if isinstance(error, Foreign) else error


def _named(table: dict[str, Node], name: str) -> Node:
    try:
        return table[name]
    except KeyError:
        raise NoSuchName(name) from None


def _id(name: str) -> str:
    """*name*, if it is a valid id. Raises NoSuchName otherwise."""
    if not names.is_id(name):
        raise NoSuchName(name)
    return name


@dataclass(frozen=True, slots=True)
class ThreadsDirectory(ListDirectory):
    """``threads/``: ``mkdir`` makes a thread."""

    life = Life.MOUNT

    @property
    def scope(self) -> DocumentKey:
        return ALL_THREADS

    @property
    def lists_store(self) -> bool:
        return True

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

    def attributes_of(self, children: Sequence[Node]) -> dict[Node, Attributes]:
        threads = {child.thread_id: child for child in children if isinstance(child, ThreadDirectory)}
        found = self.store.times_of_threads(threads)
        return {threads[thread_id]: directory_attributes(times) for thread_id, times in found.items()}

    def make_directory(self, name: str) -> Node:
        self.store.create_thread(Thread(id=names.checked(name)))
        return self._new_thread(name)

    def _new_thread(self, name: str) -> Node:
        thread = ThreadDirectory(self.tree, name)
        self._drop_state(thread)
        return thread

    def _drop_state(self, thread: ThreadDirectory) -> None:
        """Drops all state about a thread that was removed or replaced."""
        self.tree.scratch.forget_below(thread.path)
        self.tree.journal.forget_thread(thread.thread_id)

    def accept_draft(self, draft: LooseDirectory, name: str, source: LooseDirectory, new_name: str) -> None:
        make_thread(draft, name, source, new_name)
        self._new_thread(new_name)

    def remove_directory(self, name: str) -> None:
        """Deletes a thread that is empty, or whose messages have been removed as well."""
        self.store.document_info(DocumentKey(_id(name)))
        thread = ThreadDirectory(self.tree, name)
        scratch = self.tree.scratch
        if scratch.files(thread.path):
            raise NotEmpty(f"thread {name!r} holds files that a program left there: rm -r removes them")
        with_messages = scratch.is_staged(thread.path, "messages.jsonl")
        try:
            if with_messages and self.store.list_run_ids(name):
                raise NotEmpty(f"thread {name!r} holds runs: rm -r removes it with all that it holds")
            self.store.delete_thread(
                name,
                only_empty=not with_messages,
                with_foreign=with_messages,
                with_damaged=with_messages,
            )
        except StoreError as error:
            scratch.unstage_below(thread.path)
            raise _located(error, self.store.location, "" if with_messages else _TAKES_ALONG) from None
        self._drop_state(thread)


@dataclass(frozen=True, slots=True)
class ThreadDirectory(CanonicalDirectory):
    """``threads/<thread>/``: its time is that of the last change in the thread."""

    has_cheap_attributes: ClassVar[bool] = False
    store_remembers_attributes: ClassVar[bool] = True
    documents: ClassVar[tuple[str, ...]] = ("meta.json", "messages.jsonl")

    thread_id: str

    @property
    def path(self) -> str:
        return f"threads/{self.thread_id}"

    @property
    def scope(self) -> DocumentKey:
        return DocumentKey(self.thread_id)

    @property
    def listed_in(self) -> DocumentKey:
        return ALL_THREADS

    def times(self) -> Times:
        return self.store.thread_times(self.thread_id)

    def set_modified(self, modified_ns: int) -> None:
        self.store.set_thread_modified(self.thread_id, modified_ns)

    def _table(self) -> dict[str, Node]:
        # `runs` is last: `rm -r` removes in the order of the listing, and fails if a run is in progress.
        return {
            "meta.json": MetaFile(self.tree, DocumentKey(self.thread_id)),
            "messages.jsonl": LogFile(self.tree, self.thread_id),
            "say": SayFile(self.tree, self.thread_id),
            "ask": AskFile(self.tree, self.thread_id),
            "start": StartFile(self.tree, self.thread_id),
            "runs": RunsDirectory(self.tree, self.thread_id),
        }

    def names_when_whole(self) -> Iterable[str]:
        return self._table()

    def named_child(self, name: str) -> Node:
        return _named(self._table(), name)

    def check_stored(self, child: Node) -> None:
        self.store.document_info(self.scope)

    def stored_entries(self) -> Iterable[tuple[str, Node]]:
        self.store.document_info(self.scope)
        return self._table().items()

    def is_hidden(self, name: str) -> bool:
        # A run that was added after `runs` was removed shows it again.
        return CanonicalDirectory.is_hidden(self, name) and not (
            name == "runs" and self.store.list_run_ids(self.thread_id)
        )


@dataclass(frozen=True, slots=True)
class RunsDirectory(PathNode, Directory):
    """``threads/<thread>/runs/``: ``mkdir`` queues a run."""

    life = Life.REPORTED
    is_within_thread: ClassVar[bool] = True

    thread_id: str

    @property
    def lists_store(self) -> bool:
        return True

    @property
    def path(self) -> str:
        return f"threads/{self.thread_id}/runs"

    @property
    def scope(self) -> DocumentKey:
        return DocumentKey(self.thread_id, "")

    @property
    def listed_in(self) -> DocumentKey:
        return DocumentKey(self.thread_id)

    def times(self) -> Times:
        return self.store.thread_times(self.thread_id)

    def set_modified(self, modified_ns: int) -> None:
        self.store.set_thread_modified(self.thread_id, modified_ns)

    def lookup(self, name: str) -> Node:
        run = self.child(name)
        self.store.document_info(run.key)
        return run

    def child(self, name: str) -> RunDirectory:
        return RunDirectory(self.tree, self.thread_id, _id(name))

    def entries(self) -> Iterable[tuple[str, Node]]:
        run_ids = self.store.list_run_ids(self.thread_id)
        if len(run_ids) > _LONG_LIST:
            waits()  # A long list is made in a thread, so that other requests go on.
        return ((run_id, RunDirectory(self.tree, self.thread_id, run_id)) for run_id in run_ids)

    def make_directory(self, name: str) -> Node:
        self.store.create_run(self.thread_id, Run(id=names.checked(name)))
        run = RunDirectory(self.tree, self.thread_id, name)
        self._drop_state(run)
        return run

    def _drop_state(self, run: RunDirectory) -> None:
        """Drops all state about a run that was removed or replaced."""
        self.tree.scratch.forget_below(run.path)
        self.tree.journal.forget_thread(run.thread_id, run.run_id)

    def remove_directory(self, name: str) -> None:
        """Deletes a queued run without steps, or a run whose status has been removed as well."""
        self.store.document_info(DocumentKey(self.thread_id, _id(name)))
        run = RunDirectory(self.tree, self.thread_id, name)
        scratch = self.tree.scratch
        if scratch.files(run.path):
            raise NotEmpty(f"run {name!r} holds files that a program left there: rm -r removes them")
        only_empty = not scratch.is_staged(run.path, "status")
        try:
            steps = StepsDirectory(self.tree, self.thread_id, name)
            if not only_empty and next(iter(steps.entries()), None):
                raise NotEmpty(f"run {name!r} holds steps: rm -r removes it with all that it holds")
            self.store.delete_run(
                self.thread_id,
                name,
                only_empty=only_empty,
                with_foreign=not only_empty,
                with_damaged=not only_empty,
            )
        except RunInProgress:
            # `rm -r` of the thread ends here, after it has staged the other files.
            scratch.unstage_below(f"threads/{self.thread_id}")
            raise
        except StoreError as error:
            scratch.unstage_below(run.path)
            raise _located(error, self.store.location, _TAKES_ALONG if only_empty else "") from None
        self._drop_state(run)


@dataclass(frozen=True, slots=True)
class RunDirectory(CanonicalDirectory):
    """``runs/<run>/``: its time is that of its document."""

    is_within_thread: ClassVar[bool] = True
    documents: ClassVar[tuple[str, ...]] = ("status",)

    thread_id: str
    run_id: str

    @property
    def path(self) -> str:
        return f"threads/{self.thread_id}/runs/{self.run_id}"

    @property
    def key(self) -> DocumentKey:
        return DocumentKey(self.thread_id, self.run_id)

    @property
    def scope(self) -> DocumentKey:
        return self.key

    @property
    def listed_in(self) -> DocumentKey:
        return DocumentKey(self.thread_id, "")

    def times(self) -> Times:
        info = self.store.document_info(self.key)
        return Times(info.modified_ns, info.changed_ns)

    def _table(self) -> dict[str, Node]:
        return {
            "status": StatusFile(self.tree, self.key),
            "cancel": CancelFile(self.tree, self.thread_id, self.run_id),
            "steps": StepsDirectory(self.tree, self.thread_id, self.run_id),
        }

    def names_when_whole(self) -> Iterable[str]:
        return self._table()

    @property
    def _tools(self) -> ToolsDirectory:
        return ToolsDirectory(self.tree, self.thread_id, self.run_id)

    def named_child(self, name: str) -> Node:
        return self._tools if name == TOOLS else _named(self._table(), name)

    def check_stored(self, child: Node) -> None:
        self.store.document_info(self.key)
        if child == self._tools and not awaited_calls(self.store, self.key):
            raise NoSuchName(TOOLS)

    def stored_entries(self) -> Iterable[tuple[str, Node]]:
        calls = awaited_calls(self.store, self.key)  # Raises NotFound.
        yield from self._table().items()
        if calls:
            yield TOOLS, self._tools


@dataclass(frozen=True, slots=True)
class StepsDirectory(CanonicalDirectory):
    """``steps/``: a document for each step."""

    is_within_thread: ClassVar[bool] = True
    documents: ClassVar[tuple[str, ...]] = (_STEP_SUFFIX,)

    thread_id: str
    run_id: str

    @property
    def path(self) -> str:
        return f"threads/{self.thread_id}/runs/{self.run_id}/steps"

    @property
    def scope(self) -> DocumentKey:
        return DocumentKey(self.thread_id, self.run_id, "")

    @property
    def listed_in(self) -> DocumentKey:
        return DocumentKey(self.thread_id, self.run_id)

    def _key(self, step_id: str) -> DocumentKey:
        return DocumentKey(self.thread_id, self.run_id, step_id)

    def times(self) -> Times:
        infos = [self.store.document_info(DocumentKey(self.thread_id, self.run_id))]
        for step_id in self.store.list_step_ids(self.thread_id, self.run_id):
            try:
                infos.append(self.store.document_info(self._key(step_id)))
            except NotFound:
                continue
        return Times(max(info.modified_ns for info in infos), max(info.changed_ns for info in infos))

    def new_document(self, name: str) -> Node | None:
        step_id = name.removesuffix(_STEP_SUFFIX)
        return StepFile(self.tree, self._key(step_id)) if step_id != name and names.is_id(step_id) else None

    def named_child(self, name: str) -> Node:
        if step := self.new_document(name):
            return step
        raise NoSuchName(name)

    def check_stored(self, child: Node) -> None:
        child.attributes()

    def stored_entries(self) -> Iterable[tuple[str, Node]]:
        step_ids = self.store.list_step_ids(self.thread_id, self.run_id)
        return ((step_id + _STEP_SUFFIX, StepFile(self.tree, self._key(step_id))) for step_id in step_ids)
