"""A message and the run that answers it, made together, in every store."""

from __future__ import annotations

import pytest

from store import AlreadyExists, InvalidName, Run, Store, ThreadNotFound
from tests.store.conftest import MakeStore, make_run, make_thread, message, texts
from tests.store.contract.working import run_of


def test_asking_appends_the_message_and_makes_the_run_that_names_it(make_store: MakeStore) -> None:
    store = make_store()
    make_thread(store)
    asked, run = store.ask("T", message("Why?"), Run(id="R", model="llama3"))
    assert asked.thread_id == run.thread_id == "T"
    other = make_store()
    assert texts(other) == ["Why?"]
    assert other.get_run("T", "R") == run
    assert other.get_run("T", "R").asked == other.list_messages("T")[0].id
    assert run_of(other)["status"] == "queued"


def test_asking_in_a_thread_that_is_not_there_makes_nothing(store: Store) -> None:
    with pytest.raises(ThreadNotFound):
        store.ask("T", message(), Run(id="R"))
    assert store.list_thread_ids() == []


def test_asking_with_the_id_of_a_run_that_is_there_appends_nothing(store: Store) -> None:
    make_run(store)
    with pytest.raises(AlreadyExists):
        store.ask("T", message(), Run(id="R"))
    assert texts(store) == []


def test_asking_with_a_name_that_is_no_id_appends_nothing(store: Store) -> None:
    make_thread(store)
    with pytest.raises(InvalidName):
        store.ask("T", message(), Run(id="a/b"))
    assert texts(store) == []
