"""How far a log has been taken over into a catalogue, and whether it still begins with what was."""

from __future__ import annotations

import json
from hashlib import blake2b
from itertools import islice
from typing import Final, NamedTuple

from store.api import LogReader
from store.catalogue.values import Signature
from store.disk import signatures
from store.lines import iter_lines

# So much of a log that has grown is read, which takes about a millisecond, to see that nothing else changed.
_READ_BYTES: Final = 1 << 20
_DIGEST_BYTES: Final = 16
# No more of a log is held in memory.
_IN_MEMORY_BYTES: Final = 64 << 20


class LogState(NamedTuple):
    """How far a log has been taken over: so many lines, which end at *size_bytes*.

    *digest* is that of all these lines, in a chain, and *last* that of the last one, which begins at
    *last_at*. *signature* is that of the log when it was read, and *is_whole* says that it was read to its
    end.
    """

    size_bytes: int = 0
    lines: int = 0
    digest: str = ""
    last_at: int = 0
    last: str = ""
    is_whole: bool = False
    signature: Signature = signatures.ABSENT

    @classmethod
    def of(cls, log: bytes) -> LogState:
        size_bytes, lines, digest, last_at, last, is_whole, signature = json.loads(log)
        return cls(size_bytes, lines, digest, last_at, last, is_whole, Signature(*signature))

    def as_bytes(self) -> bytes:
        return json.dumps(self).encode()

    def after(self, line: bytes, end: int) -> LogState:
        """With a further line, which ends at *end*."""
        digest = _digest(self.digest.encode() + b"\n" + line)
        return self._replace(
            size_bytes=end, lines=self.lines + 1, digest=digest, last_at=self.size_bytes, last=_digest(line)
        )


def goes_on(log: LogReader, known: LogState, seen: Signature) -> bool:
    """Whether a log begins with the lines that were taken over.

    One that is long and has only grown, or of which more is to come, is known by its last line; any other
    is read.
    """
    has_grown = seen.inode == known.signature.inode and seen.size_bytes > known.signature.size_bytes
    is_same = not signatures.differs(known.signature, seen)
    if (has_grown and known.size_bytes > _READ_BYTES) or (is_same and not known.is_whole):
        line = log.read(known.last_at, known.size_bytes - known.last_at)
        return not known.lines or _digest(line.removesuffix(b"\n")) == known.last
    state = LogState()
    for line, end in islice(iter_lines(log.read), known.lines):
        state = state.after(line, end)
    return (state.size_bytes, state.digest) == (known.size_bytes, known.digest)


def pieces_taken_over(
    log: LogReader, taken_over: bytes, lines_of_piece: int
) -> list[tuple[LogState, list[tuple[int, bytes]]]]:
    """The lines of a log that were *taken_over*, with their numbers, in pieces, the last one first.

    Each piece comes with what was known before it. Nothing if these are not the lines that the log begins
    with, or if they are very long.
    """
    known, state = LogState.of(taken_over), LogState()
    if known.size_bytes > _IN_MEMORY_BYTES:
        return []
    pieces = []
    lines = islice(iter_lines(log.read), known.lines)
    while following := [*islice(lines, lines_of_piece)]:
        before, numbered = state, []
        for line, end in following:
            state = state.after(line, end)
            numbered.append((state.lines, line))
        pieces.append((before, numbered))
    return pieces[::-1] if (state.size_bytes, state.digest) == (known.size_bytes, known.digest) else []


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
