"""Finds the end of a JSON object that arrives in pieces."""

from __future__ import annotations

import re

# The inside of a string, up to its end or to a backslash at the end of the piece.
_IN_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
# A whole string, the start of a string, or a bracket of an object or list.
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["{}\[\]]', re.DOTALL)


class ObjectEnd:
    """Scans each byte once.

    It skips strings and counts brackets; a parser checks whether the rest is JSON.
    """

    __slots__ = ("_depth", "_is_escaped", "_is_in_text")

    def __init__(self) -> None:
        self._depth = 0
        self._is_in_text = False
        # Whether the piece ended with a backslash in a string, so that the next byte does not end the string.
        self._is_escaped = False

    def copy(self) -> ObjectEnd:
        other = ObjectEnd()
        other._depth = self._depth
        other._is_in_text, other._is_escaped = self._is_in_text, self._is_escaped
        return other

    def find(self, piece: bytes) -> int | None:
        """The end of the object in *piece*, which continues the earlier ones; None if it goes on."""
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
        """The offset after the string that continues at *start*; notes whether the piece ends in it."""
        found = _IN_TEXT.match(piece, start)
        end = found.end() if found else start
        self._is_in_text = piece[end : end + 1] != b'"'
        self._is_escaped = piece[end : end + 1] == b"\\"
        return end + 1


def object_end(text: bytes) -> int | None:
    """The end of the object at the start of *text*; None if it does not end in *text*."""
    return ObjectEnd().find(text)
