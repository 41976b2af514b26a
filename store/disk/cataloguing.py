"""Takes over into a catalogue what a store on a disk says, reading only what has changed since.

`Cataloguing.compare` looks at the documents and lists of a thread, and `Cataloguing.index` at its log, for
the words in it: what looks as it did is not read. Several processes may do so at once. Each takes something
over only if the catalogue still says what it said when that was compared; if not, it compares again. So the
catalogue never says what was read before something that it said already.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple, Protocol, TypeVar

from store import names
from store.api import DocumentKey, LogReader
from store.catalogue.finding import text_of
from store.catalogue.tables import SeenOfThread, Tables, seen
from store.catalogue.values import MessageText, RunSummary, Signature, ThreadSummary
from store.disk import describing, signatures
from store.disk.describing import Documents
from store.disk.layout import LOG, META
from store.disk.log_states import LogState, goes_on, pieces_taken_over
from store.disk.looking_ahead import looking_ahead
from store.disk.paths import MISSING, opened, storage_errors
from store.errors import Damaged, NotFound, StorageFailed, ThreadNotFound
from store.lines import iter_lines
from store.statuses import RunStatus

# Lines and threads that are taken over at once: other processes that write wait for no more.
_TOGETHER: Final = 200
# If no more than one of so many threads is to be looked at, each is looked up by itself.
_FEW: Final = 8
# So many lines of one log.
_LINES_AT_ONCE: Final = 100
# How much of a log is read ahead.
_AHEAD_BYTES: Final = 1 << 17
_ENDED: Final = frozenset(status.value for status in RunStatus if status.is_terminal)
# How often a thread is compared again that others take over meanwhile.
_ATTEMPTS: Final = 100

_T = TypeVar("_T", bound="Taken")


class AllBut(NamedTuple):
    """All threads but these."""

    others: Collection[str]


class Source(Documents, Protocol):
    """The store that is catalogued."""

    def list_thread_ids(self) -> list[str]: ...
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
        is_new = not self.known and not tables.has_thread(self.thread_id)
        if not is_new and tables.signatures(self.thread_id) != self.known:
            return False
        if self.summary is not None:
            tables.put_thread(self.summary)
        else:
            tables.set_changed(self.thread_id, signatures.modified_ns(self.seen.values()))
        for run_id, run in self.runs.items():
            if run is None:
                tables.remove_run(self.thread_id, run_id)
            else:
                tables.put_run(self.thread_id, run)
        seen, of_lists = signatures.by_lists(self.seen, self._ended(tables))
        tables.put_signatures(self.thread_id, seen, of_lists, self.seen.get(LOG))
        return True

    def _ended(self, tables: Tables) -> set[str]:
        """The ids of the runs that have ended, those that are the same as before among them."""
        statuses = {run.id: run.status for run in self.runs.values() if run is not None}
        if self.known:
            statuses = {run_id: status for _, run_id, status in tables.statuses_in([self.thread_id])}
        return {run_id for run_id, status in statuses.items() if status in _ENDED}


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
        whole = self.state.signature if self.state.is_whole else None
        tables.add_messages(self.thread_id, self.messages, self.state.as_bytes(), whole)
        return True


@dataclass(frozen=True, slots=True)
class Cataloguing:
    """All methods raise `Busy` when another process is writing, and StorageFailed when the disk fails.

    With *skip*, one thread that cannot be read among others is given to that, and left as it was.
    """

    source: Source
    tables: Tables
    skip: Callable[[str, StorageFailed], None] | None = None

    def differing(self, there: Collection[str] | None = None, by_lists: AllBut | None = None) -> list[str]:
        """The threads that came, went or may have changed. *there* are those in the store, if they are known.

        Of those that are *by_lists*, only that which lists of runs that have not ended go by is looked at.
        """
        # No list of all that are known is made, which would take more room than all else.
        unknown = dict.fromkeys(self._directories() if there is None else there)
        gone: list[str] = []
        changed = [*self._changed(self._known_of(unknown, gone), by_lists)]
        new: Iterable[str] = [*unknown]
        if there is None:
            new = filter(self._is_thread, looking_ahead(new, self._is_thread))
        return [*dict.fromkeys([*gone, *changed, *new])]

    def differing_among(self, thread_ids: Collection[str], by_lists: AllBut | None) -> list[str]:
        """As `differing`, of some threads."""
        if len(thread_ids) * _FEW < self.tables.count():
            return self._few_changed(thread_ids)
        unknown = dict.fromkeys(thread_ids)
        return [*self._changed(self._known_of(unknown), by_lists), *unknown]

    def _known_of(
        self, thread_ids: dict[str, None], others: list[str] | None = None
    ) -> Iterator[SeenOfThread]:
        """What was seen of some threads, which are taken out; all others are added to *others*, if given."""
        for found in self.tables.all_signatures():
            if found[0] in thread_ids:
                del thread_ids[found[0]]
                yield found
            elif others is not None:
                others.append(found[0])

    def _directories(self) -> list[str]:
        """The names in the store that threads may have."""
        with opened(self.source.root) as root:
            assert root is not None
            with storage_errors(self.source.root), os.scandir(root) as entries:
                return [e.name for e in entries if e.is_dir(follow_symlinks=False) and names.is_id(e.name)]

    def _is_thread(self, name: str) -> bool:
        """Whether a directory has a document; who compares it is told of what cannot be looked at."""
        try:
            os.lstat(f"{self.source.root}/{name}/{META}")
        except OSError as error:
            return error.errno not in MISSING
        return True

    def _changed(self, known: Iterable[SeenOfThread], by_lists: AllBut | None) -> Iterator[str]:
        """The threads that do not look as is *known* of them."""
        root = self.source.root

        def is_same(one: SeenOfThread) -> bool:
            thread_id, paths, numbers, of_lists = one
            if not numbers:
                return False
            first = of_lists if by_lists is not None and thread_id not in by_lists.others else -1
            return signatures.is_same(root, thread_id, seen(paths, numbers, first))

        return (one[0] for one in looking_ahead(known, is_same) if not is_same(one))

    def _few_changed(self, thread_ids: Collection[str]) -> list[str]:
        root = self.source.root
        return [
            thread_id
            for thread_id in looking_ahead(thread_ids, lambda one: signatures.look(root, one, {}))
            if not signatures.is_as_known(root, thread_id, self.tables.signatures(thread_id))
        ]

    def compare_these(self, thread_ids: Iterable[str]) -> Iterator[int]:
        """Takes over titles, times and runs; yields now and then how many threads more are done."""
        known: dict[str, dict[str, Signature]] = {}

        def asked(thread_ids: Iterator[str]) -> Iterator[str]:
            """To ask the catalogue of each by itself would take as long as to read a document."""
            while together := [*islice(thread_ids, _TOGETHER)]:
                known.update(self.tables.signatures_of(together))
                yield from together

        ahead = looking_ahead(thread_ids, lambda one: describing.described(self.source, one))
        return self._take_together(
            asked(ahead), lambda one: self._compared_with(one, known.pop(one, {})), self.compare
        )

    def behind(self) -> list[str]:
        """The threads in the catalogue whose words may not be there, or not all, or be others."""
        return self.tables.threads_behind()

    def index_these(self, thread_ids: Iterable[str]) -> Iterator[int]:
        """As `compare_these`, the words of threads that are in the catalogue."""
        return self._take_together(looking_ahead(thread_ids, self._look_at_log), self._next_lines, self.index)

    def compare(self, thread_id: str) -> bool:
        """Takes over a thread's title, times and runs; whether there was anything that may have changed."""
        return self._take_one(thread_id, self._compared) is not None

    def index(self, thread_id: str) -> None:
        """Takes over the words of a thread that is in the catalogue."""
        while taken := self._take_one(thread_id, self._next_lines):
            if taken.state.is_whole:
                break

    def forget(self, thread_id: str, log: LogReader) -> None:
        """Takes a thread out that was deleted, with the words of its messages, as its *log* still has them.

        Words of a log that is not the one that was taken over, or is very long, stay, and are dead.
        """
        before = self.tables.log(thread_id)
        for known, lines in pieces_taken_over(log, before, _LINES_AT_ONCE) if before is not None else ():
            messages = [text for number, line in lines if (text := text_of(line, number, thread_id))]
            with self.tables.changing():
                if self.tables.log(thread_id) != before:
                    return  # Another thread of this id has come.
                before = known.as_bytes()
                self.tables.remove_words_after(thread_id, known.lines, messages, before)
        self.compare(thread_id)

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
    ) -> Iterator[int]:
        """Many threads in few changes of the catalogue, each of which costs as much as some messages.

        *take_one* is called for those that others take over meanwhile, and those of which more is to come.
        """
        waiting: list[Taken] = []
        weight = looked_at = 0
        for thread_id in thread_ids:
            looked_at += 1
            if taken := self._read(read, thread_id):
                waiting.append(taken)
                weight += taken.weight
            if weight >= _TOGETHER:
                self._take(waiting, take_one)
                yield looked_at
                waiting, weight, looked_at = [], 0, 0
        if waiting:
            self._take(waiting, take_one)
        yield looked_at

    def _read(self, read: Callable[[str], Taken | None], thread_id: str) -> Taken | None:
        try:
            return read(thread_id)
        except StorageFailed as error:
            if self.skip is None:
                raise
            self.skip(thread_id, error)
            return None

    def _take(self, waiting: list[Taken], take_one: Callable[[str], object]) -> None:
        with self.tables.changing():
            late = [taken for taken in waiting if not taken.take(self.tables)]
        for taken in waiting:
            if any(taken is one for one in late) or (isinstance(taken, _Lines) and not taken.state.is_whole):
                take_one(taken.thread_id)

    # Documents and lists.
    def _compared(self, thread_id: str) -> _Parts | _Gone | None:
        return self._compared_with(thread_id, self.tables.signatures(thread_id))

    def _compared_with(self, thread_id: str, known: Mapping[str, Signature]) -> _Parts | _Gone | None:
        """With what was *known* of it; ``None``: nothing has changed."""
        seen = signatures.look(self.source.root, thread_id, known)
        if seen is None:
            return self._gone(thread_id, known) if known else None
        if not _is_changed(known, seen):
            return None
        differing = {path for path, found in seen.items() if signatures.differs(known.get(path), found)}
        summary = None
        if META in differing or LOG in differing:
            summary = describing.summary(
                self.source, thread_id, seen[META], signatures.modified_ns(seen.values())
            )
        paths = {path: run_id for path in {*differing, *known} if (run_id := signatures.run_of(path))}
        runs = {
            run_id: describing.run_of(self.source, thread_id, run_id, seen[path]) if path in seen else None
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

    # Words.
    def _look_at_log(self, thread_id: str) -> None:
        with closing(self.source.open_log(thread_id)) as log:
            log.read(0, _AHEAD_BYTES)

    def _next_lines(self, thread_id: str) -> _Lines | None:
        """``None``: there are none that may be new, or there is no such thread, in the store or here."""
        before = self.tables.log(thread_id)
        if before is None and not self.tables.has_thread(thread_id):
            return None  # It has gone, and another one may have come that nobody has compared yet.
        known = LogState.of(before) if before is not None else None
        seen = signatures.look_at_log(self.source.root, thread_id)
        if known and known.is_whole and not signatures.differs(known.signature, seen):
            return None
        with suppress(ThreadNotFound, Damaged), closing(self.source.open_log(thread_id)) as log:
            begin = known if known and goes_on(log, known, seen) else LogState()
            state, messages = begin._replace(is_whole=False, signature=seen), []
            following = iter_lines(log.read, begin.size_bytes)
            for line, end in islice(following, _LINES_AT_ONCE):
                state = state.after(line, end)
                if text := text_of(line, state.lines, thread_id):
                    messages.append(text)
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
