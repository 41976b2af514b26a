"""Appending to a message log, durably, beside programs that take no lock.

Such a program writes a line and its newline with two calls. Our lines are never glued to its line, nor its
line to ours.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable

from store.disk import paths
from store.disk.layout import LOG
from store.disk.log import complete_size
from store.disk.paths import storage_errors
from store.disk.system_calls import SystemCalls
from store.documents import MAX_LINE_BYTES
from store.errors import Damaged
from store.messages import message_of
from store.waiting import waits

# A generous bound for what a line of the log holds besides the text of the message.
_LINE_BYTES = 512


def check_room(directory: int, thread_id: str, log_bytes: int | None, size_bytes: int) -> None:
    """Checks, as far as is known beforehand, that a message of *size_bytes* can be appended in *directory*.

    *log_bytes* is the size of the thread's log; ``None``: there is none yet.

    Raises:
        StorageFailed: the disk is read-only or full, or the directory or the log may not be written.
    """
    with storage_errors(f"{thread_id}/{LOG}"):
        disk = os.fstatvfs(directory)
        if disk.f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if not os.access("." if log_bytes is None else LOG, os.W_OK, dir_fd=directory):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        # The log may grow to the end of its last block whatever the disk has left.
        wanted_bytes = size_bytes + _LINE_BYTES - -(log_bytes or 0) % disk.f_frsize
        # Some disks do not tell how large they are.
        if disk.f_blocks and wanted_bytes > disk.f_bavail * disk.f_frsize:
            if os.geteuid():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            _try(directory, wanted_bytes)


def _try(directory: int, size_bytes: int) -> None:
    """Has the disk give room to a file without a name, which goes at once. Raises OSError.

    The superuser may use more than what is available to all, and less than what is free: ext4 keeps some
    blocks to itself, and counts them as free.
    """
    waits()
    try:
        file = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR):
            return  # This disk has no such files; what it says comes when the message is written.
        raise
    try:
        os.posix_fallocate(file, 0, size_bytes)
    finally:
        os.close(file)


class OpenLog:
    """A log that is appended to. One sync is for all that was written before it.

    For all methods but `sync`, the caller holds the thread's lock.
    """

    __slots__ = (
        "_calls",
        "_device",
        "_end",
        "_failure",
        "_ours",
        "_path",
        "_size",
        "_synced",
        "_syncing",
        "_thread_id",
        "_written",
        "file",
        "inode",
    )

    def __init__(self, calls: SystemCalls, directory: int, thread_id: str) -> None:
        """Opens the log of a thread, and makes it when it is missing.

        Raises:
            Damaged: something that is no regular file stands there.
            StorageFailed: it cannot be opened.
        """
        self._calls = calls
        self._thread_id = thread_id
        self._path = f"{thread_id}/{LOG}"
        with storage_errors(self._path):
            try:
                self.file = calls.open_for_appending(directory, LOG)
            except OSError as error:
                if error.errno in paths.NO_FILE:
                    raise Damaged(self._path, "not a regular file") from None
                raise
            try:
                status = os.fstat(self.file)
                paths.check_regular(status, self._path)
            except BaseException:
                os.close(self.file)
                raise
        self.inode, self._device = status.st_ino, status.st_dev
        # The size when it was last looked at.
        self._size = status.st_size
        # Where the log ends, and from where on all bytes are ours.
        self._end = self._ours = 0
        # How many appends were written, and how many of these are known to be on disk.
        self._written = self._synced = 0
        self._syncing = threading.Lock()
        self._failure: int | None = None

    @property
    def is_empty(self) -> bool:
        return self._size == 0

    def is_current(self, directory: int) -> bool:
        """Whether it still has its name in the thread, and no sync has failed. Looks at its size, too."""
        try:
            status = os.stat(LOG, dir_fd=directory, follow_symlinks=False)
        except OSError:
            return False
        if status.st_ino != self.inode or status.st_dev != self._device or self._failure is not None:
            return False
        self._size = status.st_size
        return True

    def append(self, lines: Iterable[bytes]) -> int:
        """Writes *lines*, each of which ends with a newline, with a call each. Returns what to `sync`."""
        self._end = self._ours = self._size
        with storage_errors(self._path):
            newline = b"\n" if self._is_torn(self._end) else b""
            try:
                for line in lines:
                    expected = self._end
                    start = self._write(newline + line)
                    if start != expected and not newline and self._is_torn(start):
                        # Another program's line got in between, without its newline, and ours is glued to it.
                        glued = self._line_before(start)
                        repeated = glued + b"\n" if message_of(glued, self._thread_id) else b""
                        self._write(b"\n" + repeated + line)
                    newline = b""
            except OSError:
                self.take_back()
                raise
        self._written += 1
        return self._written

    def _write(self, data: bytes) -> int:
        """Where *data* begins: not where the log ended, if another program was faster."""
        written = 0
        try:
            while written < len(data):
                written += self._calls.write(self.file, data[written:] if written else data)
        finally:
            if written:
                expected, self._end = self._end, os.lseek(self.file, 0, os.SEEK_CUR)
                if self._end - written != expected:
                    self._ours = self._end - written
        return self._end - len(data)

    def take_back(self) -> None:
        """Removes what was appended last, unless another program has written after it."""
        if self._end > self._ours and os.fstat(self.file).st_size == self._end:
            self._calls.truncate(self.file, self._ours)

    def _is_torn(self, at: int) -> bool:
        """Whether a line has not ended before *at*."""
        return at > 0 and os.pread(self.file, 1, at - 1) != b"\n"

    def _line_before(self, end: int) -> bytes:
        """The bytes between the last newline before *end* and *end*."""
        start = complete_size(self.file, end)
        return os.pread(self.file, min(end - start, MAX_LINE_BYTES + 1), start)

    def sync_all(self) -> None:
        """Returns when all that the log holds is on disk, also what other programs have appended.

        Raises:
            StorageFailed: it may or may not be on disk.
        """
        self._written += 1
        self.sync(self._written)

    def sync(self, number: int) -> None:
        """Returns when the append that returned *number* is on disk.

        While one thread syncs, others write; the next of these then syncs for all. A failed
        sync fails for all threads that use this open log, because the kernel reports it once:
        https://man7.org/linux/man-pages/man2/fsync.2.html

        Raises:
            StorageFailed: it may or may not be on disk.
        """
        with self._syncing, storage_errors(self._path):
            if self._synced >= number:
                return
            if self._failure is not None:
                raise OSError(self._failure, os.strerror(self._failure))
            written = self._written
            try:
                self._calls.sync(self.file)
            except OSError as error:
                self._failure = error.errno or errno.EIO
                raise
            self._synced = written
