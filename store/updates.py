"""Changes of documents that are the same in every store: read one, change it, put it back in one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from store import transitions
from store.api import DocumentKey
from store.errors import InvalidDocument, ModifiedSince
from store.models import Document, Run, RunError, RunStep
from store.statuses import RunStatus, RunStepStatus

D = TypeVar("D", bound=Document)


class Updates(Protocol):
    """A base for stores, which supply the change of a document in one step."""

    def _update(self, key: DocumentKey, model: type[D], change: Callable[[D], D]) -> D:
        """Replaces a document by the result of *change*, which gets its model; returns that result."""
        ...

    def patch_document(
        self, key: DocumentKey, patch: dict[str, Any], *, expected: dict[str, Any] | None = None
    ) -> None:
        """Merges *patch* (RFC 7396) into a document; a status in it changes the status as well.

        Raises:
            ModifiedSince: a field of *expected* has another value: another program was faster.
        """

        def changed(stored: Document) -> Document:
            fields = stored.fields() if expected else {}
            if any(fields.get(name) != value for name, value in (expected or {}).items()):
                raise ModifiedSince(key.thread_id)
            return transitions.patched(key, stored, patch)

        self._update(key, transitions.model_of(key), changed)

    def update_run_status(
        self,
        thread_id: str,
        run_id: str,
        status: RunStatus,
        error: RunError | None = None,
        *,
        expected: RunStatus | None = None,
    ) -> Run:
        """Sets the status of a run that has not ended, and ``last_error`` to *error* or none.

        Raises:
            RunInTerminalState: it has ended, with whatever status.
            StatusChanged: it is not in the *expected* status: another program was faster.
        """
        wanted = known_status(status)
        return self._update(
            DocumentKey(thread_id, run_id),
            Run,
            lambda run: transitions.with_status(run, wanted, error, expected=expected),
        )

    def force_update_run_status(
        self, thread_id: str, run_id: str, status: RunStatus, error: RunError | None = None
    ) -> Run:
        """As `update_run_status`, also for a run that has ended."""
        wanted = known_status(status)
        return self._update(
            DocumentKey(thread_id, run_id),
            Run,
            lambda run: transitions.with_status(run, wanted, error, force=True),
        )

    def cancel_run(self, thread_id: str, run_id: str, *, force: bool = False) -> Run:
        """Cancels a run, whether or not a worker holds it; one that is cancelled already stays as it is.

        Raises:
            RunInTerminalState: it has ended otherwise, and *force* is not given.
        """
        return self._update(
            DocumentKey(thread_id, run_id), Run, lambda run: transitions.cancelled(run, force=force)
        )

    def update_step_status(self, thread_id: str, run_id: str, step_id: str, status: RunStepStatus) -> RunStep:
        """Sets the status of a step that has not ended, and the time when it did.

        Raises:
            RunStepInTerminalState: it has ended with another status.
        """
        try:
            wanted = RunStepStatus(status)
        except ValueError:
            raise InvalidDocument(f"status: {status!r} is no status of a step") from None
        return self._update(
            DocumentKey(thread_id, run_id, step_id),
            RunStep,
            lambda step: transitions.with_step_status(step, wanted),
        )


def known_status(status: str) -> RunStatus:
    """Raises InvalidDocument."""
    try:
        return RunStatus(status)
    except ValueError:
        raise InvalidDocument(f"status: {status!r} is no status of a run") from None
