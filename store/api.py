"""The interface of every store, wherever it keeps its data.

Documents are addressed by a `DocumentKey`. Methods are synchronous and may be called from many threads at
once. A method that changes something returns after the change is durable, and raises nothing but
`StoreError`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from store.changes import Announcer, Change, Watch
from store.names import DocumentKey as DocumentKey
from store.statuses import RunStatus, RunStepStatus
from store.working import Working

if TYPE_CHECKING:  # They need the models, and SQLite, which who only reads does not.
    from store.catalogue.api import Catalogue
    from store.models import Run, RunError, RunStep, Thread, ThreadMessage


@dataclass(frozen=True, slots=True)
class Info:
    """The status of a document or log, known without reading it.

    ``size_bytes`` of a log counts complete lines only. ``modified_ns`` is in nanoseconds since 1970. Two
    equal ``version``s are the same contents. ``changed_ns`` is the time of the last change by any means,
    which includes that ``modified_ns`` was set; no program can set it back. ``identity`` says which file it
    is: a log keeps it while it grows; 0 stands for a log without a file, as it has no message yet.
    """

    size_bytes: int
    modified_ns: int
    version: tuple[int, ...]
    changed_ns: int
    identity: int


class Times(NamedTuple):
    """The latest times of all documents and lists in a thread, as in `Info`."""

    modified_ns: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class RunContents:
    """A Run document and its RunStep documents by id, as bytes."""

    document: bytes
    steps: Mapping[str, bytes] = field(default_factory=dict)


# The ids of a thread and of a run in it, and the status of the run.
StatusOfRun: TypeAlias = tuple[str, str, RunStatus]


class LogReader(Protocol):
    """An open message log. It goes on reading the log it opened, with what is appended to that."""

    def info(self) -> Info: ...

    def read(self, offset: int, size: int) -> bytes:
        """At most *size* bytes at *offset*; nothing beyond the last complete line."""
        ...

    def close(self) -> None: ...


class Store(Working, Protocol):
    """Threads, their messages, runs and steps; and, from `Working`, what answers runs."""

    location: str
    # Whether each call may go over a network. Where not, `store.waiting` can tell what is answered at once.
    is_remote: bool
    # Whom it tells of changes. (`watch` is for those who follow changes by others, too.)
    announcer: Announcer

    # Threads.
    def create_thread(self, thread: Thread) -> Thread: ...
    def import_thread(
        self,
        thread_id: str,
        document: bytes,
        messages: Iterable[bytes],
        runs: Mapping[str, RunContents],
        *,
        modified_ns: int | None = None,
    ) -> None: ...
    def extend_thread(
        self,
        thread_id: str,
        log_bytes: int,
        messages: Sequence[bytes],
        runs: Mapping[str, RunContents],
        *,
        modified_ns: int | None = None,
    ) -> None: ...
    def get_thread(self, thread_id: str) -> Thread: ...
    def list_thread_ids(self) -> list[str]: ...
    def delete_thread(
        self,
        thread_id: str,
        *,
        force: bool = False,
        only_empty: bool = False,
        unmodified_since_ns: int | None = None,
        with_foreign: bool = False,
        with_damaged: bool = False,
    ) -> None: ...
    def check_ours(self, key: DocumentKey, *, with_foreign: bool = False) -> None:
        """Raises Foreign unless it surely is a thread or run and, if not *with_foreign*, holds only that."""
        ...

    def has_place(self, key: DocumentKey) -> bool:
        """Whether a thread or run has a place of its own, also without a document: it may be being made."""
        ...

    def check_writable(self, thread_id: str) -> None:
        """Raises StorageFailed when it is known beforehand that a change would be refused."""
        ...

    def check_appendable(self, thread_id: str, size_bytes: int = 0) -> None:
        """Raises ThreadNotFound or StorageFailed when it is known beforehand that a message of *size_bytes*
        could not be appended."""
        ...

    def thread_times(self, thread_id: str) -> Times: ...
    def times_of_threads(self, thread_ids: Collection[str]) -> dict[str, Times]:
        """As `thread_times`, of many; without those that are not there, or cannot be looked at."""
        ...

    def thread_modified_ns(self, thread_id: str) -> int: ...
    def thread_touched_ns(self, thread_id: str) -> int:
        """The later of its time and of when it came here, which no import sets back: the age for `prune`."""
        ...

    def set_thread_modified(self, thread_id: str, modified_ns: int) -> None: ...

    # The message log.
    def append_message(self, thread_id: str, message: ThreadMessage) -> ThreadMessage: ...
    def append_lines(self, thread_id: str, given: Sequence[bytes]) -> None: ...
    def list_messages(self, thread_id: str) -> list[ThreadMessage]: ...
    def iter_messages(self, thread_id: str) -> Iterator[ThreadMessage]: ...
    def log_info(self, thread_id: str) -> Info: ...
    def open_log(self, thread_id: str) -> LogReader: ...
    def set_log_modified(self, thread_id: str, modified_ns: int) -> None: ...

    # Runs.
    def create_run(self, thread_id: str, run: Run) -> Run: ...
    def get_run(self, thread_id: str, run_id: str) -> Run: ...
    def list_run_ids(self, thread_id: str) -> list[str]: ...
    def delete_run(
        self,
        thread_id: str,
        run_id: str,
        *,
        force: bool = False,
        only_empty: bool = False,
        with_foreign: bool = False,
        with_damaged: bool = False,
    ) -> None: ...
    def update_run_status(
        self,
        thread_id: str,
        run_id: str,
        status: RunStatus,
        error: RunError | None = None,
        *,
        expected: RunStatus | None = None,
    ) -> Run: ...
    def force_update_run_status(
        self, thread_id: str, run_id: str, status: RunStatus, error: RunError | None = None
    ) -> Run: ...
    def cancel_run(self, thread_id: str, run_id: str, *, force: bool = False) -> Run: ...
    def index_runs(self) -> None:
        """Have `runs_by_status` answer without reading each run, if it does not anyway.

        What others change shows in it within a second.
        """
        ...

    def list_changed_ns(self, status: RunStatus | None = None) -> int:
        """When a name last came into or left the list of threads or, with *status*, the list of those runs.

        In nanoseconds since 1970, as far as it was noticed since the store was opened.
        """
        ...

    def runs_by_status(self, statuses: Collection[RunStatus] = ...) -> Iterator[StatusOfRun]: ...
    def stale_runs(self, older_than_s: float) -> Iterator[StatusOfRun]:
        """The runs that have not ended, unchanged for *older_than_s* seconds, and without a living worker."""
        ...

    # Steps.
    def append_step(self, thread_id: str, run_id: str, step: RunStep) -> RunStep: ...
    def get_step(self, thread_id: str, run_id: str, step_id: str) -> RunStep: ...
    def list_steps(self, thread_id: str, run_id: str) -> list[RunStep]: ...
    def list_step_ids(self, thread_id: str, run_id: str) -> list[str]: ...
    def update_step_status(
        self, thread_id: str, run_id: str, step_id: str, status: RunStepStatus
    ) -> RunStep: ...

    # Documents of all kinds.
    def document_info(self, key: DocumentKey) -> Info: ...
    def read_document(self, key: DocumentKey) -> tuple[bytes, Info]: ...
    def replace_document(self, key: DocumentKey, document: bytes) -> None: ...
    def patch_document(
        self, key: DocumentKey, patch: dict[str, Any], *, expected: dict[str, Any] | None = None
    ) -> None: ...
    def set_document_modified(self, key: DocumentKey, modified_ns: int) -> None: ...

    # The store as a whole.
    def watch(self, on_change: Callable[[Change], None]) -> Watch:
        """Calls *on_change* with each change: own ones, and those of others in what the watch follows."""
        ...

    def follow_all_runs(self, watch: Watch) -> bool:
        """Has *watch* report each change of a run of any thread, as far as the system can.

        Returns:
            Whether all of them will be reported; if not, who waits for runs has to look now and then.
        """
        ...

    def reports_all_of(self, thread_id: str) -> bool:
        """Whether each change of anything in the thread is reported to all watches."""
        ...

    def catalogue(self, *, keeps_words: bool = True) -> Catalogue:
        """What is in the store, by titles, days and words: one for all who ask, closed with the store.

        The first call says whether it *keeps_words* of messages, on this machine's disk, for later searches.
        """
        ...

    def space(self) -> Any:
        """The `os.statvfs` of the store's disk."""
        ...

    def close(self) -> None:
        """End background work, and close connections."""
        ...
