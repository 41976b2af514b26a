"""The runs that a catalogue of a store on a disk knows: by status, and of threads that are to be followed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from store.api import StatusOfRun, Times
from store.catalogue.tables import Tables, seen
from store.catalogue.values import Signature
from store.disk import signatures
from store.disk.known import Known
from store.disk.signatures import run_of
from store.disk.unseen import Needed
from store.statuses import RunStatus
from store.waiting import waits

# So many logs are looked at, and then others may ask.
_AT_ONCE: Final = 1000


class RunsOfThread(NamedTuple):
    """The status of each run, ``None`` for one that is in no list; and the thread's times."""

    statuses: dict[str, str | None]
    times: Times


class RunLists:
    def __init__(self, known: Known, scan: Callable[[str], Iterator[StatusOfRun]]) -> None:
        """*scan* reads the runs of a thread."""
        self.known = known
        self._scan = scan

    def runs(self, statuses: Collection[RunStatus], asked_s: float | None = None) -> Iterator[StatusOfRun]:
        """Each run in one of *statuses* at this moment. *asked_s*: as of `Known.beside_lists`.

        Raises StorageFailed.
        """

        def work(tables: Tables) -> tuple[list[tuple[str, str, str]], set[str]]:
            return [*tables.runs(statuses)], {*self.known.pending, *self.known.unread()}

        found, read = self.known.beside_lists(work, None, _needed(statuses), asked_s)
        for thread_id, run_id, status in found:
            if thread_id not in read:
                yield thread_id, run_id, RunStatus(status)
        for thread_id in read:
            yield from (run for run in self._scan(thread_id) if run[2] in statuses)

    def version(self, status: RunStatus, asked_s: float) -> Hashable:
        """What is another one whenever the list of runs in *status* is; ``None`` if that is not known.

        *asked_s*: as of `Known.beside_lists`. Raises StorageFailed.
        """

        def work(tables: Tables) -> Hashable:
            is_known = not self.known.pending and not self.known.unread()
            return (self.known.openings, *tables.version_of_runs()) if is_known else None

        return self.known.beside_lists(work, None, _needed([status]), asked_s)

    def newest_first(self, there: Mapping[str, str], *, looks: bool) -> list[str]:
        """The ids of the threads, as known from before, the last changed first: those that are *there*, each
        with the text that stands for it there.

        If it *looks*, those come before whose log is another one by now: whoever asks something else waits
        for less than if all were compared.
        """
        waits()
        thread_ids = self.known.use(
            lambda tables: [there[one] for one in tables.newest_first() if one in there]
        )
        changed: set[str] = set()
        for at in range(0, len(thread_ids) if looks else 0, _AT_ONCE):
            changed.update(self._of_other_logs(thread_ids[at : at + _AT_ONCE]))
        return sorted(thread_ids, key=lambda one: one not in changed)

    def _of_other_logs(self, thread_ids: list[str]) -> list[str]:
        root = self.known.source.root
        logs = self.known.use(lambda tables: tables.logs_looked_at(thread_ids))
        return [thread_id for thread_id, *log in logs if not signatures.is_log(root, thread_id, *log)]

    def times_of(self, thread_ids: Collection[str]) -> dict[str, Times]:
        """The times of those threads that now are as they are known; of none while others ask for long.

        The threads are known to be directories.
        """
        waits()
        root = self.known.source.root
        found = {}
        for thread_id, paths, numbers in self.known.use_soon(lambda tables: tables.seen_of(thread_ids)) or ():
            parts = [*seen(paths, numbers)]
            if signatures.is_same(root, thread_id, parts):
                found[thread_id] = _latest(of_part for _, of_part in parts)
        return found

    def of_threads(self, thread_ids: Collection[str]) -> dict[str, RunsOfThread | None]:
        """The runs of some threads, which are compared now; ``None`` for a thread that is gone.

        Threads that cannot be read are not in it.

        Raises:
            Busy: another process is writing.
            StorageFailed: the store cannot be read.
        """

        def work(tables: Tables) -> dict[str, RunsOfThread | None]:
            root = self.known.source.root
            known = tables.signatures_of(thread_ids)
            differing = [
                one for one in thread_ids if not signatures.is_as_known(root, one, known.get(one, {}))
            ]
            if differing:
                for _ in self.known.taking(tables).compare_these(differing):
                    pass
                known = tables.signatures_of(thread_ids)
            left_out = self.known.unread()
            found = {one: _runs_of(known.get(one, {})) for one in thread_ids if one not in left_out}
            for thread_id, run_id, status in tables.statuses_in(thread_ids):
                if there := found.get(thread_id):
                    there.statuses[run_id] = status
            return found

        waits()
        return self.known.use(work)


def _runs_of(seen: Mapping[str, Signature]) -> RunsOfThread | None:
    if not seen:
        return None
    statuses: dict[str, str | None] = dict.fromkeys(filter(None, map(run_of, seen)))
    return RunsOfThread(statuses, _latest(seen.values()))


def _latest(parts: Iterable[tuple[int, ...]]) -> Times:
    """The times of a thread: *parts* are the signatures of its parts, or their numbers in that order."""
    changed_ns, _, _, modified_ns, _ = zip(*parts, strict=True)
    return Times(max(modified_ns), max(changed_ns))


def _needed(statuses: Collection[RunStatus]) -> Needed:
    return Needed.ALL if any(status.is_terminal for status in statuses) else Needed.UNENDED
