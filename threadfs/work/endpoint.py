"""An endpoint for chat completions, over HTTP: ollama, llama.cpp, vLLM, LM Studio, OpenAI and others.

Requests go to the given URL alone: no redirect is followed. A connection to this machine never goes through a
proxy; others go as the environment says. Cancelling a call closes its connection at once, which is how
servers learn that nobody wants the answer.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from math import inf

import httpx2
import trio

from threadfs.work.completions import Completion, parsed, said_in
from threadfs.work.failures import (
    BrokenOff,
    EndpointAtFault,
    Failure,
    in_words,
    of_status,
    retry_after_s,
    shortened,
)
from threadfs.work.keys import is_loopback

_MAX_EVENT_BYTES = 1 << 20
_MAX_ERROR_BYTES = 64 << 10
# Lists of models with descriptions are long.
_MAX_MODELS_BYTES = 8 << 20
# How long to read an error for, and how long to wait for the end of a stream after its last event.
_ERROR_S, _END_S = 5.0, 0.25
# How long a small request may go without an answer.
_BRIEF_S = 10.0
_OF_OPENAI = (".openai.com", ".openai.azure.com")
_EVENTS = "text/event-stream"
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a request. *idle_s*: without a byte; *answer_s*: from the request to the end."""

    connect_s: float = 10.0
    idle_s: float = 120.0
    answer_s: float = 3600.0
    answer_bytes: int = 1 << 20


def base_url(given: str) -> httpx2.URL:
    """The URL of an endpoint, from the command line.

    Raises:
        ValueError: it is none; the text says why.
    """
    try:
        url = httpx2.URL(given)
    except httpx2.InvalidURL as error:
        raise ValueError(f"it is no URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("it must begin with http:// or https://, like http://127.0.0.1:11434/v1")
    if url.userinfo:
        raise ValueError("a URL is seen by every user: give the key with --key-file, not in the URL")
    if url.query or url.fragment:
        raise ValueError("it must end with its path, like …/v1")
    return url.copy_with(path=url.path.rstrip("/").removesuffix("/chat/completions"))


class Endpoint:
    """To be used as a context: it closes its connections.

    Raises:
        ValueError: the environment names a proxy that cannot be used.
    """

    def __init__(self, url: httpx2.URL, key: str | None = None, limits: Limits | None = None) -> None:
        self.url = url
        # What may be shown to other users of the store.
        self.host = url.netloc.decode()
        self.limits = limits or Limits()
        self._key = key
        headers = {"Accept-Encoding": "identity", "User-Agent": "threadfs"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        # Loading the certificates of the system takes long, and most endpoints are on this machine.
        is_open = is_loopback(url) and url.scheme == "http"
        try:
            self._client = httpx2.AsyncClient(
                headers=headers,
                limits=httpx2.Limits(),
                verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if is_open else True,
                trust_env=not is_loopback(url),
            )
        except ImportError:
            raise ValueError("the environment names a SOCKS proxy, which is not supported") from None

    async def __aenter__(self) -> Endpoint:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.aclose()

    @property
    def is_of_openai(self) -> bool:
        """Whether the endpoint refuses requests with names that OpenAI has given up."""
        return f".{self.url.host}".endswith(_OF_OPENAI)

    async def models(self) -> list[str]:
        """The ids of the models that the endpoint has.

        Raises:
            NotThere: it does not tell.
            Failure: it does not answer as it should.
        """
        async with self._asked("GET", "models", accept=_JSON, idle_s=_BRIEF_S) as response:
            await self._check(response)
            try:
                found = parsed(await _read(response, _MAX_MODELS_BYTES))["data"] or []
                return [str(model["id"]) for model in found]
            except (BrokenOff, LookupError, TypeError):
                raise EndpointAtFault(f"what is at {self.url}/models is no list of models") from None

    async def check(self) -> None:
        """Asks for nothing, to learn whether the endpoint takes requests at all. Raises Failure if not."""
        async with self._asked(
            "POST", "chat/completions", accept=_JSON, content=b"{}", idle_s=_BRIEF_S
        ) as response:
            if response.status_code not in (400, 413, 422):
                await self._check(response)

    async def complete(self, request: bytes, on_text: Callable[[str], None]) -> Completion:
        """Asks for a completion. *on_text* gets its text, piece by piece.

        Args:
            request: the JSON of a request for a stream.

        Raises:
            BrokenOff: the answer has no end, or what came is none.
            Failure: nothing was said.
        """
        completion = Completion(on_text, self.limits.answer_bytes, self._key)
        with trio.move_on_after(self.limits.answer_s) as until_end:
            try:
                await self._stream(request, completion, until_end)
            except EndpointAtFault as failure:
                if not completion.has_ended:
                    raise BrokenOff(str(failure)) if completion.has_begun else failure from None
        if completion.failure:
            raise completion.failure
        if not completion.has_ended:
            is_late = until_end.cancelled_caught
            why = f"no end after {self.limits.answer_s:.0f} seconds" if is_late else "broke off"
            raise (BrokenOff if completion.has_begun else EndpointAtFault)(f"the endpoint's answer {why}")
        return completion

    async def _stream(self, request: bytes, completion: Completion, until_end: trio.CancelScope) -> None:
        async with self._asked("POST", "chat/completions", accept=_EVENTS, content=request) as response:
            await self._check(response)
            if (media_type := _media_type(response)) == _JSON:
                # It ignores ``stream``.
                completion.take_object(
                    parsed(await _read(response, self.limits.answer_bytes + _MAX_EVENT_BYTES))
                )
                completion.is_done = True
                return
            if media_type != _EVENTS:
                what = "a page of HTML" if media_type == "text/html" else "no stream of events"
                raise EndpointAtFault(f"the endpoint answers with {what}: is {self.url} its URL?")
            response.encoding = "utf-8"
            async for event in httpx2.EventSource(response, _MAX_EVENT_BYTES):
                completion.take(event.event, event.data)
                if completion.is_done and (completion.failure or completion.is_too_long):
                    # Leaving the loop would leave what it iterates over unfinished. This closes it all.
                    until_end.cancel()
                elif completion.is_done:
                    # With the end of the stream the connection can be used again.
                    until_end.deadline = min(until_end.deadline, trio.current_time() + _END_S)

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        *,
        accept: str,
        content: bytes | None = None,
        idle_s: float = inf,
    ) -> AsyncIterator[httpx2.Response]:
        idle_s = min(idle_s, self.limits.idle_s)
        headers = {"Accept": accept}
        if content is not None:
            headers["Content-Type"] = _JSON
        try:
            async with self._client.stream(
                method,
                f"{self.url}/{path}",
                headers=headers,
                content=content,
                timeout=httpx2.Timeout(idle_s, connect=self.limits.connect_s, pool=None),
            ) as response:
                yield response
        except httpx2.SSEError:
            raise BrokenOff(f"the endpoint sent an event of over {_MAX_EVENT_BYTES >> 20} MiB") from None
        except httpx2.ReadTimeout:
            raise EndpointAtFault(f"the endpoint said nothing for {idle_s:g} seconds") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise EndpointAtFault(f"no answer from {self.host}: {in_words(error)}") from None

    async def _check(self, response: httpx2.Response) -> None:
        """Raises the Failure that the status stands for, if it does."""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise EndpointAtFault("the endpoint compresses what it was asked not to")
        if response.is_success:
            return
        said = ""
        with trio.move_on_after(_ERROR_S), suppress(Failure):
            # What is no JSON is a page for people.
            said = said_in(parsed(await _read(response, _MAX_ERROR_BYTES)))
        raise of_status(
            response.status_code,
            shortened(said, self._key),
            has_key=self._key is not None,
            after_s=retry_after_s(response.headers.get("retry-after")),
        )


def _media_type(response: httpx2.Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read(response: httpx2.Response, max_bytes: int) -> bytes:
    """The body, if it is no longer than that. Raises BrokenOff if it is."""
    body = bytearray()
    with trio.CancelScope() as reading:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > max_bytes:
                reading.cancel()
    if reading.cancelled_caught:
        raise BrokenOff(f"the endpoint sent more than {max_bytes >> 10} KiB")
    return bytes(body)
