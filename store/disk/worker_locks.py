"""The locks by which programs know which workers live: one file for each, in a directory of the store.

A worker holds an open-file-description lock on its file, which the kernel releases when the worker ends,
however it ends; a laptop that sleeps keeps it. To know whether it lives, others ask for the lock and do not
take it. The file tells about the worker, and which answers it is writing.

Source: "Open file description locks", https://man7.org/linux/man-pages/man2/fcntl_locking.2.html
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from store import names
from store.disk import files, paths
from store.disk.layout import WORKERS
from store.disk.paths import OpenedFile, opened, storage_errors
from store.disk.system_calls import SystemCalls
from store.errors import Damaged, StorageFailed
from store.waiting import waits
from store.working import GrowingAnswer, WorkerState

# l_type, l_whence, l_start, l_len, l_pid, of the whole file.
_FLOCK = struct.Struct("hhqqi4x")
_MAX_BYTES = 1 << 20
# A file is read again when it was read in the middle of a write.
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class LockFile:
    """What is in the file of a worker."""

    worker: str
    state: WorkerState
    answers: list[GrowingAnswer]


class OwnLock:
    """The lock of this program. Closing it is what others notice as the end of the worker."""

    def __init__(self, root: str, calls: SystemCalls) -> None:
        """Raises StorageFailed: the store cannot be written, or its file system has no such locks."""
        waits()
        self._calls = calls
        self._size = 0
        with opened(root) as store, storage_errors(WORKERS):
            assert store is not None
            with suppress(FileExistsError):
                calls.make_directory(store, WORKERS)
            directory = paths.open_directory(store, WORKERS)
            if directory is None:
                raise NotADirectoryError(errno.ENOTDIR, WORKERS)
            self._directory = directory
            try:
                while not self._has_locked():
                    pass  # Another program took the new file for that of a dead worker.
            except BaseException:
                os.close(self._directory)
                raise

    def _has_locked(self) -> bool:
        self.worker = names.new_worker_id()
        self._file = self._calls.create(self._directory, self.worker)
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _lock(fcntl.F_WRLCK))
            named = os.stat(self.worker, dir_fd=self._directory, follow_symlinks=False)
            if os.path.samestat(named, os.fstat(self._file)):
                return True
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            self._remove()
            os.close(self._file)
            raise
        os.close(self._file)
        return False

    def _remove(self) -> None:
        with suppress(OSError):
            self._calls.remove(self._directory, self.worker)

    def write(self, state: WorkerState, answers: list[GrowingAnswer]) -> None:
        """Tells about the worker, in place, so that others hardly see half of it. Not synced."""
        told = {**asdict(state), "answers": [answer[:3] for answer in answers]}
        data = json.dumps(told, ensure_ascii=False).encode() + b"\n"
        padded, self._size = data.ljust(self._size), len(data)
        with storage_errors(f"{WORKERS}/{self.worker}"):
            os.lseek(self._file, 0, os.SEEK_SET)
            files.write_all(self._calls, self._file, padded)
            if len(padded) > len(data):
                self._calls.truncate(self._file, len(data))

    def close(self, *, keeps_file: bool = False) -> None:
        """With *keeps_file*, others find there what the worker left."""
        if not keeps_file:
            self._remove()
        os.close(self._file)
        os.close(self._directory)


def _lock(kind: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0)


def lives(root: str, worker: str) -> bool:
    """Whether the worker holds its lock. Raises StorageFailed."""
    with _opened_lock(root, worker) as file:
        return file is not None and _is_held(file)


def _is_held(file: int) -> bool:
    """Whether a worker holds it; those who take it for that of a dead one share it."""
    with storage_errors(WORKERS):
        return bool(
            _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, _lock(fcntl.F_RDLCK)))[0] != fcntl.F_UNLCK
        )


def _open(root: str, worker: str) -> OpenedFile | None:
    with suppress(Damaged):  # Something else has the name.
        return paths.open_file(root, WORKERS, worker) if names.is_worker_id(worker) else None
    return None


@contextmanager
def _opened_lock(root: str, worker: str) -> Iterator[int | None]:
    """The file, for reading: closing one that was open for writing would look like the end of a worker."""
    found = _open(root, worker)
    try:
        yield None if found is None else found.descriptor
    finally:
        if found is not None:
            os.close(found.descriptor)


def living(root: str) -> list[LockFile]:
    """The workers that live, by id."""
    found = []
    for worker in _listed(root):
        with _opened_lock(root, worker) as file:
            if file is not None and _is_held(file):
                found.append(_read(file, worker))
    return found


def _listed(root: str) -> list[str]:
    waits()
    with opened(root, WORKERS) as directory, storage_errors(WORKERS):
        return sorted(filter(names.is_worker_id, os.listdir(directory))) if directory is not None else []


@contextmanager
def dead(root: str, calls: SystemCalls) -> Iterator[list[LockFile]]:
    """The workers whose file is left and who do not live. The files go at the end of a block that succeeds.

    Several programs may do this at once. A worker that is just beginning gives a file up that is taken here.
    """
    taken: dict[int, LockFile] = {}
    try:
        for worker in _listed(root):
            # One that cannot be opened, locked or read is not known to be dead.
            with suppress(StorageFailed):
                if (found := _open(root, worker)) is None:
                    continue
                try:
                    if _is_shared(found.descriptor):
                        taken[found.descriptor] = _read(found.descriptor, worker)
                finally:
                    if found.descriptor not in taken:
                        os.close(found.descriptor)
        yield list(taken.values())
        if taken:
            with opened(root, WORKERS) as directory, storage_errors(WORKERS):
                for file in taken.values():
                    if directory is not None:
                        with suppress(FileNotFoundError):
                            calls.remove(directory, file.worker)
    finally:
        for descriptor in taken:
            os.close(descriptor)


def _is_shared(file: int) -> bool:
    """Whether the lock could be taken together with others who look, which no worker that lives allows."""
    with storage_errors(WORKERS):
        try:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, _lock(fcntl.F_RDLCK))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
    return True


def _read(file: int, worker: str) -> LockFile:
    for _ in range(_ATTEMPTS):
        with storage_errors(f"{WORKERS}/{worker}"):
            data = os.pread(file, _MAX_BYTES, 0)
        # Whatever stands in it must not keep others from what this worker left.
        with suppress(ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return _parsed(worker, json.loads(data))
    return LockFile(worker, WorkerState(endpoint="", jobs=0, state="unknown"), [])


def _parsed(worker: str, told: dict[str, Any]) -> LockFile:
    state = WorkerState(
        str(told["endpoint"]), int(told["jobs"]), str(told["state"]), tuple(map(str, told["notes"]))
    )
    answers = [
        GrowingAnswer(thread_id, run_id, message_id, 0)
        for thread_id, run_id, message_id in told["answers"]
        if names.is_id(thread_id) and names.is_id(run_id) and names.is_id(message_id)
    ]
    return LockFile(worker, state, answers)
