"""When a thread was changed, and the space there is, in every store."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from store import (
    Run,
    RunStatus,
    RunStep,
    RunStepStatus,
    Store,
)
from tests.store.conftest import (
    LONG_AGO_NS,
    STEP,
    STEP_DOCUMENT,
    THREAD,
    make_step,
    make_thread,
    message,
)

CHANGES: dict[str, Callable[[Store], object]] = {
    "patch": lambda s: s.patch_document(THREAD, {"a": 1}),
    "append_message": lambda s: s.append_message("T", message()),
    "create_run": lambda s: s.create_run("T", Run()),
    "update_run_status": lambda s: s.update_run_status("T", "R", RunStatus.completed),
    "cancel_run": lambda s: s.cancel_run("T", "R"),
    "delete_run": lambda s: s.delete_run("T", "R", force=True),
    "append_step": lambda s: s.append_step("T", "R", RunStep()),
    "update_step_status": lambda s: s.update_step_status("T", "R", "S", RunStepStatus.failed),
    "replace a step": lambda s: s.replace_document(STEP, STEP_DOCUMENT),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_in_a_thread_is_a_change_of_the_thread(store: Store, change: str) -> None:
    make_step(store)
    before_ns = store.thread_modified_ns("T")
    # The clock of a disk goes in ticks of up to 10 ms.
    while time.time_ns() < before_ns + 25_000_000:
        time.sleep(0.005)
    CHANGES[change](store)
    assert before_ns < store.thread_modified_ns("T") <= time.time_ns()


def test_reading_is_no_change_of_the_thread(store: Store) -> None:
    make_step(store)
    store.append_message("T", message())
    before_ns = store.thread_modified_ns("T")
    store.list_messages("T")
    store.list_steps("T", "R")
    assert store.thread_modified_ns("T") == before_ns


def test_a_thread_that_holds_nothing_was_changed_when_its_document_was(store: Store) -> None:
    make_thread(store)
    store.set_document_modified(THREAD, LONG_AGO_NS)
    assert store.thread_modified_ns("T") == LONG_AGO_NS


def test_the_space_of_the_store_is_known(store: Store) -> None:
    space = store.space()
    assert space.f_blocks >= space.f_bfree >= 0
