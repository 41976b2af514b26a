"""One import: from FILEs to what is told at the end."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, cast

from store import StorageFailed, Store, StoreError, Unreachable
from threadfs.importing import openai_objects
from threadfs.importing.attached import AttachedFiles
from threadfs.importing.containers import Directory, Zip, files_in, missing_shards
from threadfs.importing.conversations import Conversation, NotImported, Skipped
from threadfs.importing.files import ZIP, Advance, Container, File, Unreadable
from threadfs.importing.merging import IMPORTED, LEFT, Merge
from threadfs.importing.openai_lines import Import
from threadfs.importing.recognising import Nobodys, Recognised, module_of, recognised
from threadfs.importing.reporting import Report
from threadfs.importing.target import MadeWhenNeeded
from threadfs.importing.zstd import unpacked

STDIN = "-"
_PIECE_BYTES = 1 << 20
# Errors of the disk that every further conversation would have, too.
_FOR_ALL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class Stopped(Exception):
    """The store takes nothing more; the text says why."""


@dataclass(slots=True)
class Session:
    """*from_source* insists on one source. *advance* is told of the bytes of the FILEs that were read."""

    merge: Merge
    report: Report
    advance: Advance
    from_source: str | None = None
    with_branches: bool = False
    attached: AttachedFiles | None = None
    _collected: openai_objects.Collected = field(default_factory=openai_objects.Collected)
    _target: MadeWhenNeeded = field(init=False)

    def __post_init__(self) -> None:
        self._target = MadeWhenNeeded(self.merge)

    def read(self, paths: list[str]) -> None:
        """Imports all FILEs. Raises Stopped, Unreachable."""
        for path in paths:
            try:
                self._read(path)
            except OSError as error:
                self._skip(path, error.strerror or str(error))
            except Unreadable as error:
                self._skip(path, str(error))
        for importing in self._collected.finish(cast(Store, self._target), self._refuse):
            self._count(importing)
        self.report.counts[IMPORTED] -= self._target.repeated
        self.report.counts[LEFT] += self._target.repeated

    def _read(self, path: str) -> None:
        if path == STDIN:
            if sys.stdin is None:
                raise Unreadable("stdin is closed: the export is read from there")
            file = File("", sys.stdin.buffer, self.advance)
            if file.head().strip():
                self._single(file)
        elif os.path.isdir(path):
            self._container(Directory(path))
        else:
            with open(path, "rb") as stream:
                self._single(File(path, stream, self.advance))

    def _single(self, file: File) -> None:
        """A FILE that is given by itself."""
        file = unpacked(file)
        head = file.head()
        if not head:
            self._skip(file.name, "is empty")
        elif head.startswith(ZIP):
            with _seekable(file) as stream:
                self._container(Zip.of(file.name or "stdin", stream))
        else:
            found = recognised(file, self.from_source)
            if isinstance(found, Nobodys):
                self._name(file, found)
            else:
                self._import(file, found)

    def _name(self, file: File, found: Nobodys) -> None:
        if found.broken is not None:
            self.report.skip(file.name, found.broken.where, "", found.broken.error)
        else:
            wanted = f" as {self.from_source}" if self.from_source else ""
            self._skip(file.name, f"not recognised{wanted}: it looks like {found.look}")

    def _container(self, container: Container) -> None:
        """Imports what is recognised in it. It is named only if nothing is."""
        before = len(self.report.skipped)
        if not self._members(container) and len(self.report.skipped) == before:
            wanted = f" as {self.from_source}" if self.from_source else ""
            self._skip(container.name, f"not recognised{wanted}: nothing in it is an export")

    def _members(self, container: Container) -> bool:
        """Whether any of it is an export."""
        anything = False
        for file in files_in(container, self.advance, self._skip):
            try:
                anything |= self._member(file)
            except Unreadable as error:
                self._skip(file.name, str(error))
        if anything and self.from_source in (None, "chatgpt"):
            for shard in missing_shards(container):
                self.report.skip(container.name, shard, "", "is missing, though the export names it")
        return anything

    def _member(self, file: File) -> bool:
        file = unpacked(file)
        head = file.head()
        if head.startswith(ZIP) and isinstance(file.container, Directory):
            return self._members(Zip.of(file.name, file.stream))
        found = recognised(file, self.from_source) if head else Nobodys("nothing")
        if isinstance(found, Recognised):
            self._import(file, found)
            # An empty list may be of any source.
            return bool(found.source) or self.from_source is None
        if found.broken is not None:
            self._name(file, found)
        return False

    def _import(self, file: File, found: Recognised) -> None:
        if not found.source:
            return
        if self.attached is not None:
            file.keep = self._keep
        if found.source == "openai":
            self._import_objects(file, found)
            return
        try:
            for outcome in module_of(found.source).conversations(found.items, file):
                if isinstance(outcome, Skipped):
                    self.report.skip(file.name, outcome.where, outcome.title, outcome.reason)
                else:
                    self._bring(found.source, outcome, file)
        except Unreadable as error:
            self._skip(file.name, str(error))

    def _bring(self, source: str, conversation: Conversation, file: File) -> None:
        self.report.unknown += conversation.unknown
        try:
            self.merge.bring(source, conversation, with_branches=self.with_branches)
            if self.attached is not None:
                self.attached.write(conversation, file.container)
        except StoreError as error:
            if isinstance(error, Unreachable):
                raise
            if isinstance(error, StorageFailed) and error.errno in _FOR_ALL:
                raise Stopped(str(error)) from None
            self.report.skip(file.name, conversation.where, conversation.shown_title, str(error))
        except Unreadable as error:
            self.report.skip(file.name, conversation.where, conversation.shown_title, f"a file of it {error}")
        except OSError as error:
            # Of the directory for --files.
            raise Stopped(f"{error.filename or file.name}: {error.strerror}") from None
        except NotImported as error:
            self.report.skip(
                file.name, conversation.where, conversation.shown_title, f"another branch: {error}"
            )
        except RecursionError:
            self.report.skip(file.name, conversation.where, conversation.shown_title, "nested too deeply")

    def _keep(self, file_id: str, data: str) -> None:
        assert self.attached is not None
        try:
            self.attached.keep(file_id, data)
        except OSError as error:
            raise Stopped(f"{error.filename or self.attached.directory}: {error.strerror}") from None

    # ── OpenAI's objects ────────────────────────────────────────────────────────────────────────────

    def _import_objects(self, file: File, found: Recognised) -> None:
        if not found.is_export:
            for skipped in self._collected.add(found.items, file.name):
                self.report.skip(file.name, skipped.where, skipped.title, skipped.reason)
            return

        def refuse(said: str) -> None:
            where, _, reason = said.partition(": ")
            self.report.skip(file.name, where, "", reason)

        importing = Import(cast(Store, self._target), refuse)
        try:
            importing.read(file.lines())
        finally:
            self._count(importing)

    def _count(self, importing: Import) -> None:
        self.report.counts[IMPORTED] += importing.imported
        self.report.counts[LEFT] += importing.left

    def _refuse(self, file: str, where: str, reason: str) -> None:
        self.report.skip(file, where, "", reason)

    def _skip(self, file: str, reason: str) -> None:
        self.report.skip(file, "", "", reason)


@contextmanager
def _seekable(file: File) -> Iterator[IO[bytes]]:
    """The file, or a temporary copy of what comes through a pipe: a zip is read from its end."""
    if file.stream.seekable():
        yield file.stream
        return
    with tempfile.TemporaryFile() as spool:
        while data := file.read(_PIECE_BYTES):
            spool.write(data)
        yield spool
