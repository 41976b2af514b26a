"""Threads as notes: a Markdown file each, in a directory that later exports bring up to date.

    ---
    title: "Trip to Oslo"
    created: 2026-11-28T10:00:00Z
    updated: 2026-11-28T10:05:00Z
    source: "chatgpt"
    id: "chatgpt-68a0…"
    ---
    # Trip to Oslo
    …                              as in transcripts/

A note is found again by the ``id`` in its head, whatever it is called. Other files are never touched: a note
whose name they have gets another one. Notes are written aside and renamed: each is one version or the other.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from store import Store
from store.disk.files import is_leftover, temporary_name
from threadfs.exporting.front_matter import front_matter, id_in, title_of
from threadfs.exporting.note_names import SUFFIX, compared, day_of, note_name
from threadfs.nodes.transcripts import Transcript

NEW, CHANGED, UNCHANGED = "new", "changed", "unchanged"

_PIECE_BYTES = 1 << 20


class NameTaken(Exception):
    """Another file has the name of the note, and the name that it would get instead."""


class Notes:
    """The notes in an open directory; nobody else changes them meanwhile."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        # The names of the notes by the id in each, and of all files as systems that ignore case compare them.
        self._names: dict[str, str] = {}
        self._taken: set[str] = set()
        for entry in os.scandir(directory):
            if is_leftover(entry.name, is_file=False):
                os.unlink(entry.name, dir_fd=directory)  # An export was killed.
                continue
            self._taken.add(compared(entry.name))
            if entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
                with suppress(OSError), self._reading(entry.name) as file:
                    if note_id := id_in(file):
                        self._names.setdefault(note_id, entry.name)

    def update(self, store: Store, thread_id: str) -> str:
        """Brings the note of a thread up to date: it was NEW, CHANGED or UNCHANGED.

        Raises:
            ThreadNotFound: the thread is gone.
            StoreError: the thread cannot be read.
            NameTaken: there is no name for it.
            OSError: the note cannot be written; the old one stays.
        """
        thread = store.get_thread(thread_id)
        rendered = Transcript(thread_id)
        rendered.update(store)
        title = title_of(store, thread)
        head = front_matter(thread, title, rendered.latest_s).encode()
        old = self._names.get(thread_id)
        name = self._name(old, day_of(thread.created_at), title, thread_id)
        if old is not None and old != name:
            self._rename(old, name)
        self._names[thread_id] = name
        self._taken.add(compared(name))
        if old is not None and self._has(name, head, rendered):
            return UNCHANGED if old == name else CHANGED
        self._write(name, head, rendered)
        return NEW if old is None else CHANGED

    def _name(self, old: str | None, day: str, title: str, thread_id: str) -> str:
        """The name of a note, which keeps the one that it has while that says the same."""
        wanted = note_name(day, title, thread_id)
        marked = note_name(day, title, thread_id, is_taken=True)
        if old in (wanted, marked):
            return old
        for name in (wanted, marked):
            if old and compared(name) == compared(old):
                return name
            if compared(name) not in self._taken and not self._exists(name):
                return name
        raise NameTaken(marked)

    def _exists(self, name: str) -> bool:
        """Whether another program has made a file of that name meanwhile."""
        with suppress(FileNotFoundError):
            os.lstat(name, dir_fd=self._directory)
            return True
        return False

    def _rename(self, old: str, name: str) -> None:
        os.rename(old, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._taken.discard(compared(old))

    def _has(self, name: str, head: bytes, rendered: Transcript) -> bool:
        """Whether a note holds this already."""
        with self._reading(name) as file:
            if os.fstat(file.fileno()).st_size != len(head) + rendered.size_bytes:
                return False
            return file.read(len(head)) == head and all(
                file.read(len(piece)) == piece for piece in _pieces(rendered)
            )

    def _write(self, name: str, head: bytes, rendered: Transcript) -> None:
        temporary = temporary_name()
        try:
            with open(temporary, "xb", opener=self._opener) as file:
                file.write(head)
                for piece in _pieces(rendered):
                    file.write(piece)
                file.flush()
                with suppress(FileNotFoundError):
                    os.fchmod(file.fileno(), stat.S_IMODE(os.stat(name, dir_fd=self._directory).st_mode))
                # A file that is renamed before it is on disk is empty after a power cut.
                os.fsync(file.fileno())
            os.rename(temporary, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except BaseException as error:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=self._directory)
            if isinstance(error, OSError):
                error.filename = name
            raise

    def _reading(self, name: str) -> IO[bytes]:
        return open(name, "rb", opener=self._opener)

    def _opener(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666, dir_fd=self._directory)


@contextmanager
def notes_in(directory: str) -> Iterator[Notes]:
    """The notes in *directory*, which is made if it is missing. Waits while another export writes there.

    Raises:
        OSError: it is no directory, or cannot be read.
    """
    with suppress(FileExistsError):
        os.makedirs(directory)
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # Some network file systems lock no directory.
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield Notes(opened)
    finally:
        os.close(opened)


def _pieces(rendered: Transcript) -> Iterator[bytes]:
    for offset in range(0, rendered.size_bytes, _PIECE_BYTES):
        yield rendered.read(offset, _PIECE_BYTES)
