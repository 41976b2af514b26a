"""What is in a store's directory, looked at and read: all that its catalogue needs.

Nothing here changes a store or needs the models of documents, which take longer to import than most stores to
be searched. So a command that only asks the catalogue opens no more than this.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from store import names
from store.api import DocumentKey, Info, LogReader
from store.changes import Announcer
from store.disk import files, layout
from store.disk.layout import META
from store.disk.listing import Listing
from store.disk.log import DiskLogReader
from store.disk.reported import Reported
from store.errors import NotFound, ThreadNotFound

if TYPE_CHECKING:  # They need the library for watching, or SQLite.
    from store.catalogue.api import Catalogue
    from store.disk.catalogue import DiskCatalogue
    from store.disk.followed import Followed
    from store.disk.seen import SeenInThread


class StoredFiles:
    # Gets each thread that was deleted, and its log, to read it once more and to close it.
    on_deleted: Callable[[str, LogReader], None] | None = None

    def __init__(self, location: str) -> None:
        self.location = location
        # Without links, so that none is followed when something in it is opened.
        self.root = os.path.realpath(location)
        self._listing = Listing(self.root)
        self._followed: Followed | None = None
        self.announcer = Announcer()
        self._catalogue: DiskCatalogue | None = None
        self._cataloguing = threading.Lock()

    def close(self) -> None:
        """Closes the catalogue."""
        with self._cataloguing:
            if self._catalogue is not None:
                self._catalogue.close()
                self._catalogue = None

    def catalogue(self, *, keeps_words: bool = True) -> Catalogue:
        """What is in the store, by titles, days and words. It is closed with the store.

        The first call says whether it *keeps_words* of messages; without, each search reads the logs.
        """
        return self._disk_catalogue(keeps_words=keeps_words)

    def _disk_catalogue(self, *, keeps_words: bool = True) -> DiskCatalogue:
        from store.disk.catalogue import DiskCatalogue  # It needs SQLite, which most programs do not.

        with self._cataloguing:
            if self._catalogue is None:
                self._catalogue = DiskCatalogue(self, keeps_words=keeps_words)
            return self._catalogue

    # ── What is there ────────────────────────────────────────────────────────────────────────────────

    def list_thread_ids(self) -> list[str]:
        """The ids of all threads, in no order."""
        return self._listing.ids((), META)

    def document_info(self, key: DocumentKey) -> Info:
        """Size, time and version of a stored document.

        Raises:
            ThreadNotFound, RunNotFound, RunStepNotFound: there is none.
            Damaged: something that is no regular file has its name.
        """
        seen = self._seen_in(key)
        if seen is not None and (known := seen.infos.get(key)) is not None:
            return known
        info = files.stat_path(self.root, layout.parts(key))
        if info is None:
            raise self._gone(key)
        if seen is not None:
            seen.remember_info(key, info)
        return info

    def _seen_in(self, key: DocumentKey) -> SeenInThread | None:
        """What was seen in the thread a moment ago, if each change in it is reported."""
        return None if (followed := self._followed) is None else followed.seen_in(key.thread_id)

    def read_document(self, key: DocumentKey) -> tuple[bytes, Info]:
        """The stored bytes of one version of a document, valid or not, and its info."""
        seen = self._seen_in(key)
        found = files.read_path(self.root, layout.parts(key))
        if found is None:
            raise self._gone(key)
        if seen is not None:
            seen.remember_info(key, found[1])
        return found

    def _gone(self, key: DocumentKey) -> NotFound:
        """The error for a document that is not there; the remembered lists drop it."""
        if key.step_id is None:
            self._listing.forget(layout.place(key)[0])
        return layout.not_found(key)

    def open_log(self, thread_id: str) -> DiskLogReader:
        """The log, open for reading at any offset."""
        key = DocumentKey(thread_id)
        try:
            reader = DiskLogReader(self.root, names.checked(thread_id))
        except ThreadNotFound:
            raise self._gone(key) from None
        try:
            reader.document = self.document_info(key)
        except BaseException:
            reader.close()
            raise
        return reader

    # ── What is told of it ───────────────────────────────────────────────────────────────────────────

    @property
    def reports_threads(self) -> bool:
        """Whether each thread that others make or delete is reported to all watches."""
        return (followed := self._followed) is not None and followed.reports_threads

    def reported_of(self, thread_id: str) -> Reported:
        """What is reported to all watches of what others change in a thread."""
        return Reported.NOTHING if (followed := self._followed) is None else followed.reported_of(thread_id)

    def reported_among(self, thread_ids: Iterable[str]) -> dict[str, Reported]:
        """As `reported_of`, of some threads; at least of those of which anything is reported."""
        return {} if (followed := self._followed) is None else followed.reported_among(thread_ids)

    def hear(self) -> None:
        """Returns when all have been told what others have changed so far, in what is followed."""
