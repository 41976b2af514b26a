"""Several programs at once, each a process of its own, on one database."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from store import NotFound, Run, RunInProgress, RunStatus, StatusChanged, Thread, lines
from store.messages import message_of
from store.postgres import PostgresStore
from tests.postgres.cluster import Cluster
from tests.postgres.fixtures import OpenStore
from tests.store.conftest import make_thread, message

PROCESSES = multiprocessing.get_context("fork")
WRITERS = 8


def each_in_a_process(url: str, work: Callable[[PostgresStore, int], Any], count: int = WRITERS) -> list[Any]:
    """What *work* returns in each of *count* processes, which begin at the same moment."""
    together = PROCESSES.Barrier(count)

    def run(number: int, answer: Connection) -> None:
        with PostgresStore(url) as store:
            together.wait()
            answer.send(work(store, number))

    started = []
    for number in range(count):
        receiving, sending = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=run, args=(number, sending), daemon=True)
        process.start()
        sending.close()
        started.append((process, receiving))
    answers = [receiving.recv() for _, receiving in started]
    for process, _ in started:
        process.join()
    return answers


def test_each_run_that_eight_processes_claim_is_won_once(open_store: OpenStore, url: str) -> None:
    store = open_store()
    make_thread(store)
    queue = [f"R{number}" for number in range(50)]
    for run_id in queue:
        store.create_run("T", Run(id=run_id))

    def claim(store: PostgresStore, number: int) -> list[str]:
        won = []
        for run_id in queue:
            try:
                store.update_run_status("T", run_id, RunStatus.in_progress, expected=RunStatus.queued)
            except StatusChanged:
                continue
            won.append(run_id)
        return won

    assert Counter(run_id for won in each_in_a_process(url, claim) for run_id in won) == Counter(queue)


def test_appends_of_eight_processes_make_one_log_without_gaps_in_the_order_of_each(
    open_store: OpenStore, url: str
) -> None:
    store = open_store()
    make_thread(store)

    def append(store: PostgresStore, number: int) -> None:
        for count in range(40):
            store.append_message("T", message(id=f"{number}-{count}"))

    each_in_a_process(url, append)
    reader = store.open_log("T")
    ends = [end for _, end in lines.iter_lines(reader.read)]
    assert len(ends) == WRITERS * 40
    assert ends[-1] == reader.info().size_bytes
    ids = [found.id for found in store.iter_messages("T")]
    for number in range(WRITERS):
        assert [i for i in ids if i.startswith(f"{number}-")] == [f"{number}-{count}" for count in range(40)]


def test_a_reader_of_a_growing_log_never_sees_a_gap_or_half_a_line(open_store: OpenStore, url: str) -> None:
    make_thread(open_store())

    def write_or_read(store: PostgresStore, number: int) -> bool:
        if number:
            for count in range(60):
                store.append_message("T", message("x" * 50 * number, id=f"{number}-{count}"))
            return True
        reader, seen = store.open_log("T"), b""
        while seen.count(b"\n") < 60 * (WRITERS - 1):
            seen += reader.read(len(seen), 1000)
        return all(message_of(line, "T") for line in seen.splitlines())

    assert all(each_in_a_process(url, write_or_read))


def test_a_thread_is_deleted_or_its_run_is_claimed_but_not_both(open_store: OpenStore, url: str) -> None:
    store = open_store()
    threads = [f"T{number}" for number in range(30)]
    for thread_id in threads:
        store.create_thread(Thread(id=thread_id))
        store.create_run(thread_id, Run(id="R"))

    def claim_or_delete(store: PostgresStore, number: int) -> list[str]:
        done = []
        for thread_id in threads:
            try:
                if number:
                    store.update_run_status(thread_id, "R", RunStatus.in_progress, expected=RunStatus.queued)
                else:
                    store.delete_thread(thread_id)
            except (NotFound, StatusChanged, RunInProgress):
                continue
            done.append(thread_id)
        return done

    deleted, claimed = each_in_a_process(url, claim_or_delete, 2)
    assert sorted(deleted + claimed) == sorted(threads)
    assert sorted(store.list_thread_ids()) == sorted(claimed)


def test_two_programs_that_meet_an_empty_database_both_come_up(cluster: Cluster, new_database: str) -> None:
    url = cluster.url(new_database)
    together = PROCESSES.Barrier(WRITERS)

    def open_it(answer: Any) -> None:
        together.wait()
        with PostgresStore(url, create=True) as store:
            store.create_thread(Thread())
            answer.put(store.is_new)

    answers = PROCESSES.Queue()
    processes = [PROCESSES.Process(target=open_it, args=(answers,), daemon=True) for _ in range(WRITERS)]
    for process in processes:
        process.start()
    is_new = [answers.get(timeout=20) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(is_new) == [False] * (WRITERS - 1) + [True]
    with PostgresStore(url) as store:
        assert len(store.list_thread_ids()) == WRITERS
