"""A conversation as Markdown: its head, a message, the end of a run.

A transcript is not stored text, so control characters in it are escaped: see `store.printing`. A text that is
still growing is shown as far as it is known how it goes on: `Printed`, `Contained`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime

from store import ContentBlock, MessageRole, Run, RunStatus, TextContent, ThreadMessage
from store.printing import printable, printable_lines

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_BLANKS = re.compile(r"[ \t\n]+")
# The beginnings of lines that have to be looked at.
_SPECIAL = re.compile(r"(?m)^ {0,3}(?:```|~~~|## |> Run `)")
# Lines in a message that look like our own headings, and what may still become the beginning of one.
_OURS = re.compile(r" {0,3}(## |> Run `)")
_PERHAPS_OURS = re.compile(r" {0,3}(#{0,2}|>|> (R(u(n( )?)?)?)?)")
# How much of a data: URL is shown: enough to see its type.
_DATA_URL_CHARACTERS = 64


def title_of(metadata: object) -> str:
    """The title of a thread on one line; empty if its metadata have none."""
    title = metadata.get("title") if isinstance(metadata, dict) else None
    return _BLANKS.sub(" ", title).strip() if isinstance(title, str) else ""


def head(thread_id: str, title: str) -> str:
    """The title as a heading, with the id below; without a title the id is the heading."""
    return f"# {printable(title)}\n\n`{printable(thread_id)}`\n" if title else f"# {printable(thread_id)}\n"


def heading(role: MessageRole, created_at: int) -> str:
    return f"\n## {role.value.capitalize()}, {_time(created_at)}\n\n"


def body(message: ThreadMessage) -> str:
    """What stands under the heading of a message."""
    return "\n".join(_block(block) for block in message.content) + "\n"


def _block(block: ContentBlock) -> str:
    if isinstance(block.text, TextContent):
        return _contained(block.text.value)
    kind = f"*({printable(block.type)})*"
    fields = block.fields()
    if block.type == "refusal" and isinstance(words := fields.get("refusal"), str):
        return _contained(f"{kind} {words}")
    image = fields.get("image_url") if block.type == "image_url" else None
    url = image.get("url") if isinstance(image, dict) else None
    return f"{kind} {_url(url)}" if isinstance(url, str) else kind


def _url(url: str) -> str:
    if url.startswith("data:") and len(url) > _DATA_URL_CHARACTERS:
        url = f"{url[:_DATA_URL_CHARACTERS]}…"
    return printable(url)


def outcome(run: Run) -> str:
    by = f" by {printable(run.model)}" if run.model else ""
    why = run.last_error.message if run.last_error else _reason(run)
    why = f": {printable(why)}" if why else ""
    return f"\n> Run `{printable(run.id)}`{by} {run.status.value}{why}\n"


def _reason(run: Run) -> str:
    """Why a run is incomplete."""
    details = run.extra("incomplete_details") if run.status is RunStatus.incomplete else None
    reason = details.get("reason") if isinstance(details, dict) else None
    return reason if isinstance(reason, str) else ""


def ended_at(run: Run) -> int:
    """When a run ended, in Unix seconds; if that is unknown, the latest time in its document."""
    times = (run.cancelled_at, run.failed_at, run.completed_at, run.started_at, run.created_at)
    return next(at for at in times if at is not None)


def _time(seconds: int) -> str:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return "at an unknown time"


def _contained(text: str) -> str:
    """*text* with our headings escaped and code blocks closed: it cannot look like another message."""
    text = printable_lines(text)
    if not _SPECIAL.search(text):
        return text
    contained = Contained()
    return contained.add(text) + contained.end()


class Printed:
    """`printable_lines` of a text that comes in pieces."""

    def __init__(self) -> None:
        # The first half of what may be a line end of Windows.
        self._held = ""

    def add(self, text: str) -> str:
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        return printable_lines(text.removesuffix("\r"))

    def end(self) -> str:
        return printable_lines(self._held)


class Contained:
    """The text of a message that comes in pieces, escaped so that it cannot look like another message.

    The pieces that `add` and `end` return are together what one piece with the whole text gives.
    """

    def __init__(self) -> None:
        self._printed = Printed()
        # The current line, as it came; what is held back of it, while it may become one of our headings.
        self._line = self._held = ""
        # What closes the code block that is open; empty outside of one.
        self._fence = ""

    def add(self, text: str) -> str:
        return self._lines(self._printed.add(text))

    def end(self) -> str:
        """What was held back, and the end of a code block that is still open."""
        rest = self._lines(self._printed.end())
        rest += self._held
        self._end_line()
        return rest + (f"\n{self._fence}" if self._fence else "")

    def _lines(self, text: str) -> str:
        end = text.rfind("\n") + 1
        if not self._line and not self._fence and not _SPECIAL.search(text, 0, end):
            return text[:end] + self._piece(text[end:])
        first, *others = text.split("\n")
        pieces = [self._piece(first)]
        for line in others:
            pieces += (self._held, "\n")
            self._end_line()
            pieces.append(self._piece(line))
        return "".join(pieces)

    def _piece(self, text: str) -> str:
        """What can be shown of a piece of the current line."""
        is_begun = len(self._line) > len(self._held)
        self._line += text
        if is_begun or self._fence:
            return text
        if _PERHAPS_OURS.fullmatch(self._line):
            self._held = self._line
            return ""
        self._held = ""
        return "\\" + self._line.lstrip(" ") if _OURS.match(self._line) else self._line

    def _end_line(self) -> None:
        match = _FENCE.fullmatch(self._line)
        if match and not self._fence:
            self._fence = match[1]
        elif match and match[1].startswith(self._fence) and not match[2].strip():
            self._fence = ""
        self._line = self._held = ""
