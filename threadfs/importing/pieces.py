"""Large JSON, one value after the other: an array, lines, or a single value.

Memory holds one value and what is around it. A value that is wrong costs itself: in an array its end is
searched by its brackets, in lines by the newline.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

# In characters. What is larger is skipped.
MAX_VALUE = 64 << 20
# How many characters are searched for the end of a value that is broken or too large.
_MAX_PASSED_OVER = 1 << 30
_CHUNK_BYTES = 1 << 20

CUT_OFF = "JSON that is cut off: the rest of the file is missing"

_SPACE = re.compile(r"[ \t\r\n]*")
_SPACE_OR_COMMA = re.compile(r"[ \t\r\n,]*")
_STRUCTURE = re.compile(r'\\.|["\[\]{},]', re.DOTALL)
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_LONE = re.compile("[\ud800-\udfff]")
# A text that ends too early can seem wrong so far before its end: ``\ud83d\ude00``, ``-Infinity``.
_TAIL = 16

_scan = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Item:
    """A value, or the reason why there is none, and where: the line, or the number in the array, from 1."""

    number: int
    is_line: bool
    value: Any = None
    error: str = ""

    @property
    def where(self) -> str:
        return f"{'line' if self.is_line else 'number'} {self.number}"


class _Broken(Exception):
    """A value cannot be read; the message is the reason."""


class Pieces:
    """The values in the bytes that *read* returns; it is called with a number of bytes."""

    def __init__(self, read: Callable[[int], bytes], chunk_bytes: int | None = None) -> None:
        self._read = read
        self._chunk_bytes = chunk_bytes or _CHUNK_BYTES
        self._decoder: codecs.IncrementalDecoder | None = None
        self._text = ""
        self._position = 0
        self._is_at_end = False

    def __iter__(self) -> Iterator[Item]:
        first = self._next_character(_SPACE)
        if first == "[":
            self._position += 1
            yield from self._array()
        elif first:
            yield from self._lines_or_values()

    # ── The text ────────────────────────────────────────────────────────────────────────────────────

    def _fill(self) -> bool:
        """Reads on, at least as much as there is; False at the end of the file."""
        if self._is_at_end:
            return False
        pieces = [self._text[self._position :]]
        wanted = max(self._chunk_bytes, len(pieces[0]))
        while wanted > 0:
            data = self._read(min(wanted, self._chunk_bytes))
            if not data:
                self._is_at_end = True
            pieces.append(self._decoded(data))
            wanted -= len(data)
            if self._is_at_end:
                break
        self._text, self._position = "".join(pieces), 0
        return True

    def _decoded(self, data: bytes) -> str:
        if self._decoder is None:
            # Three bytes show the encoding: PowerShell writes UTF-16.
            while len(data) < 3 and not self._is_at_end:
                more = self._read(3 - len(data))
                self._is_at_end = not more
                data += more
            encoding = "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
            self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        return self._decoder.decode(data, self._is_at_end)

    def _next_character(self, passed_over: re.Pattern[str]) -> str:
        """The next one that *passed_over* does not match; none at the end of the file."""
        scanned = 0
        while True:
            match = passed_over.match(self._text, self._position)
            assert match is not None
            scanned += match.end() - self._position
            self._position = match.end()
            if self._position < len(self._text):
                return self._text[self._position]
            if scanned > _MAX_PASSED_OVER or not self._fill():
                return ""

    # ── Arrays ──────────────────────────────────────────────────────────────────────────────────────

    def _array(self) -> Iterator[Item]:
        number = 0
        while (character := self._next_character(_SPACE_OR_COMMA)) != "]":
            number += 1
            if not character:
                yield Item(number, False, error=CUT_OFF)
                return
            try:
                yield Item(number, False, self._value())
            except _Broken as error:
                has_end = self._pass_over()
                yield Item(number, False, error=str(error) if has_end else CUT_OFF)
                if not has_end:
                    return
        self._position += 1

    def _value(self) -> Any:
        """The value that begins here. Raises _Broken, and then the position is unchanged."""
        while True:
            is_cut, reason = False, CUT_OFF
            try:
                value, end = _scan(self._text, self._position)
            except json.JSONDecodeError as error:
                reason = f"not JSON: {error.msg}"
                is_cut = error.pos > len(self._text) - _TAIL or error.msg.startswith("Unterminated string")
            except RecursionError:
                raise _Broken("nested too deeply") from None
            except ValueError as error:  # A number of thousands of digits.
                raise _Broken(f"not JSON that can be kept: {error}") from None
            else:
                # The next chunk may have further digits of a number.
                if self._text[end - 1] in '}]"' or end < len(self._text) or self._is_at_end:
                    return self._taken(value, end)
                is_cut = True
            if not is_cut:
                raise _Broken(reason)
            if len(self._text) - self._position > MAX_VALUE:
                raise _Broken(f"larger than {MAX_VALUE >> 20} MiB")
            if not self._fill():
                raise _Broken(reason)

    def _taken(self, value: Any, end: int) -> Any:
        if end - self._position > MAX_VALUE:
            raise _Broken(f"larger than {MAX_VALUE >> 20} MiB")
        if _HALF.search(self._text, self._position, end):
            value = whole_characters(value)
        self._position = end
        return value

    def _pass_over(self) -> bool:
        """Moves behind the value that begins here, be it valid or not; False when its end is not found.

        A bracket closes the last one of its kind, and all that were opened since.
        """
        in_text, scanned = False, 0
        opened = bytearray()
        while True:
            # A backslash at the end escapes a character that has not been read yet.
            end = len(self._text) - self._text.endswith("\\")
            for found in _STRUCTURE.finditer(self._text, self._position, end):
                token = found.group()
                if in_text:
                    in_text = token != '"'
                elif token == '"':
                    in_text = True
                elif token in "[{":
                    opened += token.encode()
                elif token == ",":
                    if not opened:
                        return self._go_to(found.end())
                elif token in "]}":
                    level = opened.rfind(b"[" if token == "]" else b"{")
                    if level < 0 and token == "]":
                        return self._go_to(found.start())
                    del opened[max(level, 0) :]
                    if not opened:
                        return self._go_to(found.end())
            scanned += end - self._position
            self._position = end
            if max(scanned, len(opened) * 100) > _MAX_PASSED_OVER or not self._fill():
                return False

    def _go_to(self, position: int) -> bool:
        self._position = position
        return True

    # ── Lines, and single values ────────────────────────────────────────────────────────────────────

    def _lines_or_values(self) -> Iterator[Item]:
        line, is_whole = self._line()
        if is_whole and _parsed(line) is not None:
            yield from self._lines()
            return
        try:
            value = self._value()
        except _Broken as error:
            if is_whole and self._has_line_of_its_own(len(line) + 1):
                yield from self._lines()
            else:
                yield Item(1, True, error=str(error) if self._pass_over() else CUT_OFF)
            return
        yield Item(1, True, value)
        yield from self._values(2)

    def _values(self, number: int) -> Iterator[Item]:
        """Whole values that follow one another, as programs print them."""
        while self._next_character(_SPACE):
            try:
                yield Item(number, False, self._value())
            except _Broken as error:
                yield Item(number, False, error=str(error))
                return
            number += 1

    def _has_line_of_its_own(self, offset: int) -> bool:
        """Whether a whole value is the line that begins *offset* characters from here."""
        start = self._position + offset
        end = self._text.find("\n", start)
        return _parsed(self._text[start : end if end >= 0 else len(self._text)]) is not None

    def _lines(self) -> Iterator[Item]:
        number = 0
        while True:
            line, is_whole = self._line()
            number += 1
            if len(line) > MAX_VALUE:
                yield Item(number, True, error=f"larger than {MAX_VALUE >> 20} MiB")
                if not self._to_next_line():
                    return
                continue
            if line.strip():
                try:
                    value = json.loads(line)
                    yield Item(number, True, whole_characters(value) if _HALF.search(line) else value)
                except (ValueError, RecursionError, _Broken) as error:
                    if not is_whole:
                        return  # It is not there yet.
                    yield Item(number, True, error=_reason(error))
            if not is_whole:
                return
            self._position += len(line) + 1

    def _line(self) -> tuple[str, bool]:
        """The line that begins here, without its newline, and whether it has one."""
        searched = 0
        while True:
            end = self._text.find("\n", self._position + searched)
            if end >= 0:
                return self._text[self._position : end], True
            searched = len(self._text) - self._position
            if searched > MAX_VALUE or not self._fill():
                return self._text[self._position :], False

    def _to_next_line(self) -> bool:
        scanned = 0
        while (end := self._text.find("\n", self._position)) < 0:
            scanned += len(self._text) - self._position
            self._position = len(self._text)
            if scanned > _MAX_PASSED_OVER or not self._fill():
                return False
        self._position = end + 1
        return True


def _parsed(line: str) -> Any:
    """The value in a line; ``None`` when there is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg}"
    return str(error)


def whole_characters(value: Any) -> Any:
    """*value* with U+FFFD for each half of a surrogate pair, in texts and names of fields."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise _Broken("nested too deeply") from None
    return json.loads(_LONE.sub("\N{REPLACEMENT CHARACTER}", text)) if _LONE.search(text) else value
