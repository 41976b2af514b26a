"""What the shim saves: the kernel keeps listings, and sends no FLUSH for what was only read."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from store import Run, Thread, ThreadStore
from tests.mount.conftest import Mount, checked_mount, wait_until


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with checked_mount(tmp_path_factory.mktemp("shim")) as mounted:
        yield mounted


def stats(mount: Mount) -> dict[str, int]:
    lines = mount.path(".threadfs", "stats").read_text().splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)}


def requests(mount: Mount, action: Callable[[], object]) -> int:
    """How many requests *action* causes."""
    before = stats(mount)["operations"]
    looks = stats(mount)["operations"] - before
    before = stats(mount)["operations"]
    action()
    return stats(mount)["operations"] - before - looks


def walk(mount: Mount) -> None:
    subprocess.run(["ls", "-lR", mount.path("threads")], check=True, stdout=subprocess.DEVNULL)


def test_it_is_in_effect(mount: Mount) -> None:
    assert stats(mount)["shim"] == 1


def test_it_is_not_in_effect_where_it_is_switched_off(tmp_path: Path) -> None:
    with checked_mount(tmp_path, "-o", "noshim") as mounted:
        assert stats(mounted)["shim"] == 0
        walk(mounted)
        assert requests(mounted, lambda: walk(mounted)) > 0


def test_a_walk_sends_no_request_after_two_others(mount: Mount) -> None:
    for _ in range(2):  # The second one asks for the times of directories that the first one has read.
        walk(mount)
    ends = stats(mount)["ends_by_shim"]
    assert requests(mount, lambda: walk(mount)) == 0
    assert stats(mount)["ends_by_shim"] == ends


def test_the_end_of_a_listing_is_answered_without_python_also_of_an_empty_one(mount: Mount) -> None:
    before = stats(mount)["ends_by_shim"]
    empty = mount.path("threads", "without runs")
    empty.mkdir()
    assert os.listdir(empty / "runs") == []
    assert stats(mount)["ends_by_shim"] == before + 1


def test_reading_a_document_again_is_answered_without_python(mount: Mount) -> None:
    status = mount.run("queued") / "status"
    for _ in range(2):  # The second one asks for the time of reading, which the first one has changed.
        status.read_bytes()
    before = stats(mount)["opens_by_shim"]
    assert requests(mount, lambda: [status.read_bytes() for _ in range(10)]) == 0
    assert stats(mount)["opens_by_shim"] == before + 10


def test_a_reader_whose_open_the_shim_answered_keeps_its_version(mount: Mount) -> None:
    run = mount.run("queued")
    status = run / "status"
    with status.open("rb") as first, status.open("rb") as second, status.open("rb") as third:
        before, answered = first.read(), stats(mount)["opens_by_shim"]
        ThreadStore(mount.store).cancel_run(run.parent.parent.name, run.name)
        wait_until(lambda: json.loads(status.read_bytes())["status"] == "cancelled")
        for reader in (first, second, third):  # Their pages are asked for again, so by the handle.
            os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            reader.seek(0)
        assert second.read() == third.read() == before
        first.close()
        second.close()
        os.posix_fadvise(third.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        third.seek(0)
        assert third.read() == before
    assert json.loads(status.read_bytes())["status"] == "cancelled"
    assert answered > 0


def test_a_document_is_asked_for_again_after_each_change(mount: Mount) -> None:
    run = mount.run("in_progress")
    for number in range(20):
        fields = {**json.loads((run / "status").read_bytes()), "metadata": {"number": str(number)}}
        (run / "status").write_text(json.dumps(fields))
        for _ in range(3):
            assert json.loads((run / "status").read_bytes()) == fields


def test_all_who_poll_a_document_hear_of_a_change_also_if_the_shim_has_answered_their_opens(
    mount: Mount,
) -> None:
    run = mount.run("in_progress")
    with ExitStack() as stack:
        polls = [select.poll() for _ in range(3)]
        for poll in polls:
            poll.register(stack.enter_context((run / "status").open("rb")), select.POLLPRI)
            assert poll.poll(0) == []
        (run / "cancel").write_text("cancel\n")
        assert all(poll.poll(10_000) for poll in polls)


def test_a_walk_after_a_change_lists_what_has_changed_and_nothing_else(mount: Mount) -> None:
    store = ThreadStore(mount.store)
    store.create_thread(Thread(id="quiet"))
    store.create_thread(Thread(id="busy"))
    wait_until(lambda: {"quiet", "busy"} <= set(os.listdir(mount.path("threads"))))
    for _ in range(3):
        walk(mount)
    looks = requests(mount, lambda: os.listdir(mount.path("threads", "quiet", "runs")))
    store.create_run("busy", Run(id="R"))
    wait_until(lambda: os.listdir(mount.path("threads", "busy", "runs")) == ["R"])
    # The mount's own calls, for whoever watches, are over.
    wait_until(lambda: requests(mount, lambda: time.sleep(0.2)) == 0)
    assert looks == requests(mount, lambda: os.listdir(mount.path("threads", "quiet", "runs"))) == 0


def test_what_a_view_lists_is_asked_for_each_time(mount: Mount) -> None:
    titles = mount.path("by-title")
    for _ in range(2):
        os.listdir(titles)
    assert requests(mount, lambda: os.listdir(titles)) > 0
