"""Takes over into a catalogue what a store on a disk says, reading only what has changed since.

`Cataloguing.compare` looks at the documents and lists of a thread, and `Cataloguing.index` at its log, for
the words in it: what looks as it did is not read. Several processes may do so at once. Each takes something
over only if the catalogue still says what it said when that was compared; if not, it compares again. So the
catalogue never says what was read before something that it said already.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Final, NamedTuple, Protocol

from store import documents, transitions
from store.api import DocumentKey, LogReader
from store.catalogue.catalogue import Catalogue
from store.catalogue.values import Kind, MessageText, RunSummary, Signature, ThreadSummary
from store.disk import signatures
from store.disk.layout import LOG, META
from store.errors import Damaged, InvalidDocument, NotFound, StorageFailed, ThreadNotFound
from store.lines import iter_lines, message_of
from store.models import MessageRole, Run, Thread, ThreadMessage

# Lines that are taken over at once: other processes that write wait for no more.
_LINES: Final = 100
# So much of a log that has grown is read, which takes about a millisecond, to see that nothing else has
# changed.
_READ_BYTES: Final = 1 << 20
# How often a thread is compared again that others take over meanwhile.
_ATTEMPTS: Final = 100
_DIGEST_BYTES: Final = 16


class Source(Protocol):
    """The store that is catalogued."""

    root: str

    def list_thread_ids(self) -> list[str]: ...
    def get_run(self, thread_id: str, run_id: str) -> Run: ...
    def read_document(self, key: DocumentKey) -> tuple[bytes, object]: ...
    def iter_messages(self, thread_id: str) -> Iterator[ThreadMessage]: ...
    def open_log(self, thread_id: str) -> LogReader: ...


class LogState(NamedTuple):
    """How far a log has been taken over: so many lines, which end at *size_bytes*.

    *digest* is that of all these lines, in a chain, and *last* that of the last one, which begins at
    *last_at*. *signature* is that of the log when it was read, and *is_whole* says that it was read to its
    end.
    """

    size_bytes: int = 0
    lines: int = 0
    digest: str = ""
    last_at: int = 0
    last: str = ""
    is_whole: bool = False
    signature: Signature = signatures.ABSENT

    @classmethod
    def of(cls, log: bytes) -> LogState:
        size_bytes, lines, digest, last_at, last, is_whole, signature = json.loads(log)
        return cls(size_bytes, lines, digest, last_at, last, is_whole, Signature(*signature))

    def as_bytes(self) -> bytes:
        return json.dumps(self).encode()

    def after(self, line: bytes, end: int) -> LogState:
        """With a further line, which ends at *end*."""
        digest = _digest(self.digest.encode() + b"\n" + line)
        return self._replace(
            size_bytes=end, lines=self.lines + 1, digest=digest, last_at=self.size_bytes, last=_digest(line)
        )


@dataclass(frozen=True, slots=True)
class Cataloguing:
    """All methods raise `Busy` when another process is writing, and StorageFailed when the disk fails."""

    source: Source
    catalogue: Catalogue

    def compare_all(self) -> None:
        """The documents and lists of all threads."""
        new = dict.fromkeys(self.source.list_thread_ids())
        changed = []
        for thread_id, known in self.catalogue.all_signatures():
            new.pop(thread_id, None)
            if _is_changed(known, signatures.look(self.source.root, thread_id, known)):
                changed.append(thread_id)
        for thread_id in [*changed, *new]:
            self.compare(thread_id)

    def index_all(self) -> None:
        """The words of all threads that are in the catalogue."""
        without = self.catalogue.threads_without_words()
        for thread_id in [*without, *({*self.catalogue.thread_ids()} - {*without})]:
            self.index(thread_id)

    def compare(self, thread_id: str) -> bool:
        """Takes over a thread's title, times and runs; whether there was anything that may have changed."""
        return self._until_taken(thread_id, lambda: self._compare(thread_id))

    def index(self, thread_id: str) -> None:
        """Takes over the words of a thread that is in the catalogue."""
        while self._until_taken(thread_id, lambda: self._index(thread_id)):
            pass

    def _until_taken(self, thread_id: str, take: Callable[[], bool | None]) -> bool:
        """Calls *take* until it is not ``None``: then another process was faster."""
        for _ in range(_ATTEMPTS):
            if (was_taken := take()) is not None:
                return was_taken
        raise StorageFailed(errno.EBUSY, thread_id, "other processes keep taking it over")

    # Documents and lists.
    def _compare(self, thread_id: str) -> bool | None:
        known = self.catalogue.signatures(thread_id)
        seen = signatures.look(self.source.root, thread_id, known)
        if seen is None:
            return self._remove(thread_id) if known else False
        if not _is_changed(known, seen):
            return False
        differing = {path for path, found in seen.items() if signatures.differs(known.get(path), found)}
        gone = known.keys() - seen.keys()
        changed_ns = signatures.modified_ns(seen.values())
        is_renamed = META in differing or LOG in differing
        summary = self._summary(thread_id, seen[META], changed_ns) if is_renamed else None
        runs = {
            run_id: self._run(thread_id, run_id, seen[path])
            for path in differing
            if (run_id := signatures.run_of(path))
        }
        runs |= {run_id: None for path in gone if (run_id := signatures.run_of(path))}
        with self.catalogue.changing():
            if self.catalogue.signatures(thread_id) != known:
                return None
            if summary is not None:
                self.catalogue.put_thread(summary)
            self.catalogue.set_changed(thread_id, changed_ns)
            for run_id, run in runs.items():
                if run is None:
                    self.catalogue.remove_run(thread_id, run_id)
                else:
                    self.catalogue.put_run(thread_id, run)
            self.catalogue.put_signatures(thread_id, {path: seen[path] for path in differing}, gone)
        return True

    def _remove(self, thread_id: str) -> bool | None:
        with suppress(NotFound, Damaged):
            # This fails where the whole store is away: then nothing in it has gone.
            self.source.read_document(DocumentKey(thread_id))
            return None
        with self.catalogue.changing():
            self.catalogue.remove_thread(thread_id)
        return True

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
    def _index(self, thread_id: str) -> bool | None:
        """Whether there is more to come."""
        before = self.catalogue.log(thread_id)
        known = LogState.of(before) if before is not None else None
        seen = signatures.look_at_log(self.source.root, thread_id)
        if known and known.is_whole and not signatures.differs(known.signature, seen):
            return False
        try:
            with closing(self.source.open_log(thread_id)) as log:
                is_new, state, messages = self._read(thread_id, log, known, seen)
        except ThreadNotFound:
            return False  # It is gone, which is seen when it is compared.
        with self.catalogue.changing():
            if self.catalogue.log(thread_id) != before:
                return None
            if is_new and known is not None:
                self.catalogue.remove_messages(thread_id)
            self.catalogue.add_messages(thread_id, messages, state.as_bytes())
        return not state.is_whole

    def _read(
        self, thread_id: str, log: LogReader, known: LogState | None, seen: Signature
    ) -> tuple[bool, LogState, list[MessageText]]:
        """The next lines: whether they are the first ones, the state after them, the messages in them."""
        begin = known if known and _goes_on(log, known, seen) else LogState()
        state, messages = begin._replace(is_whole=False, signature=seen), []
        following = iter_lines(log.read, begin.size_bytes)
        for line, end in islice(following, _LINES):
            state = state.after(line, end)
            if message := message_of(line, thread_id):
                kind = Kind.USER if message.role is MessageRole.user else Kind.ASSISTANT
                messages.append(MessageText(state.lines, kind, message.created_at, message.text))
        if next(following, None) is None:
            state = state._replace(is_whole=True)
        return begin.lines == 0, state, messages


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


def _goes_on(log: LogReader, known: LogState, seen: Signature) -> bool:
    """Whether a log begins with the lines that were taken over.

    One that is long and has only grown, or of which more is to come, is known by its last line; any other
    is read.
    """
    has_grown = seen.inode == known.signature.inode and seen.size_bytes > known.signature.size_bytes
    is_same = not signatures.differs(known.signature, seen)
    if (has_grown and known.size_bytes > _READ_BYTES) or (is_same and not known.is_whole):
        line = log.read(known.last_at, known.size_bytes - known.last_at)
        return not known.lines or _digest(line.removesuffix(b"\n")) == known.last
    state = LogState()
    for line, end in islice(iter_lines(log.read), known.lines):
        state = state.after(line, end)
    return (state.size_bytes, state.digest) == (known.size_bytes, known.digest)


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
