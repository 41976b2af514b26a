"""Text that JSON cannot hold, in every store: refused, or written so that it can be read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from store import (
    ContentBlock,
    InvalidDocument,
    RunStep,
    Store,
    Thread,
)
from tests.store.conftest import (
    THREAD,
    make_run,
    make_thread,
    message,
    nested,
)

UNWRITABLE = {
    "NaN": float("nan"),
    "Infinity": float("-inf"),
    "half of a surrogate pair": "\ud800",
    "half of a surrogate pair as a key": {"\udfff": 1},
    "no JSON": {1, 2},
    "bytes": b"x",
    "an endless integer": 10**5000,
    "100,000 lists": nested(100_000, "list"),
    "100,000 objects": nested(100_000, "object"),
    "600 lists, more than 1,000 frames": nested(600, "list"),
}
# Nesting that may be written or refused, but not crash.
MAY_BE_WRITTEN = {"600 lists, more than 1,000 frames"}


def refused_or_written(name: str, call: Callable[[], object]) -> bool:
    """Whether *call* was refused, as it must be unless *name* may be written."""
    try:
        call()
    except InvalidDocument:
        return True
    assert name in MAY_BE_WRITTEN
    return False


@pytest.mark.parametrize("name", UNWRITABLE)
def test_a_thread_that_is_not_json_is_refused_and_not_made(store: Store, name: str) -> None:
    thread = Thread(id="T").model_copy(update={"metadata": UNWRITABLE[name]})
    if refused_or_written(name, lambda: store.create_thread(thread)):
        assert store.list_thread_ids() == []


@pytest.mark.parametrize("name", UNWRITABLE)
def test_a_message_that_is_not_json_is_refused_and_not_appended(store: Store, name: str) -> None:
    make_thread(store)
    image = ContentBlock(type="image_file").model_copy(update={"text": UNWRITABLE[name]})
    bad = message().model_copy(update={"content": [image]})
    if refused_or_written(name, lambda: store.append_message("T", bad)):
        assert store.list_messages("T") == []
        assert store.log_info("T").size_bytes == 0


@pytest.mark.parametrize("name", UNWRITABLE)
def test_a_step_that_is_not_json_is_refused_and_not_made(store: Store, name: str) -> None:
    make_run(store)
    step = RunStep(id="S").model_copy(update={"error": UNWRITABLE[name]})
    if refused_or_written(name, lambda: store.append_step("T", "R", step)):
        assert store.list_step_ids("T", "R") == []


@pytest.mark.parametrize("name", UNWRITABLE)
def test_a_patch_that_is_not_json_is_refused_and_changes_nothing(store: Store, name: str) -> None:
    make_thread(store)
    before = store.read_document(THREAD)
    if refused_or_written(name, lambda: store.patch_document(THREAD, {"metadata": UNWRITABLE[name]})):
        assert store.read_document(THREAD) == before
