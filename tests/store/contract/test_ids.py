"""Ids, in every method of every store: bad ones are refused, any other text is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from store import (
    DocumentKey,
    InvalidName,
    NotFound,
    Run,
    RunContents,
    RunNotFound,
    RunStatus,
    RunStep,
    RunStepNotFound,
    RunStepStatus,
    Store,
    Thread,
    ThreadNotFound,
)
from tests.store.conftest import (
    LONG_AGO_NS,
    META,
    RUN_DOCUMENT,
    STEP_DOCUMENT,
    make_run,
    make_step,
    make_thread,
    message,
    texts,
)

Call: TypeAlias = Callable[[Store, str], object]


def close(store: Store, thread_id: str) -> None:
    store.open_log(thread_id).close()


# Every method that takes an id of a thread, a run and a step; each gets one in its place.

CREATE_THREAD: dict[str, Call] = {
    "create_thread": lambda s, i: s.create_thread(Thread().model_copy(update={"id": i})),
    "import_thread": lambda s, i: s.import_thread(i, META, [], {}),
}
WITH_THREAD: dict[str, Call] = {
    "get_thread": lambda s, i: s.get_thread(i),
    "delete_thread": lambda s, i: s.delete_thread(i),
    "delete_thread(force)": lambda s, i: s.delete_thread(i, force=True),
    "delete_thread(only_empty)": lambda s, i: s.delete_thread(i, only_empty=True),
    "thread_modified_ns": lambda s, i: s.thread_modified_ns(i),
    "thread_touched_ns": lambda s, i: s.thread_touched_ns(i),
    "extend_thread": lambda s, i: s.extend_thread(i, 0, [], {}),
    "append_message": lambda s, i: s.append_message(i, message()),
    "list_messages": lambda s, i: s.list_messages(i),
    "iter_messages": lambda s, i: list(s.iter_messages(i)),
    "log_info": lambda s, i: s.log_info(i),
    "open_log": close,
    "set_log_modified": lambda s, i: s.set_log_modified(i, LONG_AGO_NS),
    "create_run": lambda s, i: s.create_run(i, Run()),
    "list_run_ids": lambda s, i: s.list_run_ids(i),
    "document_info": lambda s, i: s.document_info(DocumentKey(i)),
    "read_document": lambda s, i: s.read_document(DocumentKey(i)),
    "replace_document": lambda s, i: s.replace_document(DocumentKey(i), META),
    "patch_document": lambda s, i: s.patch_document(DocumentKey(i), {"a": 1}),
    "set_document_modified": lambda s, i: s.set_document_modified(DocumentKey(i), LONG_AGO_NS),
}
IN_THREAD: dict[str, Call] = {
    "get_run": lambda s, i: s.get_run(i, "R"),
    "delete_run": lambda s, i: s.delete_run(i, "R"),
    "update_run_status": lambda s, i: s.update_run_status(i, "R", RunStatus.failed),
    "force_update_run_status": lambda s, i: s.force_update_run_status(i, "R", RunStatus.failed),
    "cancel_run": lambda s, i: s.cancel_run(i, "R"),
    "append_step": lambda s, i: s.append_step(i, "R", RunStep()),
    "get_step": lambda s, i: s.get_step(i, "R", "S"),
    "list_steps": lambda s, i: s.list_steps(i, "R"),
    "list_step_ids": lambda s, i: s.list_step_ids(i, "R"),
    "update_step_status": lambda s, i: s.update_step_status(i, "R", "S", RunStepStatus.failed),
    "document_info of a run": lambda s, i: s.document_info(DocumentKey(i, "R")),
    "read_document of a step": lambda s, i: s.read_document(DocumentKey(i, "R", "S")),
    "replace_document of a run": lambda s, i: s.replace_document(DocumentKey(i, "R"), RUN_DOCUMENT),
    "replace_document of a step": lambda s, i: s.replace_document(DocumentKey(i, "R", "S"), STEP_DOCUMENT),
    "patch_document of a run": lambda s, i: s.patch_document(DocumentKey(i, "R"), {"a": 1}),
    "set_document_modified of a step": lambda s, i: s.set_document_modified(DocumentKey(i, "R", "S"), 1),
}
CREATE_RUN: dict[str, Call] = {
    "create_run": lambda s, i: s.create_run("T", Run().model_copy(update={"id": i})),
    "import_thread": lambda s, i: s.import_thread("I", META, [], {i: RunContents(RUN_DOCUMENT)}),
}
WITH_RUN: dict[str, Call] = {
    "get_run": lambda s, i: s.get_run("T", i),
    "delete_run": lambda s, i: s.delete_run("T", i),
    "delete_run(force)": lambda s, i: s.delete_run("T", i, force=True),
    "delete_run(only_empty)": lambda s, i: s.delete_run("T", i, only_empty=True),
    "update_run_status": lambda s, i: s.update_run_status("T", i, RunStatus.failed),
    "force_update_run_status": lambda s, i: s.force_update_run_status("T", i, RunStatus.failed),
    "cancel_run": lambda s, i: s.cancel_run("T", i),
    "append_step": lambda s, i: s.append_step("T", i, RunStep()),
    "list_steps": lambda s, i: s.list_steps("T", i),
    "list_step_ids": lambda s, i: s.list_step_ids("T", i),
    "document_info": lambda s, i: s.document_info(DocumentKey("T", i)),
    "read_document": lambda s, i: s.read_document(DocumentKey("T", i)),
    "replace_document": lambda s, i: s.replace_document(DocumentKey("T", i), RUN_DOCUMENT),
    "replace_document of a step": lambda s, i: s.replace_document(DocumentKey("T", i, "S"), STEP_DOCUMENT),
    "patch_document": lambda s, i: s.patch_document(DocumentKey("T", i), {"a": 1}),
    "set_document_modified": lambda s, i: s.set_document_modified(DocumentKey("T", i), LONG_AGO_NS),
}
IN_RUN: dict[str, Call] = {
    "get_step": lambda s, i: s.get_step("T", i, "S"),
    "update_step_status": lambda s, i: s.update_step_status("T", i, "S", RunStepStatus.failed),
    "document_info of a step": lambda s, i: s.document_info(DocumentKey("T", i, "S")),
    "read_document of a step": lambda s, i: s.read_document(DocumentKey("T", i, "S")),
    "patch_document of a step": lambda s, i: s.patch_document(DocumentKey("T", i, "S"), {"a": 1}),
}
CREATE_STEP: dict[str, Call] = {
    "append_step": lambda s, i: s.append_step("T", "R", RunStep().model_copy(update={"id": i})),
    "replace_document": lambda s, i: s.replace_document(DocumentKey("T", "R", i), STEP_DOCUMENT),
    "import_thread": lambda s, i: s.import_thread(
        "I", META, [], {"R": RunContents(RUN_DOCUMENT, {i: STEP_DOCUMENT})}
    ),
}
WITH_STEP: dict[str, Call] = {
    "get_step": lambda s, i: s.get_step("T", "R", i),
    "update_step_status": lambda s, i: s.update_step_status("T", "R", i, RunStepStatus.failed),
    "document_info": lambda s, i: s.document_info(DocumentKey("T", "R", i)),
    "read_document": lambda s, i: s.read_document(DocumentKey("T", "R", i)),
    "patch_document": lambda s, i: s.patch_document(DocumentKey("T", "R", i), {"a": 1}),
    "set_document_modified": lambda s, i: s.set_document_modified(DocumentKey("T", "R", i), LONG_AGO_NS),
}


def calls(**groups: dict[str, Call]) -> list[Any]:
    return [
        pytest.param(call, id=f"{group}-{name}")
        for group, named in groups.items()
        for name, call in named.items()
    ]


BAD_IDS = [
    "",
    ".",
    "..",
    ".x",
    ".tmpAB12cd",
    "/",
    "a/b",
    "/etc",
    "../T",
    "T/../T",
    "T/",
    "a@b",
    "@",
    "a" * 128,
    "é" * 64,
    "a" * 5000,
    "\0",
    "a\0b",
    "a\nb",
    "\t",
    "a\x1f",
    "\x7f",
    "\x85",
    "\ud800",
    "a\udcff",
]


@pytest.fixture(scope="module")
def shared() -> dict[int, Store]:
    """The store of the tests that leave everything as it is, made once."""
    return {}


@pytest.mark.parametrize(
    "call",
    calls(
        thread=CREATE_THREAD | WITH_THREAD | IN_THREAD,
        run=CREATE_RUN | WITH_RUN | IN_RUN,
        step=CREATE_STEP | WITH_STEP,
    ),
)
def test_a_bad_id_is_refused_in_every_spelling_and_changes_nothing(store: Store, call: Call) -> None:
    make_step(store)
    store.append_message("T", message())
    wrong = []
    for bad_id in BAD_IDS:
        try:
            result = call(store, bad_id)
        except (InvalidName, NotFound):
            continue
        except Exception as error:
            wrong.append((bad_id, repr(error)))
        else:
            wrong.append((bad_id, repr(result)))
    assert wrong == []
    assert store.list_thread_ids() == ["T"]
    assert store.list_run_ids("T") == ["R"]
    assert store.list_step_ids("T", "R") == ["S"]
    assert texts(store) == ["Hello"]


@pytest.mark.parametrize(
    "good_id",
    ["a", "a" * 127, "Trip to Oslo", "-rf", "~", "é" * 63, "*", "a.json", "a\\b", " ", "%2e", "🙂", "x."],
)
def test_any_other_text_is_an_id_of_threads_runs_and_steps(store: Store, good_id: str) -> None:
    store.create_thread(Thread(id=good_id))
    store.create_run(good_id, Run(id=good_id))
    store.append_step(good_id, good_id, RunStep(id=good_id))
    assert store.list_thread_ids() == [good_id]
    assert store.list_run_ids(good_id) == [good_id]
    assert [step.id for step in store.list_steps(good_id, good_id)] == [good_id]


@pytest.mark.parametrize("call", calls(thread=WITH_THREAD))
def test_every_method_says_that_there_is_no_such_thread(store: Store, call: Call) -> None:
    with pytest.raises(ThreadNotFound):
        call(store, "nowhere")
    assert store.list_thread_ids() == []


@pytest.mark.parametrize("call", calls(thread=IN_THREAD))
def test_every_method_of_runs_says_not_found_without_the_thread(store: Store, call: Call) -> None:
    with pytest.raises(NotFound):
        call(store, "nowhere")
    assert store.list_thread_ids() == []


@pytest.mark.parametrize("call", calls(run=WITH_RUN))
def test_every_method_says_that_there_is_no_such_run(store: Store, call: Call) -> None:
    make_thread(store)
    with pytest.raises(RunNotFound):
        call(store, "nowhere")
    assert store.list_run_ids("T") == []


@pytest.mark.parametrize("call", calls(run=IN_RUN))
def test_every_method_of_steps_says_not_found_without_the_run(store: Store, call: Call) -> None:
    make_thread(store)
    with pytest.raises(NotFound):
        call(store, "nowhere")
    assert store.list_run_ids("T") == []


@pytest.mark.parametrize("call", calls(step=WITH_STEP))
def test_every_method_says_that_there_is_no_such_step(store: Store, call: Call) -> None:
    make_run(store)
    with pytest.raises(RunStepNotFound):
        call(store, "nowhere")
    assert store.list_step_ids("T", "R") == []
