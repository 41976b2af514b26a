"""Takes over into a catalogue what a store on a disk says, reading only what has changed since.

`Cataloguing.compare` looks at the documents and lists of a thread, and `Cataloguing.index` at its log, for
the words in it: what looks as it did is not read. Several processes may do so at once. Each takes something
over only if the catalogue still says what it said when that was compared; if not, it compares again. So the
catalogue never says what was read before something that it said already.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol, TypeVar

from store import documents, transitions
from store.api import DocumentKey, LogReader
from store.catalogue.tables import Tables
from store.catalogue.values import Kind, MessageText, RunSummary, Signature, ThreadSummary
from store.disk import signatures
from store.disk.layout import LOG, META
from store.disk.log_states import LogState, goes_on
from store.errors import Damaged, InvalidDocument, NotFound, StorageFailed, ThreadNotFound
from store.lines import iter_lines, message_of
from store.models import MessageRole, Run, Thread, ThreadMessage

# Lines and threads that are taken over at once: other processes that write wait for no more.
_TOGETHER: Final = 200
# So many lines of one log.
_LINES_AT_ONCE: Final = 100
# How often a thread is compared again that others take over meanwhile.
_ATTEMPTS: Final = 100

_T = TypeVar("_T", bound="Taken")


class Source(Protocol):
    """The store that is catalogued."""

    root: str

    def list_thread_ids(self) -> list[str]: ...
    def get_run(self, thread_id: str, run_id: str) -> Run: ...
    def read_document(self, key: DocumentKey) -> tuple[bytes, object]: ...
    def iter_messages(self, thread_id: str) -> Iterator[ThreadMessage]: ...
    def open_log(self, thread_id: str) -> LogReader: ...


class Taken(Protocol):
    """What was read of a thread. *weight* is how many lines and threads there are in it."""

    @property
    def thread_id(self) -> str: ...
    @property
    def weight(self) -> int: ...
    def take(self, tables: Tables) -> bool:
        """Within a change of the catalogue; false if by now that says something else than was compared."""
        ...


@dataclass(frozen=True, slots=True)
class _Parts:
    """The documents and lists of a thread that may have changed; *summary*: if its title may have."""

    thread_id: str
    known: Mapping[str, Signature]
    seen: Mapping[str, Signature]
    summary: ThreadSummary | None
    runs: Mapping[str, RunSummary | None]
    weight: int = 1

    def take(self, tables: Tables) -> bool:
        if tables.signatures(self.thread_id) != self.known:
            return False
        if self.summary is not None:
            tables.put_thread(self.summary)
        tables.set_changed(self.thread_id, signatures.modified_ns(self.seen.values()))
        for run_id, run in self.runs.items():
            if run is None:
                tables.remove_run(self.thread_id, run_id)
            else:
                tables.put_run(self.thread_id, run)
        changed = {
            path: one for path, one in self.seen.items() if signatures.differs(self.known.get(path), one)
        }
        tables.put_signatures(self.thread_id, changed, self.known.keys() - self.seen.keys())
        return True


@dataclass(frozen=True, slots=True)
class _Gone:
    """A thread that is not in the store."""

    thread_id: str
    known: Mapping[str, Signature]
    weight: int = 1

    def take(self, tables: Tables) -> bool:
        if tables.signatures(self.thread_id) != self.known:
            return False
        tables.remove_thread(self.thread_id)
        return True


@dataclass(frozen=True, slots=True)
class _Lines:
    """The next lines of a log; *is_first*: from the beginning on. *before* is what was known of the log."""

    thread_id: str
    before: bytes | None
    is_first: bool
    state: LogState
    messages: list[MessageText]

    @property
    def weight(self) -> int:
        return 1 + len(self.messages)

    def take(self, tables: Tables) -> bool:
        if tables.log(self.thread_id) != self.before or not tables.has_thread(self.thread_id):
            return False
        if self.is_first and self.before is not None:
            tables.remove_messages(self.thread_id)
        tables.add_messages(self.thread_id, self.messages, self.state.as_bytes())
        return True


@dataclass(frozen=True, slots=True)
class Cataloguing:
    """All methods raise `Busy` when another process is writing, and StorageFailed when the disk fails."""

    source: Source
    tables: Tables

    def compare_all(self) -> None:
        """The documents and lists of all threads."""
        new = dict.fromkeys(self.source.list_thread_ids())
        changed = []
        for thread_id, known in self.tables.all_signatures():
            new.pop(thread_id, None)
            if _is_changed(known, signatures.look(self.source.root, thread_id, known)):
                changed.append(thread_id)
        self._take_together([*changed, *new], self._compared, self.compare)

    def index_all(self) -> None:
        """The words of all threads that are in the catalogue."""
        without = self.tables.threads_without_words()
        others = {*self.tables.thread_ids()} - {*without}
        self._take_together([*without, *others], self._next_lines, self.index)

    def compare(self, thread_id: str) -> bool:
        """Takes over a thread's title, times and runs; whether there was anything that may have changed."""
        return self._take_one(thread_id, self._compared) is not None

    def index(self, thread_id: str) -> None:
        """Takes over the words of a thread that is in the catalogue."""
        while taken := self._take_one(thread_id, self._next_lines):
            if taken.state.is_whole:
                break

    def _take_one(self, thread_id: str, read: Callable[[str], _T | None]) -> _T | None:
        for _ in range(_ATTEMPTS):
            taken = read(thread_id)
            if taken is None:
                return None
            with self.tables.changing():
                if taken.take(self.tables):
                    return taken
        raise StorageFailed(errno.EBUSY, thread_id, "other processes keep taking it over")

    def _take_together(
        self,
        thread_ids: Iterable[str],
        read: Callable[[str], Taken | None],
        take_one: Callable[[str], object],
    ) -> None:
        """Many threads in few changes of the catalogue, each of which costs as much as some messages.

        *take_one* is called for those that others take over meanwhile, and those of which more is to come.
        """
        waiting: list[Taken] = []
        weight = 0
        for thread_id in thread_ids:
            if taken := read(thread_id):
                waiting.append(taken)
                weight += taken.weight
            if weight >= _TOGETHER:
                self._take(waiting, take_one)
                waiting, weight = [], 0
        self._take(waiting, take_one)

    def _take(self, waiting: list[Taken], take_one: Callable[[str], object]) -> None:
        with self.tables.changing():
            late = [taken for taken in waiting if not taken.take(self.tables)]
        for taken in waiting:
            if taken in late or (isinstance(taken, _Lines) and not taken.state.is_whole):
                take_one(taken.thread_id)

    # Documents and lists.
    def _compared(self, thread_id: str) -> _Parts | _Gone | None:
        """``None``: nothing has changed."""
        known = self.tables.signatures(thread_id)
        seen = signatures.look(self.source.root, thread_id, known)
        if seen is None:
            return self._gone(thread_id, known) if known else None
        if not _is_changed(known, seen):
            return None
        differing = {path for path, found in seen.items() if signatures.differs(known.get(path), found)}
        summary = None
        if META in differing or LOG in differing:
            summary = self._summary(thread_id, seen[META], signatures.modified_ns(seen.values()))
        paths = {path: run_id for path in {*differing, *known} if (run_id := signatures.run_of(path))}
        runs = {
            run_id: self._run(thread_id, run_id, seen[path]) if path in seen else None
            for path, run_id in paths.items()
            if path in differing or path not in seen
        }
        return _Parts(thread_id, known, seen, summary, runs)

    def _gone(self, thread_id: str, known: Mapping[str, Signature]) -> _Parts | _Gone | None:
        with suppress(NotFound, Damaged):
            # This fails where the whole store is away: then nothing in it has gone.
            self.source.read_document(DocumentKey(thread_id))
            return self._compared(thread_id)  # It has come back.
        return _Gone(thread_id, known)

    def _summary(self, thread_id: str, document: Signature, changed_ns: int) -> ThreadSummary:
        key = DocumentKey(thread_id)
        try:
            data, _ = self.source.read_document(key)
            thread = Thread.of(transitions.with_identity(key, documents.parse(data)))
        except (NotFound, Damaged, InvalidDocument):
            # It is one of the threads nevertheless; one that has gone is seen to have gone the next time.
            return ThreadSummary(thread_id, document.modified_ns // 1_000_000_000, changed_ns)
        title = thread.metadata.get("title") if isinstance(thread.metadata, dict) else None
        if isinstance(title, str) and title.strip():
            return ThreadSummary(thread_id, thread.created_at, changed_ns, title, _line_of(title, data))
        said_first = ""
        with suppress(NotFound):
            said = (m.text for m in self.source.iter_messages(thread_id) if m.role is MessageRole.user)
            said_first = next(said, "")
        return ThreadSummary(thread_id, thread.created_at, changed_ns, said_first=said_first)

    def _run(self, thread_id: str, run_id: str, document: Signature) -> RunSummary | None:
        """``None`` for one that is in no list: it is gone, or its document is damaged."""
        try:
            run = self.source.get_run(thread_id, run_id)
        except (NotFound, Damaged):
            return None
        return RunSummary(run_id, run.status.value, run.model, run.created_at, document.modified_ns)

    # Words.
    def _next_lines(self, thread_id: str) -> _Lines | None:
        """``None``: there are none that may be new, or there is no such thread."""
        before = self.tables.log(thread_id)
        known = LogState.of(before) if before is not None else None
        seen = signatures.look_at_log(self.source.root, thread_id)
        if known and known.is_whole and not signatures.differs(known.signature, seen):
            return None
        with suppress(ThreadNotFound), closing(self.source.open_log(thread_id)) as log:
            begin = known if known and goes_on(log, known, seen) else LogState()
            state, messages = begin._replace(is_whole=False, signature=seen), []
            following = iter_lines(log.read, begin.size_bytes)
            for line, end in islice(following, _LINES_AT_ONCE):
                state = state.after(line, end)
                if message := message_of(line, thread_id):
                    kind = Kind.USER if message.role is MessageRole.user else Kind.ASSISTANT
                    messages.append(MessageText(state.lines, kind, message.created_at, message.text))
            if next(following, None) is None:
                state = state._replace(is_whole=True)
            return _Lines(thread_id, before, begin.lines == 0, state, messages)
        return None


def _is_changed(known: Mapping[str, Signature], seen: Mapping[str, Signature] | None) -> bool:
    """Whether a thread, or any part of it, came, went or may be another one."""
    return (
        seen is None
        or known.keys() != seen.keys()
        or any(signatures.differs(known[path], found) for path, found in seen.items())
    )


def _line_of(title: str, document: bytes) -> int:
    """The line of a document where its title stands: 1 in one that is all in one line."""
    for number, line in enumerate(document.decode().split("\n"), 1):
        if line.lstrip().startswith('"title"') and _is_title(line, title):
            return number
    return 1


def _is_title(line: str, title: str) -> bool:
    try:
        return bool(json.loads(f"{{{line.strip().removesuffix(',')}}}") == {"title": title})
    except ValueError:
        return False
