"""Where loose files are: little in memory, and what the disk refuses leaves all as it was."""

from __future__ import annotations

import errno
import os
import tracemalloc
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from store import Thread, ThreadStore
from tests.nodes.driving import Programs, outcome
from threadfs.nodes.loose_files import LooseFile
from threadfs.nodes.root import root_of

MIB = 1 << 20


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    store = ThreadStore(tmp_path / "store")
    store.create_thread(Thread(id="T"))
    return Programs(root_of(store))


def made(programs: Programs, path: str) -> LooseFile:
    parent, _, name = path.rpartition("/")
    file = programs.directory(parent).make_file(name)
    assert isinstance(file, LooseFile)
    return file


def written(file: LooseFile, offset: int, data: bytes) -> str:
    return outcome(partial(file.write, offset, data))


@pytest.mark.parametrize(("directory", "files", "size"), [("drafts", 400, 200_000), ("threads/T", 200, MIB)])
def test_many_files_take_little_memory_and_few_descriptors(
    programs: Programs, directory: str, files: int, size: int
) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    tracemalloc.start()
    try:
        for number in range(files):
            made(programs, f"{directory}/tmp{number}").write(0, bytes(size))
        assert tracemalloc.get_traced_memory()[0] < 20 * MIB
    finally:
        tracemalloc.stop()
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1


def test_a_file_that_is_stretched_far_takes_neither_memory_nor_disk(programs: Programs) -> None:
    before = files_of_size(1 << 30)  # Of other tests, as long as nothing has collected them.
    tracemalloc.start()
    try:
        file = made(programs, "drafts/x")
        file.truncate(1 << 30)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()
    assert file.attributes().size_bytes == 1 << 30
    assert file.read((1 << 30) - 3, 100) == bytes(3)
    after = files_of_size(1 << 30)
    assert [blocks for identity, blocks in after.items() if identity not in before] == [0]


def files_of_size(size: int) -> dict[tuple[int, int], int]:
    """The blocks of the open files that have this size, by device and inode number."""
    found = {}
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # The one that read the listing.
            state = os.fstat(int(descriptor))
            if state.st_size == size:
                found[state.st_dev, state.st_ino] = state.st_blocks
    return found


class FullDisk:
    """Takes so many bytes more, and then half of what does not fit, as disks do."""

    def __init__(self, patch: pytest.MonkeyPatch, free: int) -> None:
        self.free = free
        self._pwrite = os.pwrite
        patch.setattr(os, "pwrite", self.write)

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        if not self.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._pwrite(descriptor, data[: self.free], offset)
        self.free -= written
        return written


@pytest.mark.parametrize("free", [0, 70_000, 900_000, 1_500_000, 3_000_000])
@pytest.mark.parametrize("directory", ["drafts", "threads/T"])
def test_a_full_disk_refuses_a_write_and_size_quota_and_contents_agree(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, directory: str, free: int
) -> None:
    disk = FullDisk(monkeypatch, free)
    file = made(programs, f"{directory}/tmp")
    kept = b""
    while written(file, len(kept), b"x" * 50_000) == "ok":
        kept += b"x" * 50_000
    assert len(kept) <= 3_100_000
    assert written(file, len(kept), b"x" * 50_000) == "ENOSPC"
    assert (file.size(), file.read(0, 10 * MIB)) == (len(kept), kept)
    disk.free = 100 * MIB
    file.write(len(kept) + 10, b"end")
    assert file.read(0, 10 * MIB) == kept + bytes(10) + b"end"


def test_what_was_refused_or_removed_is_counted_no_more(programs: Programs) -> None:
    size = 200 * MIB
    for free in (0, 10, 2 * MIB):
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(patch, free)
            file = made(programs, "threads/T/tmp")
            assert written(file, size - 1, b"x") == ("ENOSPC" if not free else "ok")
            assert written(file, size, b"x" * (3 * MIB)) == "ENOSPC"
            programs.unlink("threads/T/tmp")
    # 256 MiB fit at most.
    made(programs, "threads/T/tmp").truncate(250 * MIB)


def test_without_room_on_the_disk_small_files_are_kept_in_memory(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    FullDisk(monkeypatch, 0)
    programs.write("threads/T/.meta.json.tmp", b'{"metadata":{"kept":1}}')
    programs.rename("threads/T/.meta.json.tmp", "threads/T/meta.json")
    assert b'"kept": 1' in programs.read("threads/T/meta.json")
