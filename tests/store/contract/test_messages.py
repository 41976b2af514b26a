"""Messages as objects, in every store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from store import (
    InvalidDocument,
    InvalidName,
    Store,
    ThreadNotFound,
)
from store.documents import MAX_LINE_BYTES
from tests.store.conftest import (
    MakeStore,
    make_thread,
    message,
    texts,
)


def test_messages_are_listed_in_the_order_of_their_appending(make_store: MakeStore) -> None:
    store = make_store()
    make_thread(store)
    for number in range(10):
        store.append_message("T", message(str(number), created_at=100 - number))
    assert texts(store) == texts(make_store()) == [str(number) for number in range(10)]


def test_a_thread_without_messages_lists_none(store: Store) -> None:
    make_thread(store)
    assert store.list_messages("T") == []


def test_an_appended_message_is_returned_and_stored_with_the_id_of_its_thread(store: Store) -> None:
    make_thread(store)
    appended = store.append_message("T", message(thread_id="another"))
    assert appended.thread_id == "T"
    assert store.list_messages("T") == [appended]


def test_appending_leaves_the_message_of_the_caller_alone(store: Store) -> None:
    make_thread(store)
    given = message(thread_id="another")
    store.append_message("T", given)
    assert given.thread_id == "another"


def test_a_message_keeps_the_fields_that_the_store_does_not_know(store: Store) -> None:
    make_thread(store)
    given = message(id="M", attachments=[{"file_id": "f"}], incomplete_at=None)
    store.append_message("T", given)
    fields = store.list_messages("T")[0].fields()
    assert list(fields)[-2:] == ["attachments", "incomplete_at"]
    assert fields["attachments"] == [{"file_id": "f"}]
    assert fields["incomplete_at"] is None


@pytest.mark.parametrize(
    "text", ["", "\n", "a\nb\r\n", "\u2028", "é🙂", "\0", '"\\', "\x7f", "\ufeff", "x" * 100_000]
)
def test_any_text_comes_back_as_it_was(store: Store, text: str) -> None:
    make_thread(store)
    store.append_message("T", message(text))
    store.append_message("T", message("next"))
    assert texts(store) == [text, "next"]


def test_a_message_of_more_than_sixteen_mebibytes_is_refused(store: Store) -> None:
    make_thread(store)
    with pytest.raises(InvalidDocument):
        store.append_message("T", message("x" * MAX_LINE_BYTES))
    assert store.log_info("T").size_bytes == 0


def test_a_message_of_almost_sixteen_mebibytes_comes_back(store: Store) -> None:
    make_thread(store)
    store.append_message("T", message("x" * (MAX_LINE_BYTES - 1000)))
    store.append_message("T", message("next"))
    assert [len(text) for text in texts(store)] == [MAX_LINE_BYTES - 1000, 4]


def test_a_thread_that_could_take_a_message_is_left_as_it_is_by_asking(store: Store) -> None:
    make_thread(store)
    store.append_message("T", message())
    before = store.log_info("T"), store.thread_modified_ns("T")
    store.check_appendable("T")
    assert (store.log_info("T"), store.thread_modified_ns("T")) == before


def test_a_thread_that_is_gone_could_take_no_message(store: Store) -> None:
    make_thread(store)
    store.delete_thread("T")
    with pytest.raises(ThreadNotFound):
        store.check_appendable("T")
    with pytest.raises(InvalidName):
        store.check_appendable("..")


def test_iterating_can_be_left_in_the_middle(store: Store) -> None:
    make_thread(store)
    for text in "abc":
        store.append_message("T", message(text))
    iterator = store.iter_messages("T")
    assert next(iterator).text == "a"
    del iterator
    store.delete_thread("T")


def test_appends_from_many_stores_at_once_are_all_there_and_whole(make_store: MakeStore) -> None:
    make_thread(make_store())

    def append(number: int) -> None:
        store = make_store()
        for part in range(5):
            store.append_message("T", message(f"{number}.{part} " + "x" * 5000))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(append, range(6)))
    expected = [f"{number}.{part}" for number in range(6) for part in range(5)]
    found = [text.split()[0] for text in texts(make_store())]
    assert sorted(found) == expected
    assert [[one for one in found if one[0] == str(n)] for n in range(6)] == [
        [f"{n}.{part}" for part in range(5)] for n in range(6)
    ]
