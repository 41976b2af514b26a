"""What is imported from: a file, or a member of a zip or directory, read once from its beginning."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Protocol, TypeAlias

# Is called with the number of bytes that were read.
Advance: TypeAlias = Callable[[float], object]

# Is called with the id of a picture, and its bytes as base64: it may be written somewhere.
Keep: TypeAlias = Callable[[str, str], None]

# How many bytes decide whose a file is.
_HEAD_BYTES = 1 << 20
# The errors of a zip member that is damaged, encrypted, or packed in an unknown way.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, ValueError)


class Unreadable(Exception):
    """A file cannot be read, or not to its end; the message says why."""


def _keep_nothing(file_id: str, data: str) -> None:
    pass


class Container(Protocol):
    """Files by their names, which have slashes, in alphabetical order."""

    name: str

    def members(self) -> list[str]: ...
    def opened(self, member: str) -> IO[bytes]:
        """Raises OSError, Unreadable."""
        ...

    def packed(self, member: str) -> float:
        """How many bytes of the FILE one byte of a member takes: for the progress bar."""
        ...


@dataclass(slots=True)
class File:
    """*name* is the name in messages; stdin has none. *advance* is called with the bytes that were read.

    A source calls *keep* for each picture that is in the file itself.
    """

    name: str
    stream: IO[bytes]
    advance: Advance
    container: Container | None = None
    # Its name in the container.
    member: str = ""
    keep: Keep = _keep_nothing
    _head: bytes | None = None
    _ahead: bytes = field(default=b"", init=False)

    def head(self) -> bytes:
        """The first MiB of the file, or all of it. Raises Unreadable."""
        if self._head is None:
            pieces, size = [], 0
            while size < _HEAD_BYTES and (piece := self._read(_HEAD_BYTES - size)):
                pieces.append(piece)
                size += len(piece)
            self._head = self._ahead = b"".join(pieces)
        return self._head

    def read(self, size: int) -> bytes:
        """The next bytes, at most *size*; none at the end of the file. Raises Unreadable."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return self._read(size)

    def _read(self, size: int) -> bytes:
        try:
            data = self.stream.read(size)
        except OSError as error:
            raise Unreadable(error.strerror or str(error)) from None
        except _ZIP_ERRORS as error:
            raise Unreadable(f"cannot be unpacked: {error}") from None
        self.advance(len(data))
        return data

    def lines(self) -> Iterator[bytes]:
        """The lines, with their newlines; the last one may have none. Raises Unreadable."""
        pieces: list[bytes] = []
        while data := self.read(_HEAD_BYTES):
            first, *others = data.split(b"\n")
            pieces.append(first)
            for following in others:
                yield b"".join(pieces) + b"\n"
                pieces = [following]
        if rest := b"".join(pieces):
            yield rest


ZIP = (b"PK\x03\x04", b"PK\x05\x06")
SQLITE = b"SQLite format 3\0"
ZSTD = b"\x28\xb5\x2f\xfd"
# The first bytes of files that are not JSON.
_MAGIC = (
    (SQLITE, "a SQLite database"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"%PDF-", "a PDF"),
    (b"\x1f\x8b", "packed with gzip: unpack it first"),
    (b"BZh", "packed with bzip2: unpack it first"),
    (b"\xfd7zXZ\0", "packed with xz: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
)
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*[\[{]")
# Markdown may begin with a square bracket, too, but not so.
_SURELY_JSON = re.compile(rb'(?:\xef\xbb\xbf)?[ \t\r\n]*(?:\[[ \t\r\n]*)?\{[ \t\r\n]*["}]')
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def may_be_json(head: bytes) -> bool:
    return bool(_JSON.match(head)) or head.startswith(_UTF_16)


def is_surely_json(head: bytes) -> bool:
    return bool(_SURELY_JSON.match(head))


def look_of(head: bytes) -> str:
    """What a file that is not JSON looks like, for a message."""
    for magic, look in _MAGIC:
        if head.startswith(magic):
            return look
    try:
        head[:4096].decode()
    except UnicodeDecodeError as error:
        if error.start < min(len(head), 4096) - 3:
            return "binary data"
    return "binary data" if b"\0" in head[:4096] else "a text"
