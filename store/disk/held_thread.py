"""A thread on the disk that is locked for a worker: `store.held_thread.HeldThread`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress

from store import documents, lines
from store.api import DocumentKey
from store.changes import Change, Part
from store.disk import files, layout, paths, reading
from store.disk.document_files import Changing
from store.disk.layout import RUNS, STATUS
from store.disk.paths import opened, storage_errors
from store.disk.system_calls import SystemCalls
from store.disk.threads import Threads
from store.errors import Damaged, NotFound
from store.messages import message_of
from store.models import Run, RunStep, ThreadMessage
from store.statuses import RunStatus

# When there are more, all are forgotten, which costs reading them again.
_REMEMBERED = 100_000


class EndedRuns:
    """The runs that have ended, by the version of their document: a claim need not read them again."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str], tuple[int, ...]] = {}

    def knows(self, thread_id: str, run_id: str, version: tuple[int, ...]) -> bool:
        return self._versions.get((thread_id, run_id)) == version

    def remember(self, thread_id: str, run_id: str, version: tuple[int, ...]) -> None:
        if len(self._versions) >= _REMEMBERED:
            self._versions.clear()
        self._versions[thread_id, run_id] = version


class DiskHeldThread:
    def __init__(self, store: Threads, calls: SystemCalls, changing: Changing, ended: EndedRuns) -> None:
        self._store = store
        self._calls = calls
        self._changing = changing
        self._directory = changing.thread.directory
        self._id = changing.thread.thread_id
        self._ended = ended
        self._found: list[tuple[Run, int]] | None = None

    def run(self, run_id: str) -> Run:
        return self._store.get_run(self._id, run_id)

    # ── Runs ────────────────────────────────────────────────────────────────────────────────────────

    def queued_before(self, run: Run) -> list[Run]:
        places = {found.id: _place(found, modified_ns) for found, modified_ns in self._not_ended()}
        place = places.get(run.id)
        before = [
            found
            for found, _ in self._not_ended()
            if found.status is RunStatus.queued and place is not None and places[found.id] < place
        ]
        return sorted(before, key=lambda found: places[found.id])

    def in_progress(self) -> list[Run]:
        return [found for found, _ in self._not_ended() if found.status.is_in_progress]

    def _not_ended(self) -> list[tuple[Run, int]]:
        """The runs that have not ended, and when their documents were written, in nanoseconds since 1970."""
        if self._found is None:
            self._found = list(self._scan())
        return self._found

    def _scan(self) -> Iterator[tuple[Run, int]]:
        for run_id, version in self._versions():
            if self._ended.knows(self._id, run_id, version):
                continue
            with suppress(NotFound, Damaged):
                info = self._store.document_info(DocumentKey(self._id, run_id))
                run = self.run(run_id)
                if not run.status.is_terminal:
                    yield run, info.modified_ns
                else:
                    self._ended.remember(self._id, run_id, info.version)

    def _versions(self) -> list[tuple[str, tuple[int, ...]]]:
        """The versions of the documents of all runs, in one system call each."""
        found = []
        with opened(self._directory, RUNS) as runs:
            for run_id, _ in paths.subdirectories(runs) if runs is not None else ():
                with suppress(OSError):
                    status = os.stat(f"{run_id}/{STATUS}", dir_fd=runs, follow_symlinks=False)
                    found.append((run_id, files.info_of(status).version))
        return found

    def change_run(self, run_id: str, change: Callable[[Run], Run]) -> Run:
        self._found = None
        return self._store.update_in(self._changing, DocumentKey(self._id, run_id), Run, change)

    # ── Steps ───────────────────────────────────────────────────────────────────────────────────────

    def steps(self, run_id: str) -> list[RunStep]:
        return self._store.list_steps(self._id, run_id)

    def change_step(self, run_id: str, step: RunStep, change: Callable[[RunStep], RunStep]) -> RunStep:
        key = DocumentKey(self._id, run_id, step.id)
        with suppress(NotFound):
            self._store.document_info(key)
            return self._store.update_in(self._changing, key, RunStep, change)
        added = change(step)
        self._store.add_step_in(self._changing, key, documents.pretty(added))
        return added

    # ── Messages and the text of answers ────────────────────────────────────────────────────────────────

    def append(self, message: ThreadMessage) -> None:
        self._store.append_in(self._changing, documents.line(message))

    def messages_of(self, run_id: str) -> list[ThreadMessage]:
        log, name, found = self._store.open_log(self._id), documents.in_line(run_id), []
        try:
            for line, _ in lines.iter_lines(log.read):
                # Other programs may spell an id with other escapes; our lines are what matters.
                if name in line and (message := message_of(line, self._id)):
                    found.append(message)
        finally:
            log.close()
        found = [message for message in found if message.run_id == run_id]
        if found:
            # They count from now on, and whoever wrote them may have been killed before the sync.
            self._store.sync_log_in(self._changing)
        return found

    def growing_text(self, run_id: str) -> str:
        with opened(self._directory, RUNS, run_id) as run:
            texts = [_text(run, name) for name in _answers_in(run)] if run is not None else []
        return max(texts, default="", key=len)

    def drop_growing(self, run_id: str) -> None:
        with opened(self._directory, RUNS, run_id) as run:
            if run is not None:
                for name in _answers_in(run):
                    with suppress(OSError):
                        self._calls.remove(run, name)
                self._changing.changes.append(Change(Part.ANSWER, self._id, run_id))


def _place(run: Run, modified_ns: int) -> tuple[int, bool, int]:
    """The place of a queued run. One that was begun before was the oldest then, and its document is newer."""
    return run.created_at, run.started_at is None, modified_ns


def _answers_in(run: int) -> list[str]:
    with storage_errors(RUNS):
        return [name for name in os.listdir(run) if layout.is_answer(name)]


def _text(run: int, name: str) -> str:
    file = paths.open_file(run, name)
    if file is None:
        return ""
    try:
        with storage_errors(name):
            data = reading.read_whole(file.descriptor, file.status.st_size)
    finally:
        os.close(file.descriptor)
    # A kill may have cut the last character.
    return data.decode(errors="ignore")
