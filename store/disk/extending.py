"""What is added to a thread that is there: runs, steps of runs that are there, and messages after them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self, cast

from store import transitions
from store.api import RunContents
from store.disk import files, paths, trees
from store.disk.durable_names import DurableNames
from store.disk.importing import contents_of_run, of_place
from store.disk.layout import LOG, RUNS, STATUS, STEPS
from store.disk.paths import storage_errors
from store.disk.system_calls import SystemCalls
from store.disk.trees import Contents
from store.errors import AlreadyExists


@dataclass(frozen=True, slots=True)
class Addition:
    """All of it checked and laid out, before anything is written."""

    thread_id: str
    lines: list[bytes]
    runs: dict[str, Contents]
    modified_ns: int | None

    @classmethod
    def checked(
        cls,
        thread_id: str,
        messages: Sequence[bytes],
        runs: Mapping[str, RunContents],
        modified_ns: int | None,
    ) -> Self:
        """Raises InvalidDocument, with the place of the first wrong document, and InvalidName."""
        lines = [
            of_place(f"{LOG}:{number}", transitions.laid_out_line, thread_id, line)
            for number, line in enumerate(messages, 1)
        ]
        laid_out = {run_id: contents_of_run(thread_id, run_id, run) for run_id, run in runs.items()}
        return cls(thread_id, lines, laid_out, modified_ns)

    def add_runs(self, calls: SystemCalls, durable: DurableNames, thread: int) -> None:
        """Adds the runs that the open *thread*, which the caller has locked, does not hold, and steps."""
        if not self.runs:
            return
        runs = trees.ensure_directory(calls, durable, thread, (self.thread_id, RUNS))
        try:
            for run_id, contents in self.runs.items():
                if not _is_run(runs, run_id):
                    parts = (self.thread_id, RUNS, run_id)
                    with suppress(AlreadyExists):  # By another program, which takes no lock.
                        trees.create(calls, durable, runs, parts, contents, self.modified_ns)
                        continue
                self._add_steps(calls, durable, runs, run_id, contents)
        finally:
            os.close(runs)
        self._set_time(calls, thread, RUNS)

    def _add_steps(
        self, calls: SystemCalls, durable: DurableNames, runs: int, run_id: str, contents: Contents
    ) -> None:
        parts = (self.thread_id, RUNS, run_id, STEPS)
        steps = cast(dict[str, bytes], contents.get(STEPS, {}))
        run = paths.open_directory(runs, run_id)
        if run is None or not steps:
            return
        try:
            directory = trees.ensure_directory(calls, durable, run, parts)
            try:
                for name, step in steps.items():
                    # One that is there, whatever it is, stays as it is.
                    if not paths.exists(directory, name):
                        self._add_step(calls, directory, name, step, "/".join((*parts, name)))
            finally:
                os.close(directory)
            self._set_time(calls, run, STEPS)
        finally:
            os.close(run)

    def _add_step(self, calls: SystemCalls, directory: int, name: str, step: bytes, path: str) -> None:
        files.rewrite(calls, directory, name, path, lambda stored: step if stored is None else None)
        self._set_time(calls, directory, name)

    def _set_time(self, calls: SystemCalls, directory: int, name: str) -> None:
        if self.modified_ns is not None:
            with storage_errors(f"{self.thread_id}: {name}"):
                calls.set_modified(directory, name, self.modified_ns)


def _is_run(runs: int, run_id: str) -> bool:
    """Whether there is one; an empty directory of its name is none."""
    run = paths.open_directory(runs, run_id)
    if run is None:
        return False
    try:
        return paths.exists(run, STATUS)
    finally:
        os.close(run)
