"""Workers of a store in a database: noticed, cancelled, and with the link cut in the middle of an answer."""

from __future__ import annotations

import time
from pathlib import Path

from store import RunStatus
from tests.postgres.fixtures import IMPATIENT, OpenStore
from tests.postgres.proxy import Proxy
from tests.work.running import answers, ask, ended, growing, settings, wait_until, working
from tests.work.scripted import Exchange, scripted
from tests.work.test_claims import hold

NOWHERE = Path()  # The store is given.


def test_a_worker_answers_a_run_that_another_host_asks_for_and_is_cancelled_by_it(
    open_store: OpenStore,
) -> None:
    store = open_store()
    # Nothing is looked for: what the server tells must do.
    given = settings(compares_s=60, checks_s=60)
    with scripted() as endpoint, working(NOWHERE, endpoint.url, given, store=open_store()):
        wait_until(store.workers)
        assert ended(store, ask(store)).status is RunStatus.completed
        endpoint.script = hold
        run = ask(store, thread_id="u")
        wait_until(lambda: growing(store, run) == "It is")
        cancelled_s = time.monotonic()
        store.cancel_run("u", run.id)
        assert endpoint.exchange(1).hung_up.wait(5)
        assert endpoint.exchange(1).hung_up_s - cancelled_s < 0.2
        wait_until(lambda: answers(store, "u") == ["It is"])
    assert answers(store) == ["four"]
    assert store.workers() == []


def test_two_workers_answer_each_run_once(open_store: OpenStore) -> None:
    store = open_store()
    with scripted() as endpoint:
        endpoint.script = lambda exchange: exchange.says(exchange.messages[-1][1])
        with (
            working(NOWHERE, endpoint.url, store=open_store()),
            working(NOWHERE, endpoint.url, store=open_store()),
        ):
            runs = [ask(store, f"{number}", f"t{number % 3}") for number in range(9)]
            assert {ended(store, run).status for run in runs} == {RunStatus.completed}
        assert len(endpoint.exchanges) == len(runs)
    assert [answers(store, f"t{thread}") for thread in range(3)] == [
        [str(number) for number in range(thread, 9, 3)] for thread in range(3)
    ]


def test_an_answer_whose_link_to_the_server_is_cut_is_stored_when_it_is_back(
    open_store: OpenStore, proxy: Proxy, url_through_proxy: str
) -> None:
    store = open_store()

    def script(exchange: Exchange) -> None:
        exchange.begins()
        exchange.text("fo")
        proxy.cut(refuse=True)
        exchange.text("ur")
        exchange.finishes()
        time.sleep(0.3)
        proxy.go_on()

    with scripted() as endpoint:
        endpoint.script = script
        run = ask(store)
        theirs = open_store(url_through_proxy, IMPATIENT)
        with working(NOWHERE, endpoint.url, store=theirs):
            assert ended(store, run).status is RunStatus.completed
        # Its lock was lost with the link, but nobody has taken the run over.
        assert answers(store) == ["four"]
