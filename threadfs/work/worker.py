"""The worker: claims queued runs and has them answered, some at a time, until it is stopped.

Nothing is polled. The store's watch says when to look at the queue, at a run that is being answered, or at
workers that have died; only what no watch covers is compared once a second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from math import inf

import trio

from store import (
    Change,
    DocumentKey,
    Part,
    RunStatus,
    StorageFailed,
    Store,
    StoreError,
    Watch,
)
from store.names import WORKERS
from store.working import Outcome, Registration, WorkerState
from threadfs.work import outcomes
from threadfs.work.answering import Answering, Means
from threadfs.work.availability import Availability, WrongEndpoint
from threadfs.work.claims import Claims
from threadfs.work.endpoint import Endpoint
from threadfs.work.settings import Settings

log = logging.getLogger("threadfs")

_MAX_NOTES = 20
# The end of a worker is reported a moment before the kernel releases its lock: it is looked at twice.
_LOCK_IS_FREE_S = 0.2
# Changes that may put a run into the queue, or end one.
_OF_RUNS = (Part.THREADS, Part.RUNS, Part.DOCUMENT, Part.EVERYTHING)


async def work(store: Store, endpoint: Endpoint, settings: Settings) -> bool:
    """Answers the runs of *store* until it is cancelled or, with `Settings.once`, none is left.

    Returns:
        Whether all runs that ended did not fail.

    Raises:
        WrongEndpoint: before any run was claimed.
        StorageFailed: the store cannot be worked on.
    """
    worker = Worker(store, endpoint, settings)
    await worker.work()
    return not worker.any_failed


class Worker:
    def __init__(self, store: Store, endpoint: Endpoint, settings: Settings) -> None:
        self.any_failed = False
        self._store = store
        self._endpoint = endpoint
        self._settings = settings
        self._availability = Availability(endpoint, settings, self._endpoint_changed)
        self._claims = Claims(store, settings, lambda: self._availability.model)
        self._answering: dict[DocumentKey, Answering] = {}
        # The runs that were handed back because of the endpoint.
        self._handed_back: set[DocumentKey] = set()
        self._may_claim, self._may_have_died, self._state_changed = trio.Event(), trio.Event(), trio.Event()
        # Why the store refused to take runs over, the last time.
        self._refusal = ""
        self._wrong: WrongEndpoint | None = None

    async def work(self) -> None:
        """See `work`."""
        await self._availability.look()
        token = trio.lowlevel.current_trio_token()

        def heard(change: Change) -> None:
            # Called by a thread of the store; for each token of each answer, among others.
            if change.part is Part.WORKERS or (change.part in _OF_RUNS and change.step_id is None):
                with suppress(trio.RunFinishedError):
                    token.run_sync_soon(self._heard, change)

        watch = await trio.to_thread.run_sync(self._watched, heard)
        try:
            registration = await trio.to_thread.run_sync(self._store.register_worker, self._state())
            try:
                await self._work(watch, registration)
            finally:
                registration.close()
        finally:
            watch.close()

    def _watched(self, heard: Callable[[Change], None]) -> Watch:
        watch = self._store.watch(heard)
        if not watch.follow(DocumentKey("")) and watch.lack and not self._settings.once:
            log.warning("the store is looked at once a second: %s", watch.lack)
        return watch

    async def _work(self, watch: Watch, registration: Registration) -> None:
        means = Means(self._store, watch, self._endpoint, self._availability, self._settings)
        is_clear = await self._take_over()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._clear_up, watch, is_clear)
            nursery.start_soon(self._show_state, registration)
            nursery.start_soon(self._keep_looking, nursery.cancel_scope)
            await self._claim_runs(means, registration, nursery)
            nursery.cancel_scope.cancel()
        if self._wrong is not None:
            raise self._wrong

    async def _keep_looking(self, while_right: trio.CancelScope) -> None:
        """Looks at the endpoint when it fails; ends the work if it turns out that it is none."""
        try:
            await self._availability.keep_looking()
        except WrongEndpoint as error:
            self._wrong = error
            while_right.cancel()

    # ── What others do ──────────────────────────────────────────────────────────────────────────────────

    def _heard(self, change: Change) -> None:
        if change.part is not Part.WORKERS:
            self._claims.heard(change)
            for key, answering in self._answering.items():
                if change.part is Part.EVERYTHING or key.thread_id == change.thread_id:
                    answering.look_again()
            self._may_claim.set()
        if change.part in (Part.WORKERS, Part.EVERYTHING):
            self._may_have_died.set()

    async def _clear_up(self, watch: Watch, is_clear: bool) -> None:
        """Has the runs of workers that die answered by others."""
        again_s = inf if is_clear else self._settings.store_pause_s
        while True:
            is_reported = await trio.to_thread.run_sync(watch.follow, WORKERS)
            is_reported &= not self._store.is_remote  # Nobody tells of the end of a connection.
            with trio.move_on_after(min(again_s, inf if is_reported else self._settings.compares_s)):
                await self._may_have_died.wait()
            again_s = _LOCK_IS_FREE_S if self._may_have_died.is_set() else inf
            self._may_have_died = trio.Event()
            if not await self._take_over():
                again_s = self._settings.store_pause_s

    async def _take_over(self) -> bool:
        """Whether the store did not refuse it."""
        refusal = ""
        try:
            for run in await trio.to_thread.run_sync(self._store.take_over):
                log.warning("%s@%s: its worker died: %s", run.id, run.thread_id, run.status)
        except StorageFailed as error:
            refusal = str(error)
            if refusal != self._refusal:
                log.warning("%s", error)
        self._refusal = refusal
        self._may_claim.set()
        return not refusal

    def _endpoint_changed(self) -> None:
        self._may_claim.set()
        self._state_changed.set()

    def _state(self) -> WorkerState:
        notes = tuple(self._claims.notes()[:_MAX_NOTES])
        return WorkerState(self._endpoint.host, self._settings.jobs, self._availability.state, notes)

    async def _show_state(self, registration: Registration) -> None:
        shown = self._state()
        while True:
            await self._state_changed.wait()
            self._state_changed = trio.Event()
            if (state := self._state()) != shown:
                with suppress(StorageFailed):  # It is for people, and the next one may be shown.
                    await trio.to_thread.run_sync(registration.set_state, state)
                    shown = state

    # ── Claims ──────────────────────────────────────────────────────────────────────────────────────────

    async def _claim_runs(self, means: Means, registration: Registration, nursery: trio.Nursery) -> None:
        """Returns when no run is left, if that is wanted."""
        while True:
            self._may_claim = trio.Event()
            is_reported = await self._claims.look(means.watch)
            if self._availability.is_ready:
                await self._claim_those_next(means, registration, nursery)
            elif self._availability.is_out_of_patience:
                await self._give_up_on_those_handed_back(registration)
            if self._settings.once and self._is_done():
                return
            self._state_changed.set()
            is_complete = is_reported and not self._claims.is_refused
            with trio.move_on_after(inf if is_complete else self._settings.compares_s) as until_compared:
                await self._may_claim.wait()
            if until_compared.cancelled_caught:
                self._claims.try_all_again()

    def _busy(self) -> set[str]:
        return {key.thread_id for key in self._answering}

    async def _claim_those_next(
        self, means: Means, registration: Registration, nursery: trio.Nursery
    ) -> None:
        for run in self._claims.next(self._busy()):
            if len(self._answering) >= self._settings.jobs or not self._availability.is_ready:
                return
            if answer := await self._claims.claim(registration, run):
                answering = Answering(means, answer)
                self._answering[answering.key] = answering
                nursery.start_soon(self._answer, answering)

    async def _answer(self, answering: Answering) -> None:
        try:
            status = await answering.go()
        finally:
            del self._answering[answering.key]
        self.any_failed |= status is RunStatus.failed
        if answering.is_handed_back:
            self._handed_back.add(answering.key)
        else:
            self._handed_back.discard(answering.key)
        self._may_claim.set()

    async def _give_up_on_those_handed_back(self, registration: Registration) -> None:
        """Lets the runs fail that have waited for the endpoint as long as they should."""
        failure = self._availability.failure
        assert failure is not None
        while self._handed_back:
            key = self._handed_back.pop()
            assert key.run_id is not None
            try:
                await trio.to_thread.run_sync(
                    _fail, registration, key.thread_id, key.run_id, outcomes.of_failure(failure)
                )
            except StoreError as error:
                log.info("%s@%s: %s", key.run_id, key.thread_id, error)
                continue
            log.info("%s@%s: %s: %s", key.run_id, key.thread_id, RunStatus.failed, failure.reason)
            self.any_failed = True

    def _is_done(self) -> bool:
        """Whether nothing is left to be answered, or there is nobody to ask."""
        if self._answering:
            return False
        left = self._claims.next(())
        if self._claims.is_refused:
            is_over = self._claims.refused_for_s >= self._settings.patience_s
            self.any_failed |= is_over
            return is_over
        if self._availability.is_ready or not self._availability.is_out_of_patience:
            return not left
        if left:
            log.warning("threads with runs that stay queued: %d; %s", len(left), self._availability.state)
            self.any_failed = True
        return True


def _fail(registration: Registration, thread_id: str, run_id: str, outcome: Outcome) -> None:
    with registration.claim(thread_id, run_id) as answer:
        answer.finish(outcome)
