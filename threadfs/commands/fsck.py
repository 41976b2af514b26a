"""Check every document, line, name and reference of a store. The store may be in use.

Each finding is one line on stdout: the path in the store, the severity, and the problem. An error hides
something from programs that read the store; a warning does not. A note is not damage (for instance a message
whose run has been pruned), and does not change the exit status. Only --repair repairs damage, and it loses
nothing: files that cannot be repaired, and the old versions of those that can, go into .threadfs-aside, a
directory of the store that no program reads.

Exit status: 0 when nothing is wrong (any more), 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from threadfs.commands import CommandFailed, progress
from threadfs.commands.places import add_create, add_store, tell_if_empty

if TYPE_CHECKING:
    from store import Store, ThreadStore
    from store.checking import Finding

EXAMPLES = """\
examples:
  threadfs fsck ~/assistants
  threadfs fsck --repair ~/assistants
  threadfs fsck --json ~/assistants | jq -r 'select(.severity == "error").path'"""

# A repair may reveal more damage: when a run goes aside, messages still name it.
_ROUNDS = 5


def arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("--repair", action="store_true", help="repair without losing anything")
    parser.add_argument(
        "--json", action="store_true", help="JSON Lines: objects with path, severity, problem (and repair)"
    )
    add_create(parser)


def run(options: argparse.Namespace) -> int:
    from store import ThreadStore
    from threadfs.stores import open_store

    store = open_store(options.store, create=options.create, insist=options.create)
    if not options.create:
        tell_if_empty(options.store)
    report = Report(as_json=options.json)
    if not isinstance(store, ThreadStore):
        if options.repair:
            raise CommandFailed("--repair is for directories: a database keeps its own documents whole")
        _check(store, report)
    else:
        _check_directory(store, report, repair=options.repair)
    return 1 if report.remaining else 0


class Report:
    """Writes findings, and counts those that remain."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.remaining = 0

    def say(self, finding: Finding, repair: str = "") -> None:
        if self._as_json:
            fields = {"path": finding.path, "severity": finding.severity.value, "problem": finding.what}
            if repair:
                fields["repair"] = repair
            progress.say(json.dumps(fields))
        else:
            line = f"{finding.path}: {finding.severity.value}: {finding.what}"
            progress.say(f"{line} ({repair})" if repair else line)


def is_damage(finding: Finding) -> bool:
    """Whether it is an error or a warning; a note is not damage."""
    return finding.severity.value != "note"


def _check(store: Store, report: Report) -> None:
    from store.checking import Problem, check_thread

    thread_ids = sorted(store.list_thread_ids())
    for thread_id in progress.tracked(thread_ids, "thread", len(thread_ids)):
        for finding in check_thread(store, thread_id):
            if finding.problem is Problem.UNREADABLE:
                raise CommandFailed(
                    f"{finding.path}: {finding.what}"
                )  # The server fails: that is not damage.
            report.say(finding)
            report.remaining += is_damage(finding)


def _check_directory(store: ThreadStore, report: Report, *, repair: bool) -> None:
    from store.disk.fsck import checking
    from store.disk.fsck.repairing import Repair

    mend = Repair(store).mend if repair else None
    places = checking.places(store)
    for place in progress.tracked(places, "thread", len(places)):
        _look(partial(checking.check_place, store, place), report, mend)
    _look(partial(checking.find_leftovers, store), report, mend)


def _look(
    findings: Callable[[], Iterator[Finding]], report: Report, mend: Callable[[Finding], str] | None
) -> None:
    """Reports findings, and repairs damage until nothing more can be repaired."""
    reported: set[tuple[str, str]] = set()
    for _ in range(_ROUNDS):
        mended = remaining = 0
        for finding in findings():
            if not is_damage(finding):
                if (finding.path, finding.what) not in reported:
                    reported.add((finding.path, finding.what))
                    report.say(finding)
                continue
            repair = _mended(finding, mend) if mend else ""
            if repair:
                mended += 1
            else:
                remaining += 1
            if repair or not mend:
                report.say(finding, repair)
            elif (finding.path, finding.what) not in reported:
                reported.add((finding.path, finding.what))
                report.say(finding, "cannot be repaired")
        if not mended:
            break
    else:
        remaining = sum(map(is_damage, findings()))
    report.remaining += remaining


def _mended(finding: Finding, mend: Callable[[Finding], str]) -> str:
    from store import StoreError

    try:
        return mend(finding)
    except StoreError as error:
        progress.complain(f"{error}, so {finding.path} cannot be repaired")
        return ""
