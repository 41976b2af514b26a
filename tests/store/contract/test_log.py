"""The message log as bytes, in every store."""

from __future__ import annotations

import json

from store import (
    Store,
)
from tests.store.conftest import (
    LONG_AGO_NS,
    MakeStore,
    make_thread,
    message,
    texts,
    whole_log,
)


def test_the_log_holds_one_line_for_each_message_as_compact_json(store: Store) -> None:
    make_thread(store)
    store.append_message("T", message("é", id="M", created_at=5))
    store.append_message("T", message("b", id="N", created_at=6, run_id="R"))
    assert (
        whole_log(store)
        == (
            '{"id":"M","object":"thread.message","created_at":5,"thread_id":"T","role":"user",'
            '"content":[{"type":"text","text":{"value":"é","annotations":[]}}]}\n'
            '{"id":"N","object":"thread.message","created_at":6,"thread_id":"T","role":"user",'
            '"content":[{"type":"text","text":{"value":"b","annotations":[]}}],"run_id":"R"}\n'
        ).encode()
    )


def test_the_log_can_be_read_at_any_offset_in_pieces_of_any_size(store: Store) -> None:
    make_thread(store)
    for number in range(4):
        store.append_message("T", message(f"é{number}"))
    whole = whole_log(store)
    reader = store.open_log("T")
    for size in (1, 2, 7, 100, len(whole), len(whole) + 1):
        for offset in range(0, len(whole) + 2, 5):
            piece = reader.read(offset, size)
            expected = whole[offset : offset + size]
            assert expected.startswith(piece)
            assert piece or not expected
    reader.close()


def test_reading_beyond_the_end_of_the_log_gives_nothing(store: Store) -> None:
    make_thread(store)
    store.append_message("T", message())
    reader = store.open_log("T")
    assert reader.read(reader.info().size_bytes, 10) == b""
    assert reader.read(1 << 40, 10) == b""
    reader.close()


def test_the_size_of_a_log_is_that_of_its_lines(store: Store) -> None:
    make_thread(store)
    assert store.log_info("T").size_bytes == 0
    store.append_message("T", message("é"))
    assert store.log_info("T").size_bytes == len(whole_log(store))


def test_the_version_of_a_log_changes_with_each_message_and_not_by_itself(store: Store) -> None:
    make_thread(store)
    versions = [store.log_info("T").version]
    for _ in range(3):
        store.append_message("T", message())
        versions.append(store.log_info("T").version)
        assert store.log_info("T").version == versions[-1]
    assert len(set(versions)) == len(versions)


def test_a_log_without_messages_reads_as_nothing(store: Store) -> None:
    make_thread(store)
    assert whole_log(store) == b""


def test_a_reader_sees_what_is_appended_after_it_was_opened(make_store: MakeStore) -> None:
    store = make_store()
    make_thread(store)
    store.append_message("T", message("first"))
    reader = store.open_log("T")
    size = reader.info().size_bytes
    make_store().append_message("T", message("second"))
    assert reader.info().size_bytes > size
    assert json.loads(reader.read(size, 1000))["content"][0]["text"]["value"] == "second"
    reader.close()


def test_a_reader_that_was_opened_before_the_first_message_sees_it(store: Store) -> None:
    make_thread(store)
    reader = store.open_log("T")
    assert reader.info().size_bytes == 0
    store.append_message("T", message())
    assert reader.read(0, 1000) == whole_log(store)
    reader.close()


def test_a_reader_goes_on_reading_the_log_of_a_thread_that_was_deleted_and_made_anew(store: Store) -> None:
    make_thread(store)
    store.append_message("T", message("old"))
    old = whole_log(store)
    reader = store.open_log("T")
    store.delete_thread("T")
    make_thread(store)
    store.append_message("T", message("another text"))
    assert reader.read(0, 1000) == old
    assert reader.info().size_bytes == len(old)
    reader.close()


def test_a_reader_can_be_closed_twice(store: Store) -> None:
    make_thread(store)
    store.append_message("T", message())
    reader = store.open_log("T")
    reader.close()
    reader.close()


def test_the_time_of_a_log_can_be_set(make_store: MakeStore) -> None:
    store = make_store()
    make_thread(store)
    store.append_message("T", message())
    store.set_log_modified("T", LONG_AGO_NS)
    assert make_store().log_info("T").modified_ns == LONG_AGO_NS
    assert texts(store) == ["Hello"]


def test_setting_the_time_of_a_log_without_messages_makes_no_log(store: Store) -> None:
    make_thread(store)
    store.set_log_modified("T", LONG_AGO_NS)
    assert store.log_info("T").size_bytes == 0
