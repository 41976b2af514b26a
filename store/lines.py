"""Reading a message log line by line: in bounded memory, one bad line costing one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from store.documents import MAX_LINE_BYTES

_CHUNK_BYTES = 1 << 20


def iter_lines(read: Callable[[int, int], bytes], offset: int = 0) -> Iterator[tuple[bytes, int]]:
    """The complete lines from *offset* on, without their newlines, and where in the log each ends.

    *read* gives at most so many bytes at an offset, and none at the end. A line that is too long for a
    message comes out empty.
    """
    pieces: list[bytes] = []
    size, end = 0, offset
    while chunk := read(offset, _CHUNK_BYTES):
        offset += len(chunk)
        first, *others = chunk.split(b"\n")
        # A line that is too long is cut where that is known.
        if size <= MAX_LINE_BYTES:
            pieces.append(first)
        size += len(first)
        for following in others:
            end += size + 1
            yield b"".join(pieces) if size <= MAX_LINE_BYTES else b"", end
            pieces, size = [following], len(following)
