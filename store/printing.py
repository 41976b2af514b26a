"""Text for a terminal: what others wrote can neither move its cursor nor turn the direction of its lines.

Control characters become ``\\xNN``; characters that set the direction of text or end a line ``\\u{…}``.
Everything else stays: accents, emoji with their joiners, blanks of any width.
"""

from __future__ import annotations

import re

# Controls (DEL and the second range too), direction, separators of lines and paragraphs, half pairs.
_UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff"
_IN_LINE = re.compile(f"[{_UNSAFE}]")
_IN_LINES = re.compile(f"(?![\n\t])[{_UNSAFE}]")
_NAMED = {"\n": "\\n", "\t": "\\t"}


def printable(text: str) -> str:
    """*text* as one line: newlines and tabs become ``\\n`` and ``\\t``."""
    return text if text.isprintable() else _IN_LINE.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """*text* with its lines and tabs; the line ends of Windows are newlines."""
    return _IN_LINES.sub(_escaped, text.replace("\r\n", "\n"))


def printable_json(line: str) -> str:
    """A JSON document, which means the same as before."""
    return _IN_LINES.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if code < 0x100:
        return _NAMED.get(character) or f"\\x{code:02x}"
    # In a path, half of a pair is a byte that is not UTF-8, as Python has it.
    return f"\\u{code:04x}" if 0xD800 <= code < 0xE000 else f"\\u{{{code:x}}}"
