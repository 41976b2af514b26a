"""Odd offsets, holes, sizes, mappings, fallocate, for every file that can be written: nothing changes."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from store.documents import MAX_DOCUMENT_BYTES
from tests.mount.conftest import Mount
from tests.mount.unchanged import CONTROLS, DOCUMENTS, STORED, WRITABLE, refusal, unchanged


@pytest.fixture
def thread(shared_mount: Mount) -> Iterator[Path]:
    with unchanged(shared_mount) as found:
        yield found


@pytest.mark.parametrize("at", [1, 7, 30])
@pytest.mark.parametrize("name", ["meta.json", "status", "step"])
def test_a_piece_that_breaks_the_document_is_refused(thread: Path, name: str, at: int) -> None:
    assert refusal(thread / DOCUMENTS[name], b"}\x00{", at=at, flags=0) == "EINVAL"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_with_a_hole_is_refused(thread: Path, name: str) -> None:
    assert refusal(thread / DOCUMENTS[name], b'{"metadata":1}', at=10) == "EINVAL"


@pytest.mark.parametrize("at", [1, 5, 200, 100_000])
@pytest.mark.parametrize("flags", [0, os.O_TRUNC])
def test_a_write_into_or_beyond_the_log_is_refused(thread: Path, at: int, flags: int) -> None:
    assert refusal(thread / "messages.jsonl", b'{"role":"user"}\n', at=at, flags=flags) == "EPERM"


@pytest.mark.parametrize("name", STORED)
def test_truncate_to_any_size_but_its_own_or_none_is_refused(thread: Path, name: str) -> None:
    path, expected = thread / STORED[name], errno.EPERM if name == "messages.jsonl" else errno.EINVAL
    size = path.stat().st_size
    for wrong in [*range(1, size), size + 1, size + 4096, MAX_DOCUMENT_BYTES + 1, 1 << 50]:
        with pytest.raises(OSError, match=os.strerror(expected)):
            os.truncate(path, wrong)
    os.truncate(path, size)
    os.truncate(path, 0)
    assert path.stat().st_size == size


@pytest.mark.parametrize("name", STORED)
def test_ftruncate_to_any_size_but_its_own_is_refused_by_the_time_of_fsync(thread: Path, name: str) -> None:
    path = thread / STORED[name]
    size = path.stat().st_size
    for wrong in [*range(1, size, 3), size + 1, size + 4096]:
        file = os.open(path, os.O_RDWR)
        with pytest.raises(OSError, match=r"Invalid argument|not permitted"):  # noqa: PT012
            os.ftruncate(file, wrong)
            os.fsync(file)
        with suppress(OSError):  # It says so again.
            os.close(file)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_file_is_cut_to_nothing_only(thread: Path, name: str) -> None:
    os.truncate(thread / CONTROLS[name], 0)
    for size in (1, 4096, 1 << 40):
        with pytest.raises(OSError, match="Invalid argument"):
            os.truncate(thread / CONTROLS[name], size)


@pytest.mark.parametrize("name", STORED)
def test_read_and_write_in_one_open_reads_what_is_stored(thread: Path, name: str) -> None:
    path = thread / STORED[name]
    with path.open("r+b") as file:
        assert file.read() == path.read_bytes()


@pytest.mark.parametrize("name", STORED)
def test_a_shared_writable_mapping_is_refused(thread: Path, name: str) -> None:
    with (thread / STORED[name]).open("r+b") as file, pytest.raises(OSError, match="No such device"):
        mmap.mmap(file.fileno(), 10, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.mark.parametrize("name", STORED)
def test_a_mapping_for_reading_shows_what_is_stored(thread: Path, name: str) -> None:
    path = thread / STORED[name]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:] == path.read_bytes()


@pytest.mark.parametrize("options", ["", "-n", "-p", "-z", "-c", "-i"])
@pytest.mark.parametrize("name", [*STORED, *CONTROLS])
def test_fallocate_is_refused(thread: Path, name: str, options: str) -> None:
    command = ["fallocate", *options.split(), "-l", "4096", str(thread / WRITABLE[name])]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "unsupported" in result.stderr or "not supported" in result.stderr, result
    assert result.returncode == 1


@pytest.mark.parametrize("name", STORED)
def test_fallocate_as_the_c_library_imitates_it_is_refused(thread: Path, name: str) -> None:
    file = os.open(thread / STORED[name], os.O_WRONLY)
    with pytest.raises(OSError, match=r"Invalid argument|not permitted"):  # noqa: PT012
        os.posix_fallocate(file, 0, 8192)
        os.fsync(file)
    with suppress(OSError):  # It says so again.
        os.close(file)


def test_what_fsync_refuses_close_refuses_too(mount: Mount) -> None:
    status = mount.run("queued") / "status"
    before = status.read_bytes()
    file = os.open(status, os.O_WRONLY | os.O_TRUNC)
    os.write(file, b'{"metadata": {')
    with pytest.raises(OSError, match="Invalid argument"):
        os.fsync(file)
    with pytest.raises(OSError, match="Invalid argument"):
        os.close(file)
    assert status.read_bytes() == before


def test_a_temporary_file_that_has_gone_cannot_be_opened_again(mount: Mount) -> None:
    name = mount.run("queued") / ".goutputstream-ABC"
    name.write_text("{")
    file = os.open(name, os.O_PATH)
    try:
        name.unlink()
        with pytest.raises(OSError, match="No such file"):
            os.open(f"/proc/self/fd/{file}", os.O_RDONLY)
    finally:
        os.close(file)


def test_a_control_file_that_is_read_and_written_at_once_keeps_its_time(mount: Mount) -> None:
    say = mount.path("threads", "Trip to Oslo", "say")
    with say.open() as reader:
        before = os.fstat(reader.fileno()).st_mtime
        say.write_text("hello")
        os.utime(say.parent)
        assert os.fstat(reader.fileno()).st_mtime == before > 0


def test_a_step_that_is_created_to_be_read_alone_is_not_there(mount: Mount) -> None:
    step = mount.run("queued") / "steps" / "new.json"
    with pytest.raises(FileNotFoundError):
        os.open(step, os.O_RDONLY | os.O_CREAT)
    assert not step.exists()
    step.write_text('{"type": "tool_calls"}')
    assert step.exists()
