"""Taking over what the store says.

All that changes stands within `Tables.changing`: whole or not at all, and another process sees it only
then. One that takes over many threads goes by the time of their creation: words that come in the order of
their numbers cost least.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from struct import Struct
from typing import Final, TypeAlias

from store.catalogue import schema
from store.catalogue.folding import folded
from store.catalogue.lists import Lists
from store.catalogue.names import name_of
from store.catalogue.values import Kind, MessageText, RunSummary, Signature, ThreadSummary


class Busy(Exception):
    """Another process writes; what was to be taken over is compared later."""


# A path in a thread with the numbers of its `Signature`, in that order.
Seen: TypeAlias = tuple[str, tuple[int, ...]]
# (thread id, paths, numbers, of_lists), as they are stored: nothing, if nothing was seen of it.
SeenOfThread: TypeAlias = tuple[str, str, bytes, int]

NUMBERS: Final = Struct("<qqQqq")


class Tables(Lists):
    """A catalogue in a database with the tables of `schema`. One thread at a time may use it."""

    def __init__(self, connection: sqlite3.Connection, *, has_words: bool = True) -> None:
        super().__init__(connection)
        self.has_words = has_words
        # Within a change, which no other process makes meanwhile: the number after the last one of each day.
        self._following: dict[int, int] | None = None
        # How often runs were put here or removed by this process.
        self._runs_written = 0

    def copied(self) -> Tables:
        """All but the words, in memory."""
        copy = Tables(schema.in_memory(), has_words=False)
        for table in ("threads", "runs", "signatures"):
            rows = self.connection.execute(f"SELECT * FROM {table}").fetchall()
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                copy.connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        return copy

    @contextmanager
    def reading(self) -> Iterator[None]:
        """All that is read meanwhile is of one moment."""
        self.connection.execute("BEGIN")
        try:
            yield
        finally:
            self.connection.execute("COMMIT")

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Raises Busy, and sqlite3.Error when the disk fails or is full; nothing has changed then."""
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            self._numbers, self._following = {}, {}
            yield
            self.connection.execute("COMMIT")
        except BaseException as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error) and schema.is_busy(error):
                raise Busy from None
            raise
        finally:
            self._numbers = self._following = None

    # Threads.
    def put_thread(self, thread: ThreadSummary) -> None:
        """A new thread, or one that has changed; its messages and runs stay as they are."""
        name = name_of(thread.id, thread.title, thread.said_first)
        values = (name, thread.title, thread.created_at, thread.changed_ns)
        number = self._find(thread.id)
        if number is None:
            number = self.connection.execute(
                "INSERT INTO threads (name, title, created_at, changed_ns, id) VALUES (?, ?, ?, ?, ?)",
                (*values, thread.id),
            ).lastrowid
            assert number is not None
            if self._numbers is not None:
                self._numbers[thread.id] = number
        else:
            if self._has_title(number, thread):
                self.connection.execute(
                    "UPDATE threads SET name = ?, changed_ns = ? WHERE number = ?",
                    (name, thread.changed_ns, number),
                )
                return
            self._remove_title(number)
            self.connection.execute(
                "UPDATE threads SET name = ?, title = ?, created_at = ?, changed_ns = ? WHERE number = ?",
                (*values, number),
            )
        if thread.title:
            title = MessageText(thread.title_line, Kind.TITLE, thread.created_at, thread.title)
            self._add_texts(number, [title])

    def remove_thread(self, thread_id: str, texts: Sequence[MessageText] | None = None) -> None:
        """Nothing if there is none. *texts*: as in `remove_messages`."""
        if (number := self._find(thread_id)) is None:
            return
        self._runs_written += 1
        self._remove_title(number)
        self._remove_messages(number, texts)
        self.connection.execute("DELETE FROM runs WHERE thread = ?", (number,))
        self.connection.execute("DELETE FROM signatures WHERE thread = ?", (number,))
        self.connection.execute("DELETE FROM threads WHERE number = ?", (number,))
        if self._numbers is not None:
            self._numbers[thread_id] = None

    def set_changed(self, thread_id: str, changed_ns: int) -> None:
        self.connection.execute("UPDATE threads SET changed_ns = ? WHERE id = ?", (changed_ns, thread_id))

    # The words of messages.
    def add_messages(
        self, thread_id: str, messages: Iterable[MessageText], log: bytes, whole: Signature | None = None
    ) -> None:
        """Further messages of a thread. *log* is what the caller wants to know of the log by then, to
        compare; *whole* its signature, if these were the last ones.

        Raises:
            ThreadNotFound: there is no such thread here.
        """
        number = self._number(thread_id)
        self._add_texts(number, messages)
        seen = whole[:3] if whole and whole.is_settled else (None, None, None)
        self.connection.execute(
            "UPDATE threads SET log = ?, log_changed_ns = ?, log_size_bytes = ?, log_inode = ?"
            " WHERE number = ?",
            (log, *seen, number),
        )

    def remove_messages(self, thread_id: str, texts: Sequence[MessageText] | None = None) -> None:
        """All of a thread. With *texts*, as they were added, their words go with them; else they are dead.

        Raises:
            ThreadNotFound: there is no such thread here.
        """
        self._remove_messages(self._number(thread_id), texts)

    def remove_words_after(self, thread_id: str, line: int, texts: Iterable[MessageText], log: bytes) -> None:
        """Takes the words of a thread's messages after a *line* out: *texts*, as they were added.

        *log* is what is known of the log up to there. The texts count as dead, as the bytes of their words
        may be in the file until it is made anew.

        Raises:
            ThreadNotFound: there is no such thread here.
        """
        after = (self._number(thread_id), Kind.TITLE, line)
        where = "thread = ? AND kind != ? AND line > ?"
        said = {text.line: text.text for text in texts}
        found = self.connection.execute(f"SELECT number, line FROM texts WHERE {where}", after).fetchall()
        self._remove_words([(number, said[at]) for number, at in found if at in said])
        self.connection.execute(f"UPDATE texts SET thread = 0 WHERE {where}", after)
        self.connection.execute(
            "UPDATE threads SET log = ?, log_changed_ns = NULL WHERE number = ?", (log, after[0])
        )

    def log(self, thread_id: str) -> bytes | None:
        """What was known of the log when its messages were added; ``None``: they are not here yet."""
        found = self.connection.execute("SELECT log FROM threads WHERE id = ?", (thread_id,)).fetchone()
        return found[0] if found else None

    def logs(self, thread_ids: Iterable[str]) -> dict[str, tuple[int, int, int]]:
        """The ctime, size and inode of the logs whose words are here, of some threads; without those that had
        changed so shortly before that they may be others."""
        found = self.connection.execute(
            "SELECT id, log_changed_ns, log_size_bytes, log_inode FROM threads"
            " WHERE log_changed_ns IS NOT NULL AND id IN (SELECT value FROM json_each(?))",
            (json.dumps([*thread_ids]),),
        )
        return {thread_id: (changed_ns, size, inode) for thread_id, changed_ns, size, inode in found}

    def threads_behind(self) -> list[str]:
        """Those whose log may not be the one whose words are here.

        The oldest first, as they are best added.
        """
        found = self.connection.execute(
            "SELECT id FROM threads LEFT JOIN signatures AS seen ON thread = number"
            " WHERE threads.log_changed_ns IS NULL OR threads.log_changed_ns IS NOT seen.log_changed_ns"
            " OR threads.log_size_bytes IS NOT seen.log_size_bytes"
            " OR threads.log_inode IS NOT seen.log_inode ORDER BY created_at, id"
        )
        return [thread_id for (thread_id,) in found]

    # Runs.
    def version_of_runs(self) -> tuple[int, int]:
        """Another one whenever anything about runs is, or another process has written anything."""
        (others,) = self.connection.execute("PRAGMA data_version").fetchone()
        return others, self._runs_written

    def put_run(self, thread_id: str, run: RunSummary) -> None:
        """Raises ThreadNotFound."""
        self._runs_written += 1
        self.connection.execute(
            "INSERT OR REPLACE INTO runs (thread, id, status, model, created_at, changed_ns)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (self._number(thread_id), run.id, run.status, run.model, run.created_at, run.changed_ns),
        )

    def remove_run(self, thread_id: str, run_id: str) -> None:
        """Raises ThreadNotFound."""
        self._runs_written += 1
        of_run = (self._number(thread_id), run_id)
        self.connection.execute("DELETE FROM runs WHERE thread = ? AND id = ?", of_run)

    # What was looked at.
    def signatures(self, thread_id: str) -> dict[str, Signature]:
        """Of what was read of a thread, by its path in it; nothing of a thread that is not here."""
        found = self.connection.execute(
            "SELECT paths, numbers FROM threads JOIN signatures ON number = thread WHERE id = ?", (thread_id,)
        ).fetchone()
        return _signatures(*found) if found else {}

    def signatures_of(self, thread_ids: Iterable[str]) -> dict[str, dict[str, Signature]]:
        """As `signatures`, of some threads, without those that are not here."""
        return {one: _signatures(paths, numbers) for one, paths, numbers in self.seen_of(thread_ids)}

    def seen_of(self, thread_ids: Iterable[str]) -> list[tuple[str, str, bytes]]:
        """(thread id, paths, numbers) of some threads, as they are stored, for `seen`."""
        return self.connection.execute(
            "SELECT id, paths, numbers FROM threads JOIN signatures ON number = thread"
            " WHERE id IN (SELECT value FROM json_each(?)) ORDER BY number",
            (json.dumps([*thread_ids]),),
        ).fetchall()

    def logs_looked_at(self, thread_ids: Iterable[str]) -> list[tuple[str, int, int, int]]:
        """(thread id, ctime, size, inode) of the logs of some threads when these were looked at."""
        return self.connection.execute(
            "SELECT id, seen.log_changed_ns, seen.log_size_bytes, seen.log_inode"
            " FROM threads JOIN signatures AS seen ON thread = number"
            " WHERE seen.log_changed_ns IS NOT NULL AND id IN (SELECT value FROM json_each(?))",
            (json.dumps([*thread_ids]),),
        ).fetchall()

    def all_signatures(self) -> Iterator[SeenOfThread]:
        """What was seen of all threads. Nothing may be changed before the last one."""
        return self.connection.execute(
            "SELECT id, coalesce(paths, ''), coalesce(numbers, x''), coalesce(of_lists, 0)"
            " FROM threads LEFT JOIN signatures ON number = thread ORDER BY number"
        )

    def put_signatures(
        self, thread_id: str, seen: Mapping[str, Signature], of_lists: int, log: Signature | None
    ) -> None:
        """All that was seen of a thread; by the first ones, *of_lists*, go lists of runs that have not ended.

        Raises:
            ThreadNotFound: there is no such thread here.
        """
        numbers = b"".join([NUMBERS.pack(*signature) for signature in seen.values()])
        self.connection.execute(
            "INSERT OR REPLACE INTO signatures VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                self._number(thread_id),
                "\0".join(seen),
                numbers,
                of_lists,
                *(log[:3] if log else (None, None, None)),
            ),
        )

    def _add_texts(self, thread: int, texts: Iterable[MessageText]) -> None:
        if not self.has_words:
            return
        following = {} if self._following is None else self._following
        rows, words = [], []
        for text in texts:
            number = self._next_number(schema.first_number(text.created_at), following)
            rows.append((number, thread, text.kind, text.line, text.created_at))
            words.append((number, folded(text.text)))
        self.connection.executemany("INSERT INTO texts VALUES (?, ?, ?, ?, ?)", rows)
        self.connection.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", words)

    def _next_number(self, first: int, following: dict[int, int]) -> int:
        """A number for a text of a day that begins with the *first* one."""
        if first not in following:
            following[first] = self._following_number(first)
        if following[first] == schema.after_day(first):
            # A day that is full goes on in the next one, where its hits are only nearly in their order.
            return self._next_number(schema.after_day(first), following)
        following[first] += 1
        return following[first] - 1

    def _following_number(self, first: int) -> int:
        """The number after the last one of a day, also of texts that are gone: their words are there."""
        found = self.connection.execute(
            "SELECT max(number) FROM texts WHERE number >= ? AND number < ?", (first, schema.after_day(first))
        ).fetchone()[0]
        return first if found is None else int(found) + 1

    def _has_title(self, thread: int, wanted: ThreadSummary) -> bool:
        """Whether the title that is here is the wanted one, with its place and time."""
        found = self.connection.execute(
            "SELECT title, threads.created_at, coalesce(line, 1) FROM threads"
            " LEFT JOIN texts ON thread = threads.number AND kind = ? WHERE threads.number = ?",
            (Kind.TITLE, thread),
        ).fetchone()
        return bool(found == (wanted.title, wanted.created_at, wanted.title_line if wanted.title else 1))

    def _remove_title(self, thread: int) -> None:
        found = self.connection.execute(
            "SELECT texts.number, title FROM texts JOIN threads ON threads.number = thread"
            " WHERE thread = ? AND kind = ?",
            (thread, Kind.TITLE),
        ).fetchone()
        if found:
            self._remove_texts([found])

    def _remove_messages(self, thread: int, texts: Sequence[MessageText] | None) -> None:
        numbers = self.connection.execute(
            "SELECT line, number FROM texts WHERE thread = ? AND kind != ? ORDER BY line",
            (thread, Kind.TITLE),
        ).fetchall()
        if texts is not None and [text.line for text in texts] == [line for line, _ in numbers]:
            self._remove_texts(
                [(number, text.text) for (_, number), text in zip(numbers, texts, strict=True)]
            )
        else:
            self.connection.execute(
                "UPDATE texts SET thread = 0 WHERE thread = ? AND kind != ?", (thread, Kind.TITLE)
            )
        self.connection.execute(
            "UPDATE threads SET log = NULL, log_changed_ns = NULL WHERE number = ?", (thread,)
        )

    def _remove_words(self, numbered: Iterable[tuple[int, str]]) -> None:
        if self.has_words:
            self.connection.executemany(
                "INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)",
                [(number, folded(text)) for number, text in numbered],
            )

    def _remove_texts(self, numbered: Sequence[tuple[int, str]]) -> None:
        self._remove_words(numbered)
        self.connection.executemany(
            "DELETE FROM texts WHERE number = ?", [(number,) for number, _ in numbered]
        )


def seen(paths: str, numbers: bytes, first: int = -1) -> Iterator[Seen]:
    """What was seen of a thread, or the *first* things of it."""
    these = paths.split("\0") if first < 0 else paths.split("\0", first)[:first]
    return zip(these, NUMBERS.iter_unpack(numbers), strict=first < 0)


def _signatures(paths: str, numbers: bytes) -> dict[str, Signature]:
    return {
        path: Signature(changed_ns, size_bytes, inode, modified_ns, bool(is_settled))
        for path, (changed_ns, size_bytes, inode, modified_ns, is_settled) in seen(paths, numbers)
    }
