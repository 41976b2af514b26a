"""The steps of runs."""

from __future__ import annotations

from contextlib import suppress

from store import documents
from store.api import DocumentKey
from store.errors import AlreadyExists, Damaged, RunNotFound
from store.models import RunStep
from store.postgres.connections import Rows
from store.postgres.database import Transaction
from store.postgres.documents import Documents, add_step, lock_run
from store.postgres.tables import checked, parsed, row_of


class Steps(Documents):
    def append_step(self, thread_id: str, run_id: str, step: RunStep) -> RunStep:
        """Adds a step to a run.

        Raises:
            RunNotFound: no such run.
            AlreadyExists: the run has a step of this id.
        """
        step = step.model_copy(update={"run_id": run_id, "thread_id": thread_id})
        key = checked(DocumentKey(thread_id, run_id, step.id))
        data = documents.pretty(step)

        def work(transaction: Transaction) -> None:
            lock_run(transaction, key)
            if not add_step(transaction, key, data):
                raise AlreadyExists("step", step.id)

        self._database.write(thread_id, work)
        return step

    def get_step(self, thread_id: str, run_id: str, step_id: str) -> RunStep:
        return self._get(DocumentKey(thread_id, run_id, step_id), RunStep)

    def list_step_ids(self, thread_id: str, run_id: str) -> list[str]:
        """The ids of the run's steps, damaged ones too, in no order. Raises RunNotFound."""
        return [step_id for (step_id,) in self._steps("step_id", thread_id, run_id)]

    def list_steps(self, thread_id: str, run_id: str) -> list[RunStep]:
        """The run's steps, oldest first; damaged ones are left out."""
        steps = []
        for step_id, document in self._steps("step_id, steps.document", thread_id, run_id):
            with suppress(Damaged):
                steps.append(parsed(DocumentKey(thread_id, run_id, step_id), document, RunStep))
        return sorted(steps, key=lambda step: (step.created_at, step.id))

    def _steps(self, columns: str, thread_id: str, run_id: str) -> Rows:
        _, where, row = row_of(DocumentKey(thread_id, run_id))
        found = self._database.read(
            f"SELECT {columns} FROM runs LEFT JOIN steps USING (thread_id, run_id) WHERE {where}", row
        )
        if not found:
            raise RunNotFound(run_id)
        return [columns_of_step for columns_of_step in found if columns_of_step[0] is not None]
