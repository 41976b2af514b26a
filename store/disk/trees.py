"""Whole directories, which appear in one step and go in one step."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

from store.disk import files, paths
from store.disk.durable_names import DurableNames
from store.disk.layout import Parts
from store.disk.paths import storage_errors
from store.disk.system_calls import SystemCalls
from store.errors import AlreadyExists, Damaged, StoreError
from store.waiting import waits

# The contents of a new directory: bytes, or pieces of bytes, are files; mappings are directories.
Contents: TypeAlias = dict[str, "bytes | Iterator[bytes] | Contents"]


def create(
    calls: SystemCalls,
    durable: DurableNames,
    parent: int,
    parts: Parts,
    contents: Contents,
    modified_ns: int | None = None,
) -> None:
    """Makes a thread or a run, which *parts* lead to; an empty directory of its name is taken over.

    With *modified_ns*, that is the time of all that is in it, but not of the directory itself.

    Raises:
        AlreadyExists: the name is taken.
    """
    waits()
    with (
        storage_errors(_called(parts)),
        made_aside(calls, parent, contents, modified_ns) as temporary,
    ):
        put_in_place(calls, durable, parent, temporary, parts)


def _called(parts: Parts) -> str:
    return f"{'thread' if len(parts) == 1 else 'run'} {parts[-1]}"


def put_in_place(
    calls: SystemCalls, durable: DurableNames, parent: int, temporary: str, parts: Parts
) -> None:
    """Gives a directory that was `made_aside` its name, durably.

    Raises:
        AlreadyExists: the name is taken.
        OSError.
    """
    try:
        # Fails, atomically, unless the name is free or an empty directory.
        calls.rename(parent, temporary, parent, parts[-1])
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ENOTEMPTY):
            raise AlreadyExists("thread" if len(parts) == 1 else "run", parts[-1]) from None
        raise
    durable.made(parts, parent)


@contextmanager
def made_aside(
    calls: SystemCalls, parent: int, contents: Contents, modified_ns: int | None = None
) -> Iterator[str]:
    """A synced directory under a temporary name in *parent*; a block that fails leaves none."""
    temporary = files.temporary_name()
    try:
        _write(calls, parent, temporary, contents, modified_ns)
        yield temporary
    except BaseException:
        with suppress(OSError):
            remove(calls, parent, temporary)
        raise


def _write(calls: SystemCalls, parent: int, name: str, contents: Contents, modified_ns: int | None) -> None:
    """A new directory *name* with its contents, synced; its own name is not."""
    calls.make_directory(parent, name)
    child = os.open(name, paths.DIRECTORY, dir_fd=parent)
    try:
        for entry, content in contents.items():
            if isinstance(content, dict):
                _write(calls, child, entry, content, modified_ns)
                if modified_ns is not None:
                    calls.set_modified(child, entry, modified_ns)
            else:
                pieces = (content,) if isinstance(content, bytes) else content
                files.write_new(calls, child, entry, pieces, modified_ns=modified_ns)
        calls.sync(child)
    finally:
        os.close(child)


def ensure_directory(calls: SystemCalls, durable: DurableNames, parent: int, parts: Parts) -> int:
    """The directory that *parts* lead to, made in *parent* when it is missing, for the caller to close.

    Its name is durable, also if another program has made it.

    Raises:
        Damaged: something else has the name.
    """
    with storage_errors("/".join(parts)):
        with suppress(FileExistsError):
            calls.make_directory(parent, parts[-1])
            durable.forget(parts)
        directory = paths.open_directory(parent, parts[-1])
        if directory is None:
            raise Damaged("/".join(parts), "not a directory")
        try:
            durable.sync_if_unknown(parts, os.fstat(directory).st_ino)
        except BaseException:
            os.close(directory)
            raise
    return directory


def delete(
    calls: SystemCalls, parent: int, name: str, path: str, check: Callable[[int, str], None] | None
) -> None:
    """Deletes a directory; readers see all of it or nothing.

    *check*, if any, is called with the parent and the directory's new name, under which no other program
    finds it and adds to it. If it raises a `StoreError`, the directory gets its old name back.
    """
    with storage_errors(path):
        deleted = files.temporary_name(files.DELETED)
        calls.rename(parent, name, parent, deleted)
        try:
            if check is not None:
                check(parent, deleted)
            calls.sync(parent)
        except (OSError, StoreError):
            # The new name is not durable, so no file may be removed: a power cut could bring back half.
            with suppress(OSError):
                calls.rename(parent, deleted, parent, name)
                calls.sync(parent)
            raise
        # It is gone. Files that cannot be removed are left for maintenance.
        with suppress(OSError):
            remove(calls, parent, deleted)


def remove(calls: SystemCalls, parent: int, name: str) -> None:
    """Removes a directory and all in it, without following links; what is missing already is fine."""
    with suppress(FileNotFoundError):
        child = os.open(name, paths.DIRECTORY, dir_fd=parent)
        try:
            with os.scandir(child) as entries:
                found = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries]
            for entry, is_directory in found:
                if is_directory:
                    remove(calls, child, entry)
                else:
                    with suppress(FileNotFoundError):
                        calls.remove(child, entry)
        finally:
            os.close(child)
        calls.remove_directory(parent, name)
