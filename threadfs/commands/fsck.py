"""Check every document, line, name and reference of a store, also one that is in use.

Each finding is one line on stdout: the path in the store, how bad it is, and what is wrong. An error hides
something from a program that reads the store, a warning does not; a note is no damage (a message whose run
has been pruned), and changes nothing about the exit status. Damage is repaired only with --repair, and
then nothing is lost: what cannot be mended where it is, and the old version of what can, goes into the
directory .threadfs-aside of the store, which nothing reads.

Exit status: 0 when nothing is wrong (any more), 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from threadfs.commands import CommandFailed, progress
from threadfs.commands.places import add_create, add_store

if TYPE_CHECKING:
    from store import Store, ThreadStore
    from store.checking import Finding

EXAMPLES = """\
examples:
  threadfs fsck ~/assistants
  threadfs fsck --repair ~/assistants
  threadfs fsck --json ~/assistants | jq -r 'select(.severity == "error").path'"""

# A repair may bring to light what it hid: a run that goes aside leaves messages that name it.
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
            said = {"path": finding.path, "severity": finding.severity.value, "problem": finding.what}
            if repair:
                said["repair"] = repair
            progress.say(json.dumps(said))
        else:
            line = f"{finding.path}: {finding.severity.value}: {finding.what}"
            progress.say(f"{line} ({repair})" if repair else line)


def is_damage(finding: Finding) -> bool:
    """A note is none."""
    return finding.severity.value != "note"


def _check(store: Store, report: Report) -> None:
    from store.checking import Problem, check_thread

    thread_ids = sorted(store.list_thread_ids())
    for thread_id in progress.tracked(thread_ids, "thread", len(thread_ids)):
        for finding in check_thread(store, thread_id):
            if finding.problem is Problem.UNREADABLE:
                raise CommandFailed(f"{finding.path}: {finding.what}")  # It is the server, and no damage.
            report.say(finding)
            report.remaining += is_damage(finding)


def _check_directory(store: ThreadStore, report: Report, *, repair: bool) -> None:
    from store.disk import checking
    from store.disk.repairing import Repair

    mend = Repair(store).mend if repair else None
    places = checking.places(store)
    for place in progress.tracked(places, "thread", len(places)):
        _look(partial(checking.check_place, store, place), report, mend)
    _look(partial(checking.find_leftovers, store), report, mend)


def _look(
    findings: Callable[[], Iterator[Finding]], report: Report, mend: Callable[[Finding], str] | None
) -> None:
    """Reports what is found, and repairs it until nothing more can be repaired."""
    said: set[tuple[str, str]] = set()
    for _ in range(_ROUNDS):
        mended = remaining = 0
        for finding in findings():
            if not is_damage(finding):
                if (finding.path, finding.what) not in said:
                    said.add((finding.path, finding.what))
                    report.say(finding)
                continue
            repair = _mended(finding, mend) if mend else ""
            if repair:
                mended += 1
            else:
                remaining += 1
            if repair or not mend:
                report.say(finding, repair)
            elif (finding.path, finding.what) not in said:
                said.add((finding.path, finding.what))
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
