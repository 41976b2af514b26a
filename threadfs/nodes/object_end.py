"""Where the object of a JSON text ends that arrives in pieces."""

from __future__ import annotations

import re

# What a text holds, up to its end or to a backslash whose other half has not arrived.
_IN_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
# A whole text, what begins one, or what opens or closes an object or a list.
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["{}\[\]]', re.DOTALL)


class ObjectEnd:
    """Looks at each byte once.

    It knows texts, and counts what opens and closes; whether the rest is JSON is for a parser to say.
    """

    __slots__ = ("_depth", "_is_escaped", "_is_in_text")

    def __init__(self) -> None:
        self._depth = 0
        self._is_in_text = False
        # Whether the last byte of a text was a backslash, so that the next byte does not end the text.
        self._is_escaped = False

    def copy(self) -> ObjectEnd:
        other = ObjectEnd()
        other._depth = self._depth
        other._is_in_text, other._is_escaped = self._is_in_text, self._is_escaped
        return other

    def find(self, piece: bytes) -> int | None:
        """Where in *piece*, which continues the pieces before, the object has ended; None if it has not."""
        at = 0
        if self._is_in_text:
            if not piece:
                return None
            at = self._skip_text(piece, int(self._is_escaped))
            if self._is_in_text:
                return None
        for token in _TOKENS.finditer(piece, at):
            byte = token.group()
            if byte in b"{[":
                self._depth += 1
            elif byte in b"}]":
                self._depth -= 1
                if self._depth <= 0:
                    return token.end()
            elif byte == b'"':
                self._skip_text(piece, token.end())
                return None
        return None

    def _skip_text(self, piece: bytes, start: int) -> int:
        """Behind the text that goes on at *start*; notes whether it goes on in the next piece, too."""
        found = _IN_TEXT.match(piece, start)
        end = found.end() if found else start
        self._is_in_text = piece[end : end + 1] != b'"'
        self._is_escaped = piece[end : end + 1] == b"\\"
        return end + 1


def object_end(text: bytes) -> int | None:
    """Where the object ends that *text* begins with; None while it has not ended."""
    return ObjectEnd().find(text)
