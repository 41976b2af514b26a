"""Every call that changes the disk, in one small place, so that a test can record or fail each of them.

All take directories as open descriptors and single names, never paths: nothing here can follow a path
out of the store.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress


class SystemCalls:
    """The calls themselves. A test hands the store a subclass of its own."""

    def create(self, directory: int, name: str, replaced: os.stat_result | None = None) -> int:
        """A new file, open for writing; fails if the name is taken.

        It gets the mode and, as far as this user may, the owner of the file that it is to replace.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, flags, 0o644, dir_fd=directory)
        if replaced is None:
            _give_away(file, directory)
        else:
            _keep_permissions(file, replaced)
        return file

    def open_for_appending(self, directory: int, name: str) -> int:
        """The file, made when it is missing. Never waits for the other end of a FIFO."""
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        while True:
            with suppress(FileNotFoundError):
                return os.open(name, flags, dir_fd=directory)
            with suppress(FileExistsError):  # Somebody else has made it since.
                file = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=directory)
                _give_away(file, directory)
                return file

    def write(self, file: int, data: bytes) -> int:
        return os.write(file, data)

    def truncate(self, file: int, size: int) -> None:
        os.ftruncate(file, size)

    def sync(self, file_or_directory: int) -> None:
        try:
            os.fsync(file_or_directory)
        except OSError as error:
            # Some file systems, such as read-only ones, cannot sync a directory.
            if error.errno != errno.EINVAL or not stat.S_ISDIR(os.fstat(file_or_directory).st_mode):
                raise

    def make_directory(self, directory: int, name: str) -> None:
        os.mkdir(name, 0o755, dir_fd=directory)
        if os.geteuid() == 0:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            with suppress(FileNotFoundError):
                made = os.open(name, flags, dir_fd=directory)
                try:
                    _give_away(made, directory)
                finally:
                    os.close(made)

    def rename(self, directory: int, name: str, new_directory: int, new_name: str) -> None:
        os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory)

    def remove(self, directory: int, name: str) -> None:
        os.unlink(name, dir_fd=directory)

    def remove_directory(self, directory: int, name: str) -> None:
        os.rmdir(name, dir_fd=directory)

    def set_modified(self, directory: int, name: str, modified_ns: int) -> None:
        os.utime(name, ns=(modified_ns, modified_ns), dir_fd=directory, follow_symlinks=False)


def _give_away(made: int, directory: int) -> None:
    """Gives a file that root made to the directory's owner, as which the server may run."""
    if os.geteuid() == 0:
        owner, new = os.fstat(directory), os.fstat(made)
        if new.st_uid == 0 != owner.st_uid:
            with suppress(OSError):  # Not on each file system.
                os.fchown(made, owner.st_uid, owner.st_gid)


def _keep_permissions(file: int, replaced: os.stat_result) -> None:
    new, mode = os.fstat(file), replaced.st_mode & 0o777
    is_owned_alike = new.st_uid == replaced.st_uid and new.st_gid == replaced.st_gid
    if is_owned_alike and stat.S_IMODE(new.st_mode) == mode:
        return
    with suppress(OSError):  # Not on each file system.
        if os.geteuid() == 0:
            os.fchown(file, replaced.st_uid, replaced.st_gid)
        os.fchmod(file, mode)
