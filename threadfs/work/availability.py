"""Whether the endpoint can be asked at all.

An endpoint that is not there, or refuses everybody, is asked for its models now and then; until it answers
again, no run is claimed. It need not be there when the worker starts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import trio

from threadfs.work.endpoint import Endpoint
from threadfs.work.failures import EndpointAtFault, Failure, KeyRefused, NotThere, shortened
from threadfs.work.settings import Settings

log = logging.getLogger("threadfs")

_LONGEST_PAUSE_S = 60.0


class WrongEndpoint(Exception):
    """The command line does not lead to an endpoint, or not to one model; the text says what to do."""


class Availability:
    """*on_change* is called when the endpoint goes or comes back."""

    def __init__(self, endpoint: Endpoint, settings: Settings, on_change: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._on_change = on_change
        # For runs that name no model; known once the endpoint has answered.
        self.model = settings.model
        self._has_answered = False
        self._listed: list[str] | None = None
        self._listed_s = 0.0
        # Why it cannot be asked, and since when, for people.
        self.failure: Failure | None = None
        self._since = ""
        # When it first failed since the last success.
        self._failing_since_s: float | None = None
        self._went = trio.Event()
        self._key_refusals = 0

    @property
    def is_ready(self) -> bool:
        return self.failure is None

    @property
    def state(self) -> str:
        return "ready" if self.failure is None else f"waiting: {self.failure.reason}, since {self._since}"

    @property
    def is_out_of_patience(self) -> bool:
        since_s = self._failing_since_s
        return since_s is not None and trio.current_time() - since_s >= self._settings.patience_s

    def succeeded(self) -> None:
        """The endpoint has answered a run."""
        self._failing_since_s = None
        self._key_refusals = 0
        self._came_back()

    def failed(self, failure: Failure) -> None:
        """A request failed, also when it was made again."""
        if self._failing_since_s is None:
            self._failing_since_s = trio.current_time()
        if isinstance(failure, KeyRefused):
            self._key_refusals += 1
        was_ready = self.failure is None
        if was_ready:
            self._since = time.strftime("%H:%M")
        if self.failure is None or failure.reason != self.failure.reason:
            log.warning("waiting: %s", failure.reason)
        self.failure = failure
        self._went.set()
        if was_ready:
            self._on_change()

    def _came_back(self) -> None:
        if self.failure is None:
            return
        log.info("the endpoint answers again")
        self.failure = None
        self._went = trio.Event()
        self._on_change()

    async def look(self) -> None:
        """Asks the endpoint for its models, which any endpoint that is there answers somehow.

        Raises:
            WrongEndpoint: at first: it is no endpoint, or no run could know which model is meant.
        """
        try:
            models = await self._list()
            if not self._has_answered:
                self.model = self._model_of(models)
        except NotThere as failure:
            if self._has_answered or await self._is_there_without_models():
                self._answered_with(failure)
        except Failure as failure:
            self._answered_with(failure)
        else:
            self._has_answered = True
            self._came_back()

    def _answered_with(self, failure: Failure) -> None:
        """Any answer will do, unless the list of models is what is wanted."""
        if failure.status is None or isinstance(failure, KeyRefused) or not self.model:
            self.failed(failure)
        else:
            self._came_back()

    async def _is_there_without_models(self) -> bool:
        """Whether requests are taken where no models are listed. Raises WrongEndpoint."""
        url = self._endpoint.url
        try:
            await self._endpoint.check()
        except NotThere:
            hint = "" if url.path.endswith("/v1") else f": did you mean {url}/v1?"
            raise WrongEndpoint(f"there is no endpoint at {url}{hint}") from None
        except Failure as failure:
            self._answered_with(failure)
            return False
        if not self.model:
            raise WrongEndpoint("the endpoint does not list its models: say which with --model NAME")
        self._has_answered = True
        return True

    def _model_of(self, models: list[str]) -> str:
        if self._settings.model or len(models) == 1:
            return self._settings.model or models[0]
        if not models:
            raise WrongEndpoint("the endpoint has no model: load one, or say which with --model NAME")
        raise WrongEndpoint(f"which model? Say it with --model NAME: the endpoint has {listed(models)}")

    async def models(self) -> list[str]:
        """The models that the endpoint has, or had seconds ago. Raises Failure."""
        if self._listed is None or trio.current_time() - self._listed_s >= self._settings.probes_s:
            return await self._list()
        return self._listed

    async def _list(self) -> list[str]:
        self._listed = None
        self._listed = await self._endpoint.models()
        self._listed_s = trio.current_time()
        return self._listed

    async def why_not_there(self, failure: NotThere, model: str) -> Failure:
        """What a request that was answered 404 means."""
        try:
            models = await self.models()
        except NotThere:
            return EndpointAtFault(
                f"there is no endpoint at {self._endpoint.url} any more", status=failure.status
            )
        except Failure as other:
            return other
        if model in models:
            return failure
        return NotThere(
            f"the endpoint has no model {shortened(model, max_bytes=100)!r}; it has {listed(models)}"
        )

    async def keep_looking(self) -> None:
        """Looks until the endpoint answers again, whenever it fails."""
        while True:
            await self._went.wait()
            pause_s = self._settings.probes_s
            if isinstance(self.failure, KeyRefused):
                pause_s = min(_LONGEST_PAUSE_S, self._settings.pauses_s[0] * 2**self._key_refusals)
            await trio.sleep(pause_s)
            if not self.is_ready:
                await self.look()
                self._on_change()


def listed(models: list[str]) -> str:
    """Names of models for people, a KiB of them at most."""
    return shortened(", ".join(sorted(models))) or "none"
