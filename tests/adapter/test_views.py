"""`by-title/`, `by-date/` and `search/`: what the kernel may keep of them, and who waits for whom."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyfuse3
import pytest
import trio

from store import ThreadStore
from store.catalogue.api import Results
from tests.adapter.kernel import Caller, Kernel, Token
from threadfs.fuse.kernel_cache import WATCHED_S

STRANGER = Caller(uid=12345)
FOREVER_S = 20


@dataclass
class Gate:
    """Searches wait here until it opens."""

    is_open: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: int = 0
    most_waiting: int = 0
    searches: int = 0

    def pass_through(self) -> None:
        with self.lock:
            self.searches += 1
            self.waiting += 1
            self.most_waiting = max(self.waiting, self.most_waiting)
        assert self.is_open.wait(FOREVER_S)
        with self.lock:
            self.waiting -= 1


@pytest.fixture
def gate(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Gate:
    made = Gate()
    catalogue = kernel.operations.tree.store.catalogue()
    search: Callable[..., Results] = catalogue.search

    def slow_search(*arguments: Any, **named: Any) -> Results:
        made.pass_through()
        return search(*arguments, **named)

    monkeypatch.setattr(catalogue, "search", slow_search)
    monkeypatch.setattr(kernel.operations.tree.store, "catalogue", lambda: catalogue)
    return made


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(FOREVER_S):
        while not condition():
            await trio.sleep(0.001)


def test_the_kernel_keeps_the_names_at_the_top_and_nothing_else_of_the_views(kernel: Kernel) -> None:
    for path in ("by-title", "by-date", "search"):
        assert kernel.lookup(path).entry_timeout == WATCHED_S
        assert kernel.attributes(kernel.number(path)).attr_timeout == 0
    for path in ("by-title/T", "search/x", "search/x/hits.txt"):
        entry = kernel.lookup(path)
        attributes = kernel.attributes(entry.st_ino)
        assert (entry.entry_timeout, entry.attr_timeout, attributes.attr_timeout) == (0, 0, 0)
    listed = kernel.entries(kernel.call(kernel.operations.opendir, kernel.number("by-title"), Caller()))
    assert [told[1:] for name, told, _ in listed if name == b"T"] == [(0, 0)]


def test_a_lookup_gives_a_placeholder_and_a_question_for_attributes_the_truth(kernel: Kernel) -> None:
    entry = kernel.lookup("search/x")
    assert entry.st_mtime_ns == 0
    assert kernel.attributes(entry.st_ino).st_mtime_ns > 0


def test_while_a_search_waits_all_else_is_answered(kernel: Kernel, gate: Gate, other: ThreadStore) -> None:
    number, titles = kernel.number("search/x"), kernel.number("by-title")
    operations: Any = kernel.operations

    async def requests() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(operations.getattr, number, Caller())
            await until(lambda: gate.waiting == 1)
            for _ in range(2):
                await operations.lookup(pyfuse3.ROOT_INODE, b"threads", Caller())
                await operations.getattr(titles, Caller())
                await operations.lookup(number, b"hits.txt", Caller())
                handle = await operations.opendir(titles, Caller())
                await operations.readdir(handle, 0, Token(10))
            assert gate.waiting == 1
            gate.is_open.set()

    trio.run(requests)


def test_whoever_mounted_searches_a_few_times_at_once(kernel: Kernel, gate: Gate) -> None:
    numbers = [kernel.number(f"search/x{number}") for number in range(20)]
    operations: Any = kernel.operations

    async def requests() -> None:
        async with trio.open_nursery() as nursery:
            for number in numbers:
                nursery.start_soon(operations.getattr, number, Caller())
            await until(lambda: gate.waiting == 4)
            nursery.start_soon(operations.getattr, numbers[0], STRANGER)
            for _ in range(9):
                await operations.lookup(pyfuse3.ROOT_INODE, b"threads", Caller())
            gate.is_open.set()

    trio.run(requests)
    assert gate.most_waiting <= 4 + 1
    assert gate.searches >= 20


def test_other_users_search_one_after_the_other_and_nobody_else_waits_for_them(
    kernel: Kernel, gate: Gate
) -> None:
    numbers = [kernel.number(f"search/x{number}") for number in range(4)]
    operations: Any = kernel.operations

    async def requests() -> None:
        async with trio.open_nursery() as nursery:
            for number in numbers[:3]:
                nursery.start_soon(operations.getattr, number, STRANGER)
            await until(lambda: gate.waiting == 1)
            nursery.start_soon(operations.getattr, numbers[3], Caller())
            await until(lambda: gate.waiting == 2)
            gate.is_open.set()

    trio.run(requests)
    assert (gate.most_waiting, gate.searches) == (2, 4)


def test_of_very_many_searches_by_other_users_the_last_are_refused(kernel: Kernel, gate: Gate) -> None:
    numbers = [kernel.number(f"search/x{number}") for number in range(9)]
    operations: Any = kernel.operations
    refused: list[int] = []

    async def ask(number: int) -> None:
        try:
            await operations.getattr(number, STRANGER)
        except pyfuse3.FUSEError as error:
            refused.append(error.errno)
            gate.is_open.set()

    async def requests() -> None:
        async with trio.open_nursery() as nursery:
            for number in numbers:
                nursery.start_soon(ask, number)

    trio.run(requests)
    assert refused == [errno.EAGAIN]
    assert gate.searches == 8
