"""The statuses of runs and steps, without the models, which take longer to import than all else."""

from __future__ import annotations

from enum import StrEnum


class RunStatus(StrEnum):
    queued = "queued"
    in_progress = "in_progress"
    requires_action = "requires_action"
    cancelling = "cancelling"
    completed = "completed"
    cancelled = "cancelled"
    failed = "failed"
    expired = "expired"
    incomplete = "incomplete"

    @property
    def is_terminal(self) -> bool:
        """The run has ended; only force changes its status."""
        return self in _TERMINAL

    @property
    def is_in_progress(self) -> bool:
        """A worker holds the run: it is neither waiting nor ended."""
        return self is not RunStatus.queued and not self.is_terminal


_TERMINAL = frozenset(
    {RunStatus.completed, RunStatus.cancelled, RunStatus.failed, RunStatus.expired, RunStatus.incomplete}
)


class RunStepStatus(StrEnum):
    in_progress = "in_progress"
    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"
    expired = "expired"
