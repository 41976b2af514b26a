"""What a store's catalogue answers: what is in the store, by titles, days and words.

An answer is what the store says at that moment, or said within the last second. Whoever asks for what is not
known yet waits for the part that is needed: lists for titles, times and runs; searches for the words. All
methods read from a disk or a server, or wait for another thread that does; they may be called from many
threads at once, but not by a subscriber while it is told of a change. They raise nothing but StoreError.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from store.catalogue.queries import Query
from store.catalogue.values import Link

# How much of the work is done, and all of it.
Progress: TypeAlias = Callable[[int, int], None]


class Named(NamedTuple):
    """A thread by its name in a directory, and when it last changed, in nanoseconds since 1970.

    A later change that was forced on a run that has ended need not count.
    """

    name: str
    thread_id: str
    changed_ns: int


class Found(NamedTuple):
    """A message or title that holds what was asked for.

    *path* is the file of the thread where it stands, ``messages.jsonl`` or ``meta.json``, *line* the line of
    that, from 1 on; *role* is ``user``, ``assistant`` or ``title``; *created_at* is in seconds since 1970;
    *snippet* is a line of text, fit for a terminal.
    """

    thread_id: str
    line: int
    role: str
    created_at: int
    snippet: str
    path: str

    @property
    def place(self) -> str:
        """The file in a mount, and its line."""
        return f"threads/{self.thread_id}/{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Results:
    """What a query finds.

    *hits*, the newest first, and the number of further ones; *links*, the threads of all hits, that with the
    newest hit first, and the number of further ones. *is_bounded*: there are so many that not all messages
    were looked at: the numbers are at least these. Fewer links than may be are all, on a disk; in PostgreSQL
    they are those of the newest 20,000 hits at least.
    """

    hits: list[Found]
    links: list[Link]
    hits_left_out: int
    links_left_out: int
    is_bounded: bool = False


class Listed(NamedTuple):
    """A thread, or a run of one, for a list.

    *run_id* is ``None`` for a thread, which has the *status* and *model* of its newest run, or ``""``.
    *name* is what the thread is called; times are as in the store: seconds, and nanoseconds, since 1970.
    """

    thread_id: str
    run_id: str | None
    name: str
    status: str
    model: str
    created_at: int
    changed_ns: int


class Statistics(NamedTuple):
    """*words_behind*: threads whose words are not in the catalogue yet; *size_bytes*: of its file, or 0."""

    threads: int
    words_behind: int
    size_bytes: int


class Catalogue(Protocol):
    def titles(self) -> list[Named]:
        """All threads, in the order of their names; the names are told apart from each other."""
        ...

    def thread_called(self, name: str, day_s: int | None = None) -> str:
        """The id of the thread that a name leads to, among all or those of a day, which begins at *day_s*.

        Raises:
            ThreadNotFound: nobody is called so.
            Ambiguous: several are; a name with the id of a thread leads to one.
        """
        ...

    def days(self) -> list[int]:
        """The days (UTC) on which a thread was created: when each began, in seconds since 1970, upwards."""
        ...

    def created_on(self, day_s: int) -> list[Named]:
        """As `titles`, the threads of one day, told apart from each other."""
        ...

    def search(
        self,
        query: Query,
        limit: int = 1000,
        *,
        by_relevance: bool = False,
        with_hits: bool = True,
        with_links: bool = True,
    ) -> Results:
        """At most *limit* hits, and at most *limit* links.

        Older messages are not looked at when there are more hits, and as many links, already.

        Args:
            by_relevance: the hits that fit best come first, among the newest ones.
            with_hits: without, the list of hits is empty, and no message has to be read for its snippet.
            with_links: without, the list of links is empty, and no older messages are looked at for them.
        """
        ...

    def grep(self, pattern: re.Pattern[str], limit: int = 1000) -> Results:
        """As `search`, for messages and titles whose text has a match; all logs are read."""
        ...

    def threads(self) -> list[Listed]: ...
    def runs(self) -> list[Listed]: ...

    def changed_ns(self, thread_id: str) -> int:
        """When a thread last changed. Raises ThreadNotFound."""
        ...

    def statistics(self) -> Statistics:
        """What is known by now: this waits for nothing that is not known yet."""
        ...

    def unread(self) -> frozenset[str]:
        """The threads that could not be read: it says nothing of them, or what was so before."""
        ...

    def messages(self) -> int | None:
        """How many messages there are, but those of many threads whose words are being taken over.

        ``None`` where no words are kept: then it is not known.
        """
        ...

    def refresh(self, *, words: bool, progress: Progress | None = None) -> None:
        """Takes over all that has changed, with the *words*, as the next answer would."""
        ...

    def build_ahead(self) -> None:
        """From now on, what is much to take over is taken over in the background, beginning now.

        For a program that has other things to do meanwhile. What is not there yet when somebody asks is
        waited for, or read as it is.
        """
        ...

    def rebuild(self) -> None:
        """Forgets all, so that the next answer takes everything over anew."""
        ...

    def close(self) -> None: ...
