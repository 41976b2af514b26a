"""Documents of all kinds: read as stored, changed under the lock of their row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from store import documents, transitions
from store.api import DocumentKey, Info
from store.changes import Part, change_of
from store.errors import InvalidDocument, NotFound
from store.models import Document
from store.postgres.database import Database, Transaction
from store.postgres.leftovers import Leftovers
from store.postgres.tables import (
    CHANGED_NS,
    NOW_NS,
    not_found,
    parsed,
    refuse_foreign,
    row_of,
    status_in,
    stored_time,
)
from store.updates import Updates

D = TypeVar("D", bound=Document)


class Documents(Updates):
    """The part of the store that is the same for threads, runs and steps."""

    _database: Database
    _leftovers: Leftovers

    def document_info(self, key: DocumentKey) -> Info:
        """Size, time and version of a stored document.

        Raises:
            ThreadNotFound, RunNotFound, RunStepNotFound: there is none.
        """
        table, where, row = row_of(key)
        found = self._database.read(
            f"SELECT octet_length(document), modified_ns, version, changed_ns FROM {table} WHERE {where}", row
        )
        if not found:
            raise not_found(key)
        size, modified_ns, version, changed_ns = found[0]
        return Info(size, modified_ns, (version,), changed_ns, version)

    def read_document(self, key: DocumentKey) -> tuple[bytes, Info]:
        """The stored bytes of one version of a document, whatever they are, and its info."""
        table, where, row = row_of(key)
        found = self._database.read(
            f"SELECT document, modified_ns, version, changed_ns FROM {table} WHERE {where}", row
        )
        if not found:
            raise not_found(key)
        document, modified_ns, version, changed_ns = found[0]
        return document, Info(len(document), modified_ns, (version,), changed_ns, version)

    def has_place(self, key: DocumentKey) -> bool:
        """Whether there is such a thread or run: here none is without a document."""
        try:
            self.document_info(key)
        except NotFound:
            return False
        return True

    def check_ours(self, key: DocumentKey, *, with_foreign: bool = False) -> None:
        """That a thread or run is one as its document says. The tables hold nothing else.

        Raises:
            Foreign: its document is none.
        """
        if key.run_id is not None:
            self.check_ours(DocumentKey(key.thread_id))
        refuse_foreign(key, self.read_document(key)[0])

    def _get(self, key: DocumentKey, model: type[D]) -> D:
        return parsed(key, self.read_document(key)[0], model)

    def replace_document(self, key: DocumentKey, document: bytes) -> None:
        """Puts a whole document in place of the stored one; a step that is missing is created.

        It gets the ids that *key* says. A document in the layout of the format is stored byte for byte.

        Raises:
            InvalidDocument: *document* is none.
            RunInTerminalState, RunStepInTerminalState: the stored one has ended, and this differs.
        """

        def changed(stored: bytes | None) -> bytes | None:
            if stored is None:
                return transitions.laid_out_new(key, document)
            try:
                before: Document | None = transitions.document_at(key, documents.parse(stored))
            except InvalidDocument:
                before = None  # A whole document mends a damaged one.
            new = transitions.replaced(key, before, document)
            return None if new == stored else new

        self._database.write(
            key.thread_id, lambda transaction: rewrite(transaction, key, changed, may_add=True)
        )

    def _update(self, key: DocumentKey, model: type[D], change: Callable[[D], D]) -> D:
        """Replaces a document by what *change* makes of its model; returns that."""

        row_of(key)
        return self._database.write(
            key.thread_id, lambda transaction: update(transaction, key, model, change)
        )

    def set_document_modified(self, key: DocumentKey, modified_ns: int) -> None:
        """Sets the time of a stored document's last change, in nanoseconds since 1970."""
        table, where, row = row_of(key)
        time_ns = stored_time(modified_ns, what=table)

        def work(transaction: Transaction) -> None:
            if not transaction.execute(
                f"UPDATE {table} SET modified_ns = %s, changed_ns = {CHANGED_NS}, version = %s"
                f" WHERE {where} RETURNING 1",
                [time_ns, transaction.version, *row],
            ):
                raise not_found(key)
            transaction.changed(replace(change_of(Part.DOCUMENT, key), only_times=True))

        self._database.write(key.thread_id, work, is_commit=False)


def rewrite(
    transaction: Transaction,
    key: DocumentKey,
    change: Callable[[bytes | None], bytes | None],
    *,
    may_add: bool = False,
) -> None:
    """Replaces a document by what *change* makes of the stored bytes; by nothing, when that is ``None``.

    The row is locked before it is read: a second writer waits, then reads what the first one has written,
    so that of two claims one finds the run claimed, and a cancel is not overwritten. With *may_add*,
    *change* gets ``None`` for a step that is not there, and its run is there and locked.
    """
    table, where, row = row_of(key)
    if key.step_id is not None:
        lock_run(transaction, key, not_found(key) if not may_add else None)
    found = transaction.execute(f"SELECT document FROM {table} WHERE {where} FOR NO KEY UPDATE", row)
    if not found and not (may_add and key.step_id is not None):
        raise not_found(key)
    new = change(found[0][0] if found else None)
    if new is None:
        return
    if not found:
        add_step(transaction, key, new)
        return
    status = status_in(key, new)
    transaction.execute(
        f"UPDATE {table} SET document = %s, modified_ns = {NOW_NS}, changed_ns = {CHANGED_NS}, version = %s"
        f"{', status = %s' if status else ''} WHERE {where}",
        [new, transaction.version, *([status] if status else []), *row],
    )
    if key.step_id is not None:
        steps_changed(transaction, key)
    transaction.changed(change_of(Part.DOCUMENT, key))


def update(transaction: Transaction, key: DocumentKey, model: type[D], change: Callable[[D], D]) -> D:
    """Replaces a document by what *change* makes of its model; returns that."""
    result: list[D] = []

    def changed(stored: bytes | None) -> bytes | None:
        if stored is None:
            raise not_found(key)
        after = change(parsed(key, stored, model))
        result.append(after)
        new = documents.pretty(after)
        return None if new == stored else new

    rewrite(transaction, key, changed)
    return result[0]


def lock_run(transaction: Transaction, key: DocumentKey, missing: Exception | None = None) -> None:
    """Raises *missing*, or else RunNotFound, when there is no such run."""
    run = DocumentKey(key.thread_id, key.run_id)
    _, where, row = row_of(run)
    if not transaction.execute(f"SELECT 1 FROM runs WHERE {where} FOR NO KEY UPDATE", row):
        raise missing or not_found(run)


def steps_changed(transaction: Transaction, key: DocumentKey) -> None:
    _, where, row = row_of(DocumentKey(key.thread_id, key.run_id))
    transaction.execute(f"UPDATE runs SET steps_modified_ns = {NOW_NS} WHERE {where}", row)


def add_step(transaction: Transaction, key: DocumentKey, data: bytes) -> bool:
    """Adds a step to a run that is locked; False when the id is taken."""
    if not transaction.execute(
        "INSERT INTO steps (thread_id, run_id, step_id, status, document, modified_ns, version)"
        f" VALUES (%s, %s, %s, %s, %s, {NOW_NS}, %s) ON CONFLICT DO NOTHING RETURNING 1",
        [key.thread_id, key.run_id, key.step_id, status_in(key, data), data, transaction.version],
    ):
        return False
    steps_changed(transaction, key)
    transaction.changed(change_of(Part.STEPS, key), change_of(Part.DOCUMENT, key))
    return True
