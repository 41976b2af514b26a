"""One run: from the claim to its end, whatever happens in between."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

import trio

from store import (
    DocumentKey,
    InvalidDocument,
    NotFound,
    Run,
    RunError,
    RunStatus,
    StorageFailed,
    Store,
    StoreError,
    Watch,
    attempts,
)
from store.errors import RunLost
from store.options import options_of
from store.working import Answer, Outcome
from threadfs.work import outcomes
from threadfs.work.availability import Availability
from threadfs.work.completions import Completion
from threadfs.work.conversations import MAX_BYTES, conversation_of, too_long
from threadfs.work.endpoint import Endpoint
from threadfs.work.failures import EndpointAtFault, Failure, NotThere, PromptRefused, RateLimited
from threadfs.work.growth import Growth
from threadfs.work.prompt import prompt
from threadfs.work.settings import Settings

log = logging.getLogger("threadfs")

T = TypeVar("T")

# Options of a run that the endpoint gets as they are.
_PASSED_ON = ("temperature", "top_p", "stop", "seed", "max_completion_tokens", "tools")


@dataclass(frozen=True, slots=True)
class Means:
    """What all runs of a worker are answered with."""

    store: Store
    watch: Watch
    endpoint: Endpoint
    availability: Availability
    settings: Settings


class Answering:
    """The answering of one claimed run."""

    def __init__(self, means: Means, answer: Answer) -> None:
        self.run = answer.run
        self.key = DocumentKey(answer.run.thread_id, answer.run.id)
        self.name = f"{answer.run.id}@{answer.run.thread_id}"
        # Whether it was handed back because of the endpoint, and waits for that.
        self.is_handed_back = False
        self._means = means
        self._answer = answer
        self._growth = Growth(answer)
        self._followed = (self.key, DocumentKey(answer.run.thread_id, ""))
        self._may_have_changed = trio.Event()
        # Once somebody else has changed it: the status of the run, `None` if it was deleted.
        self._status: RunStatus | None = RunStatus.in_progress
        # Why the run failed, for stderr.
        self._reason = ""

    def look_again(self) -> None:
        """The run may have been changed."""
        self._may_have_changed.set()

    async def go(self) -> RunStatus | None:
        """Answers the run. When this returns or is cancelled, the run has ended or is handed back.

        Returns:
            The status of the run; ``None`` if it was handed back, or is no longer this worker's.
        """
        began_s = time.monotonic()
        run: Run | None = None
        is_over = False
        try:
            outcome = await self._outcome()
            if outcome is None:
                await self._hand_back()
            else:
                run = await self._end(outcome)
            is_over = True
        finally:
            if not is_over:
                with trio.move_on_after(self._means.settings.stops_s, shield=True):
                    await self._growth.end()
                    await self._hand_back()
            self._answer.close()
            for key in self._followed:
                self._means.watch.forget(key)
        if run is not None:
            self._report(run, time.monotonic() - began_s)
        return None if run is None else run.status

    async def _outcome(self) -> Outcome | None:
        """How the answer ended; ``None``: the run is to be answered later."""
        outcome: Outcome | None = None
        with trio.CancelScope() as while_wanted:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._cancel_when_unwanted, while_wanted)
                    outcome = await self._ask()
                    nursery.cancel_scope.cancel()
            except Exception:
                # Whatever was claimed is ended.
                log.exception("%s: this is a defect of threadfs", self.name)
                outcome = self._failed(Failure("the worker failed"))
        if while_wanted.cancelled_caught:
            outcome = outcomes.of_cancel(self._status)
        await self._growth.end()
        return outcome

    def _failed(self, failure: Failure) -> Outcome:
        self._reason = failure.reason
        return outcomes.of_failure(failure)

    # ── Asking ──────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self) -> Outcome | None:
        availability = self._means.availability
        try:
            request = await self._patiently(self._request)
            completion = await self._complete(request)
            return outcomes.of_completion(completion, self._tools())
        except EndpointAtFault as failure:
            availability.failed(failure)
            self.is_handed_back = not availability.is_out_of_patience
            return None if self.is_handed_back else self._failed(failure)
        except Failure as failure:
            return self._failed(failure)
        except InvalidDocument as error:
            return self._failed(PromptRefused("the run cannot be answered as it says", str(error)))
        except StoreError as error:
            return self._failed(Failure("the conversation cannot be read", str(error)))

    def _request(self) -> bytes:
        """The request as JSON. Raises PromptRefused, StoreError."""
        options = options_of(self.run)
        cut = options.truncation_strategy
        last_messages = cut.last_messages if cut and cut.type == "last_messages" else None
        conversation = conversation_of(self._means.store, self.run, may_be_cut=last_messages is not None)
        given = self.run.fields()
        request: dict[str, Any] = {
            "model": self._model,
            "messages": prompt(conversation, self.run, self._means.settings.instructions, last_messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **{name: given[name] for name in _PASSED_ON if given.get(name) is not None},
        }
        if "max_completion_tokens" in request and not self._means.endpoint.is_of_openai:
            # ollama and LM Studio pass over the newer name without a word.
            request["max_tokens"] = request["max_completion_tokens"]
        made = json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()
        if len(made) > MAX_BYTES:
            raise too_long()
        return made

    @property
    def _model(self) -> str:
        return self.run.model or self._means.availability.model

    def _tools(self) -> set[str]:
        return {tool.function.name for tool in options_of(self.run).tools or ()}

    async def _complete(self, request: bytes) -> Completion:
        settings = self._means.settings
        for pause_s in (*settings.pauses_s, None):
            try:
                return await self._means.endpoint.complete(request, self._said)
            except NotThere as failure:
                raise await self._means.availability.why_not_there(failure, self._model) from None
            except (EndpointAtFault, RateLimited) as failure:
                if pause_s is None:
                    raise
                wanted_s = failure.after_s if isinstance(failure, RateLimited) else None
            await trio.sleep(pause_s if wanted_s is None else min(wanted_s, settings.longest_pause_s))
        raise AssertionError("the last request is not made again")

    def _said(self, text: str) -> None:
        self._means.availability.succeeded()
        self._growth.add(text)

    # ── What others do to the run ───────────────────────────────────────────────────────────────────────

    async def _cancel_when_unwanted(self, while_wanted: trio.CancelScope) -> None:
        while True:
            self._may_have_changed = trio.Event()
            # First follow, then look, so that no change is missed. Each time, as a watch may be lost.
            is_reported = await trio.to_thread.run_sync(self._follow, abandon_on_cancel=True)
            if not await trio.to_thread.run_sync(self._is_wanted, abandon_on_cancel=True):
                while_wanted.cancel()
                return
            with trio.move_on_after(inf if is_reported else self._means.settings.checks_s):
                await self._may_have_changed.wait()

    def _follow(self) -> bool:
        """Whether changes of the run will be reported."""
        try:
            return all(self._means.watch.follow(key) for key in self._followed)
        except StoreError:
            return False

    def _is_wanted(self) -> bool:
        try:
            stored = self._means.store.get_run(self.run.thread_id, self.run.id)
        except NotFound:
            self._status = None
            return False
        except StoreError:
            return True  # As far as is known.
        self._status = stored.status
        return attempts.is_of(stored, self.run) and stored.status is RunStatus.in_progress

    # ── The end ─────────────────────────────────────────────────────────────────────────────────────────

    async def _end(self, outcome: Outcome) -> Run | None:
        """The run as stored; ``None`` if it is lost, or nothing can be stored."""
        try:
            return await self._patiently(self._answer.finish, outcome)
        except RunLost as error:
            log.warning("%s: %s", self.name, error)
            return None
        except StoreError as error:
            self._reason = f"the answer cannot be stored: {error}"
        failed = RunError(code="server_error", message=self._reason)
        try:
            return await trio.to_thread.run_sync(
                self._answer.finish, Outcome(RunStatus.failed, keeps_text=False, error=failed)
            )
        except StoreError as error:
            log.error("%s stays in progress until this worker ends: %s", self.name, error)
            return None

    async def _hand_back(self) -> None:
        try:
            await trio.to_thread.run_sync(self._answer.hand_back, abandon_on_cancel=True)
        except RunLost:
            return  # Somebody else has it, or it was deleted.
        except StoreError as error:
            log.error("%s stays in progress until this worker ends: %s", self.name, error)
        else:
            log.info("%s: queued again", self.name)

    async def _patiently(self, function: Callable[..., T], *arguments: object) -> T:
        """Calls *function* in a thread; again for some time while the disk or the server refuses."""
        settings = self._means.settings
        until_s = trio.current_time() + settings.patience_s
        is_told = False
        while True:
            try:
                return await trio.to_thread.run_sync(function, *arguments, abandon_on_cancel=True)
            except StorageFailed as error:
                if trio.current_time() >= until_s:
                    raise
                if not is_told:
                    log.warning("%s: %s: trying again", self.name, error)
                is_told = True
            await trio.sleep(settings.store_pause_s)

    def _report(self, run: Run, took_s: float) -> None:
        usage = run.extra("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        log.info(
            "%s: %s%s, %.1f s%s",
            self.name,
            run.status,
            f": {self._reason}" if self._reason else "",
            took_s,
            f", {tokens} tokens" if isinstance(tokens, int) else "",
        )
