"""What was seen a moment ago in threads of which each change is reported.

Whoever walks through a tree, or opens a file, looks at the same documents several times. Each time asks the
kernel, and a list of steps may wait for a disk.

What is seen is put where it was looked for before: the next change in the thread takes that place away, so
that nothing of before a change is found after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from store.api import DocumentKey, Info

# In how many threads, and how much in each.
_MAX_THREADS: Final = 100
_MAX_SEEN: Final = 100


@dataclass(slots=True)
class SeenInThread:
    """The infos of documents, and the ids of steps by that of their run."""

    infos: dict[DocumentKey, Info] = field(default_factory=dict)
    step_ids: dict[str, list[str]] = field(default_factory=dict)

    def remember_info(self, key: DocumentKey, info: Info) -> None:
        if len(self.infos) >= _MAX_SEEN:
            self.infos.clear()
        self.infos[key] = info

    def remember_step_ids(self, run_id: str, step_ids: list[str]) -> None:
        if len(self.step_ids) >= _MAX_SEEN:
            self.step_ids.clear()
        if len(step_ids) <= _MAX_SEEN:
            self.step_ids[run_id] = step_ids


class Seen:
    """Those of the threads that were looked at last. Who changes it holds a lock."""

    def __init__(self) -> None:
        self._threads: dict[str, SeenInThread] = {}

    def get(self, thread_id: str) -> SeenInThread | None:
        return self._threads.get(thread_id)

    def made(self, thread_id: str) -> SeenInThread:
        """The place for what is seen in a thread from now on."""
        if len(self._threads) >= _MAX_THREADS:
            self._threads.clear()
        return self._threads.setdefault(thread_id, SeenInThread())

    def forget(self, thread_id: str) -> None:
        self._threads.pop(thread_id, None)

    def clear(self) -> None:
        self._threads.clear()
