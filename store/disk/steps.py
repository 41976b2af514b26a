"""The steps of runs: each a document of its own in the run's directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from store import documents, names
from store.api import DocumentKey
from store.disk import layout
from store.disk.document_files import DocumentFiles
from store.disk.layout import STEPS
from store.disk.paths import opened, storage_errors
from store.errors import Damaged, NotFound
from store.models import RunStep
from store.waiting import waits


class Steps(DocumentFiles):
    def append_step(self, thread_id: str, run_id: str, step: RunStep) -> RunStep:
        """Adds a step to a run.

        Raises:
            RunNotFound: no such run.
            AlreadyExists: the run has a step of this id.
        """
        step = step.model_copy(update={"run_id": run_id, "thread_id": thread_id})
        key = DocumentKey(thread_id, run_id, step.id)
        layout.place(key)  # Raises InvalidName for a wrong id before anything else.
        self._add_step(key, documents.pretty(step))
        return step

    def get_step(self, thread_id: str, run_id: str, step_id: str) -> RunStep:
        return self._get(DocumentKey(thread_id, run_id, step_id), RunStep)

    def list_step_ids(self, thread_id: str, run_id: str) -> list[str]:
        """The ids of the run's steps, damaged ones too, in no order. Raises RunNotFound."""
        key = DocumentKey(thread_id, run_id)
        seen = self._seen_in(key)
        if seen is not None and (known := seen.step_ids.get(run_id)) is not None:
            return [*known]
        found = self._read_step_ids(key)
        if seen is not None:
            seen.remember_step_ids(run_id, [*found])
        return found

    def _read_step_ids(self, key: DocumentKey) -> list[str]:
        with opened(self.root, *layout.place(key)[0], STEPS) as steps:
            if steps is None:
                self.document_info(key)
                return []
        return self._while_there(key, lambda: self._step_ids(key))

    def _step_ids(self, key: DocumentKey) -> list[str]:
        parts = (*layout.place(key)[0], STEPS)
        with opened(self.root, *parts) as directory:
            if directory is None:
                return []
            waits()
            with storage_errors("/".join(parts)):
                found = os.listdir(directory)
        stems = [name.removesuffix(".json") for name in found if name.endswith(".json")]
        return [stem for stem in stems if names.is_id(stem)]

    def list_steps(self, thread_id: str, run_id: str) -> list[RunStep]:
        """The run's steps, oldest first; damaged ones are left out."""
        key = DocumentKey(thread_id, run_id)
        steps = self._while_there(key, lambda: list(self._steps(key)))
        return sorted(steps, key=lambda step: (step.created_at, step.id))

    def _steps(self, key: DocumentKey) -> Iterator[RunStep]:
        for step_id in self._step_ids(key):
            with suppress(NotFound, Damaged):
                yield self.get_step(key.thread_id, str(key.run_id), step_id)
