"""An open that is answered ESTALE: the kernel looks the name up and opens again, which has to succeed."""

from __future__ import annotations

import errno
import os

import pyfuse3
import pytest

from store import DocumentKey, ThreadStore
from tests.adapter.kernel import Caller, Kernel
from tests.mount.conftest import wait_until
from threadfs.fuse import retried_opens

STATUS = "threads/T/runs/R/status"
REWRITE = os.O_WRONLY | os.O_TRUNC


def change(other: ThreadStore, kernel: Kernel, number: int, note: str) -> None:
    """Has another program change the document that *number* stands for, and the mount hear of it."""
    seen = kernel.operations.inodes[number].changes_seen
    other.patch_document(DocumentKey("T", "R"), {"note": note})
    wait_until(lambda: kernel.operations.inodes[number].changes_seen > seen)


def is_refused(kernel: Kernel, number: int, flags: int = os.O_RDONLY) -> bool:
    with pytest.raises(pyfuse3.FUSEError) as refused:
        kernel.open(number, flags)
    return refused.value.errno == errno.ESTALE


def is_cached(kernel: Kernel, number: int) -> bool:
    return not kernel.call(kernel.operations.open, number, os.O_RDONLY, Caller()).direct_io


def test_a_second_open_to_write_succeeds_though_other_programs_were_quicker_to_read(kernel: Kernel) -> None:
    number = kernel.number(STATUS)
    kernel.open(number)
    assert is_refused(kernel, number, REWRITE)
    again = kernel.number(STATUS)
    kernel.open(again)
    handle = kernel.open(again, REWRITE)
    kernel.call(kernel.operations.write, handle, 0, b'{"note": "written"}')
    assert b"written" in kernel.read(kernel.open(kernel.number(STATUS)))


def test_a_second_open_to_write_succeeds_though_the_name_led_to_another_number_by_then(
    kernel: Kernel, other: ThreadStore
) -> None:
    number = kernel.number(STATUS)
    kernel.open(number)
    change(other, kernel, number, "second")
    kernel.attributes(number)  # From now on the name leads to another number.
    kernel.open(kernel.number(STATUS))
    assert is_refused(kernel, number, REWRITE)  # Of a program that has looked the name up before.
    kernel.open(kernel.number(STATUS), REWRITE)


def test_a_second_open_to_read_succeeds_though_the_document_has_changed_again(
    kernel: Kernel, other: ThreadStore
) -> None:
    number = kernel.number(STATUS)
    kernel.open(number)
    change(other, kernel, number, "second")
    assert is_refused(kernel, number)
    again = kernel.number(STATUS)
    quicker = kernel.open(again)
    change(other, kernel, again, "third")
    assert b"third" in kernel.read(kernel.open(again))
    assert b"second" in kernel.read(quicker)


def test_a_document_is_cached_again_when_no_second_open_is_to_come_any_more(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = kernel.number(STATUS)
    assert is_cached(kernel, number)
    assert is_refused(kernel, number, REWRITE)
    assert not is_cached(kernel, kernel.number(STATUS))
    monkeypatch.setattr(retried_opens, "_COMES_WITHIN_S", 0)
    assert is_cached(kernel, kernel.number(STATUS))


def test_only_the_document_whose_open_was_refused_is_not_cached(kernel: Kernel) -> None:
    number = kernel.number(STATUS)
    kernel.open(number)
    assert is_refused(kernel, number, REWRITE)
    assert is_cached(kernel, kernel.number("threads/T/meta.json"))


def test_refused_opens_are_remembered_for_a_moment(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retried_opens, "_COMES_WITHIN_S", 0)
    retried = retried_opens.RetriedOpens()
    nodes = [kernel.operations.inodes[kernel.number(path)].node for path in ("threads", STATUS)]
    for node in nodes:
        retried.expect(node)
    assert list(retried._refused) == nodes[-1:]


def test_a_name_that_still_leads_to_a_version_of_before_is_looked_up_again(
    kernel: Kernel, other: ThreadStore
) -> None:
    number = kernel.number(STATUS)
    kernel.open(number)
    change(other, kernel, number, "second")
    kernel.attributes(number)  # From now on the name leads to another number.
    assert is_refused(kernel, number)
    assert b"second" in kernel.read(kernel.open(kernel.number(STATUS)))


def test_a_version_of_before_that_is_opened_by_its_descriptor_comes_again_and_is_served(
    kernel: Kernel, other: ThreadStore
) -> None:
    number = kernel.number(STATUS)
    before = kernel.read(kernel.open(number))
    change(other, kernel, number, "second")
    kernel.attributes(number)
    assert is_refused(kernel, number)
    assert kernel.read(kernel.open(number)) == before
