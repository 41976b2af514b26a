"""Why a run got no answer, or half of one, in one line for the run's ``last_error`` and for stderr.

    Failure
    ├── EndpointAtFault   no answer that could be one: another run would fare no better
    │   └── KeyRefused    401 and 403
    ├── RateLimited       429
    ├── PromptRefused     400, 413, 422: this conversation is not answered, however often it is asked
    ├── NotThere          404: the endpoint has no such model, or is no endpoint
    ├── CannotCall        the model called a tool that the run does not have
    └── BrokenOff         the answer ended before its end

What the endpoint says is put into ours, a KiB of it at most, as one printable line and without the key.
"""

from __future__ import annotations

import os
import socket
import ssl
from email.utils import parsedate_to_datetime
from time import time

from store.printing import printable

# Of an endpoint's own words, in documents and on stderr.
_MAX_SAID_BYTES = 1024


class Failure(Exception):
    """The text is one line: *reason*, in our words, and what the endpoint *said*, which may repeat a prompt.

    ``code`` is one of OpenAI's codes for ``last_error``. *status* is that of the endpoint's answer, if it
    was an error of HTTP.
    """

    code = "server_error"

    def __init__(self, reason: str, said: str = "", status: int | None = None) -> None:
        super().__init__(f"{reason}: {said}" if said else reason)
        self.reason = reason
        self.status = status


class EndpointAtFault(Failure):
    pass


class KeyRefused(EndpointAtFault):
    pass


class RateLimited(Failure):
    """*after_s*: how long the endpoint wants to be left alone, if it said so."""

    code = "rate_limit_exceeded"

    def __init__(self, reason: str, said: str, status: int, after_s: float | None) -> None:
        super().__init__(reason, said, status)
        self.after_s = after_s


class PromptRefused(Failure):
    code = "invalid_prompt"


class NotThere(Failure):
    pass


class CannotCall(Failure):
    pass


class BrokenOff(Failure):
    pass


def shortened(said: str, key: str | None = None, max_bytes: int = _MAX_SAID_BYTES) -> str:
    """What an endpoint said, as one printable line without the *key*, of at most *max_bytes*."""
    if key:
        said = said.replace(key, "[key]")
    # Cut twice: escapes are longer than what they stand for.
    line = printable(said.strip()[:max_bytes])
    if len(line.encode()) <= max_bytes:
        return line
    return line.encode()[: max_bytes - 3].decode(errors="ignore") + "…"


def of_status(status: int, said: str, *, has_key: bool, after_s: float | None = None) -> Failure:
    """The failure that an HTTP status stands for; *said* is the endpoint's explanation, or empty."""
    if status in (401, 403):
        # In our words, as some endpoints repeat the key in theirs.
        what = "refuses the key" if has_key else "wants a key (--key-file FILE)"
        return KeyRefused(f"the endpoint {what}, with status {status}", status=status)
    if status == 429:
        return RateLimited("the endpoint has had too many requests (429)", said, status, after_s)
    if status in (400, 413, 422):
        return PromptRefused(f"the endpoint refuses the conversation ({status})", said, status)
    if status == 404:
        return NotThere("the endpoint does not know the model, or the path (404)", said, status)
    if 300 <= status < 400:
        return EndpointAtFault(
            f"the endpoint redirects to another place ({status}): give that", status=status
        )
    return EndpointAtFault(f"the endpoint fails ({status})", said, status)


def retry_after_s(header: str | None) -> float | None:
    """The seconds that a header ``Retry-After`` stands for: a number, or a date."""
    if header is None:
        return None
    try:
        found = (
            float(header) if header.strip().isdigit() else parsedate_to_datetime(header).timestamp() - time()
        )
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, found)


def in_words(error: BaseException) -> str:
    """Why a connection failed. Libraries wrap the reason of the system in several exceptions of theirs."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {found.verify_message}"
        if isinstance(found, socket.gaierror):
            return "there is no such host, or no name server answers"
        if isinstance(found, OSError) and found.errno:
            return os.strerror(found.errno).lower()
        if isinstance(found, ExceptionGroup):  # One for each address of the host.
            found = found.exceptions[-1]
        else:
            found = found.__cause__ or found.__context__
    return shortened(str(error)).rstrip(".") or type(error).__name__
