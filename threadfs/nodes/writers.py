"""When a write counts.

There are two kinds of writers. A *text* writer (``say``, ``start``, ``cancel``) is like a pipe: it ignores
offsets and joins the pieces. A *document* writer collects the bytes of a file, which become the document. It
commits a word at once, and JSON in the ``write`` that closes its object, because a shell ignores an error of
``close``. Half a document, or a change in the middle, is checked at ``flush``.

A refused ``write`` adds nothing, and the kernel does not advance the caller's offset either. Earlier bytes
stay, so that later writes can continue them, but count only if one does: the caller knows of the refusal. A
refused ``flush`` is refused again the next time: some programs (emacs) take EINVAL from fsync for "not
supported here" and rely on close. A flush without new bytes commits nothing. Nor does a flush after a failure
of the disk, which may have stored the bytes all the same.
"""

from __future__ import annotations

import codecs
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from pydantic_core import from_json

from store import InvalidDocument, StorageFailed
from store.documents import MAX_DOCUMENT_BYTES, why_no_beginning
from threadfs.nodes.base import Refused
from threadfs.nodes.object_end import ObjectEnd

# Up to this size each write is checked to be the beginning of JSON; beyond it, each doubling of the size.
_CHECK_ALWAYS_BYTES = 1 << 20


def decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"not UTF-8 at byte {error.start}") from None


class Flushed(Protocol):
    # Whether something was written since the last commit or refused write.
    is_new: bool


@contextmanager
def committed_once(writer: Flushed) -> Iterator[None]:
    """Clears *is_new* when the block has committed, or the storage has failed; a refusal leaves it set."""
    try:
        yield
    except StorageFailed:
        writer.is_new = False
        raise
    writer.is_new = False


class TextWriter:
    """Joins the text of all writes and passes it to *commit* at ``flush``.

    Each write passes all text so far to *at_once*, if given, which returns whether it has committed it.
    Before a write is accepted, *check* gets the size in bytes that the text would have; it may raise
    WouldWait.
    """

    def __init__(
        self,
        commit: Callable[[bytes], None],
        *,
        limit_bytes: int,
        at_once: Callable[[bytes], bool] | None = None,
        check: Callable[[int], None] = lambda size_bytes: None,
    ) -> None:
        self._commit = commit
        self._at_once = at_once
        self._check = check
        self._limit = limit_bytes
        self._text = bytearray()
        self._characters = codecs.getincrementaldecoder("utf-8")()
        self.is_new = False
        self._is_too_large = False
        self.only_buffers = at_once is None

    @property
    def has_uncommitted(self) -> bool:
        return self.is_new

    def write(self, offset: int, data: bytes) -> None:
        if self._is_too_large or len(self._text) + len(data) > self._limit:
            # Neither its beginning nor its end may count as the whole text.
            self._begin()
            self._is_too_large = True
            raise Refused(errno.EFBIG, f"at most {self._limit} bytes can be written here")
        before = self._characters.getstate()
        try:
            if self._at_once is not None and self._at_once(bytes(self._text) + data):
                self._begin()
                return
            self._decode(data)
            self._check(len(self._text) + len(data))
        except BaseException:
            self._characters.setstate(before)
            self.is_new = False
            raise
        self._text += data
        self.is_new = True

    def _decode(self, data: bytes) -> None:
        """Refuses bytes that are not UTF-8; a character may be split between two writes."""
        pending, _ = self._characters.getstate()
        try:
            self._characters.decode(data)
        except UnicodeDecodeError as error:
            at = len(self._text) - len(pending) + error.start
            lost = ", and what came before it does not count unless more follows" if self._text else ""
            raise InvalidDocument(f"not UTF-8 at byte {at}{lost}") from None

    def _begin(self) -> None:
        """Drops the text so far."""
        self._text.clear()
        self._characters.reset()
        self.is_new = False

    def truncate(self, size: int) -> None:
        if size:
            raise Refused(errno.EINVAL, "this file is always empty: it can be truncated to 0 only")
        self._begin()
        self._is_too_large = False

    def flush(self) -> None:
        if self.is_new:
            with committed_once(self):
                self._commit(bytes(self._text))
            self._begin()

    def read(self, offset: int, size: int) -> bytes:
        return b""

    def close(self) -> None:
        pass


class DocumentWriter:
    """Bytes that become a document.

    *stored* returns the bytes to start from if the file was opened without O_TRUNC. *word* gets the text
    while it does not begin like JSON: it commits it and returns True, returns False if more may follow, or
    refuses. *on_close* is called at the last close.
    """

    only_buffers = False

    def __init__(
        self,
        stored: Callable[[], bytes],
        commit: Callable[[bytes], None],
        word: Callable[[bytes], bool],
        *,
        truncate: bool,
        append: bool,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._stored = stored
        self._on_close = on_close
        self._commit = commit
        self._word = word
        self._append = append
        # None: nothing was written yet, and the file reads as stored.
        self._content: bytearray | None = bytearray() if truncate or append else None
        # How many bytes were written from the start without a gap. Bytes after them are of the old document.
        self._fresh_bytes = 0
        # Finds the end of the object in them; None after a write in the middle, which may move the end.
        self._end: ObjectEnd | None = ObjectEnd()
        self._starts_empty = self._content is not None
        self.is_new = False
        # The end of the last committed document, until something else is written.
        self._committed_to: int | None = None
        # The file offset at which the current document begins.
        self._base = 0
        # The size at the last check that this may become JSON.
        self._checked = 0

    @property
    def has_uncommitted(self) -> bool:
        return self.is_new

    def write(self, offset: int, data: bytes) -> None:
        content = bytearray(self._stored()) if self._content is None else self._content
        start = len(content) if self._append else offset - self._base
        fresh_bytes, end = self._fresh_bytes, self._end
        if start == self._committed_to:
            if not data.strip():
                # Blanks after the document mean nothing.
                content[start : start + len(data)] = data
                self._fresh_bytes = self._committed_to = start + len(data)
                return
            # The next document begins.
            self._base += start
            self._content = content = bytearray()
            self._starts_empty, self._committed_to = True, None
            self._fresh_bytes = start = fresh_bytes = 0
        if start < 0 or start + len(data) > MAX_DOCUMENT_BYTES:
            self.is_new = False
            raise Refused(errno.EFBIG, f"a document has at most {MAX_DOCUMENT_BYTES} bytes")
        if start == 0:
            fresh_bytes, end = 0, ObjectEnd()
        if start == fresh_bytes:
            fresh_bytes += len(data)
            end = end.copy() if end is not None else None
        else:
            end = None
        # Write in place, and undo it if it is refused.
        length = len(content)
        content.extend(bytes(max(0, start - length)))
        before = bytes(content[start : start + len(data)])
        content[start : start + len(data)] = data
        try:
            done = self._accept(content, fresh_bytes, end, data)
        except BaseException:
            content[start : start + len(data)] = before
            del content[length:]
            self.is_new = False
            raise
        self._content, self._fresh_bytes, self._end = content, fresh_bytes, end
        self.is_new, self._committed_to = not done, fresh_bytes if done else None

    def _accept(self, content: bytearray, fresh_bytes: int, end: ObjectEnd | None, data: bytes) -> bool:
        """Commits a word or a document and returns True. Refuses text that cannot become a document."""
        if not content[: min(fresh_bytes, 64)].lstrip().startswith(b"{"):
            fresh = bytes(content[:fresh_bytes])
            is_line = self._starts_empty and fresh.endswith(b"\n")
            if (fresh.strip() or is_line) and not fresh.lstrip().startswith(b"{"):
                return self._word(fresh)
        if end is not None and (behind := end.find(data)) is not None:
            if data[behind:].strip():
                raise InvalidDocument("something follows the document: write one at a time")
            self._commit(bytes(content[: fresh_bytes - len(data) + behind]))
            return True
        if self._starts_empty and (len(content) < _CHECK_ALWAYS_BYTES or len(content) >= 2 * self._checked):
            self._checked = len(content)
            check_beginning(bytes(content))
        return False

    def truncate(self, size: int) -> None:
        if size == 0:
            self._content, self._fresh_bytes, self._end = bytearray(), 0, ObjectEnd()
            self._starts_empty, self.is_new, self._committed_to, self._base = True, False, None, 0
            return
        if self._content is None:
            self._content = bytearray(self._stored())
        if size - self._base > MAX_DOCUMENT_BYTES:
            raise Refused(errno.EFBIG, f"a document has at most {MAX_DOCUMENT_BYTES} bytes")
        size = max(0, size - self._base)
        if size == len(self._content):
            return
        del self._content[size:]
        if size == self._committed_to:
            return  # It cuts off the rest of a longer document, over which this one was written.
        self._content.extend(bytes(size - len(self._content)))
        self._fresh_bytes, self._end = min(size, self._fresh_bytes), None
        self.is_new, self._committed_to = True, None

    def flush(self) -> None:
        if not self.is_new or self._content is None:
            return
        with committed_once(self):
            if not self._content.strip():
                raise InvalidDocument("nothing but blanks was written, which is no document")
            whole = self._whole()
            self._commit(whole)
        self._committed_to = len(whole)

    def _whole(self) -> bytes:
        """All bytes; or only those written from the start, if all of them are not JSON."""
        content = bytes(self._content or b"")
        fresh = content[: self._fresh_bytes]
        if fresh and fresh != content:
            try:
                from_json(content, cache_strings="none")
            except ValueError:
                return fresh
        return content

    def close(self) -> None:
        self._on_close()

    def read(self, offset: int, size: int) -> bytes:
        content = self._stored() if self._content is None else bytes(self._content)
        return content[offset : offset + size]


def check_beginning(data: bytes) -> None:
    """Refuses bytes that cannot become a JSON document by adding more.

    Raises:
        InvalidDocument: with the place of the first wrong byte.
    """
    if not data.strip():
        return
    try:
        from_json(data, allow_partial=True, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        if "recursion" not in str(error):  # The final parser goes deeper than this one.
            raise InvalidDocument(why_no_beginning(data)) from None
