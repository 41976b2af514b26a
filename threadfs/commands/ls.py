"""List threads, or with --runs runs, one a line: id, status, age, title. A thread has the status and model
of its newest run; its age is how long it has not changed. A run is called RUN@THREAD, as in `runs/` of a
mount, and has the title of its thread.

In a pipe there is a tab between two columns, the id is the first and the title the last one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from threadfs.commands import UsedWrongly, progress
from threadfs.commands.ages import add_older_than, age_s, shown_age
from threadfs.commands.places import add_store, tell_if_empty
from threadfs.commands.search import number
from threadfs.commands.statuses import add_status
from threadfs.commands.widths import cut, padded, width

if TYPE_CHECKING:
    from store.catalogue.api import Listed

    Filter: TypeAlias = Callable[[Listed], bool]

EXAMPLES = """\
examples:
  threadfs ls ~/assistants --newer-than 7d
  threadfs ls ~/mnt --title 'trip oslo'
  threadfs ls ~/assistants --runs --status queued in_progress --older-than 1h
  threadfs ls ~/mnt --older-than 1y -0 | xargs -0 threadfs export ~/mnt > old.jsonl"""

_SORTS = ("changed", "created", "title")
# On a terminal, a title is cut to what is left of a line, but not to less than this.
_TITLE_COLUMNS = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "%(prog)s STORE [--status STATUS ...] [--older-than AGE] [--newer-than AGE]\n"
        "                   [--title WORDS] [--model MODEL] [--runs] [--sort ORDER] [-n N] [--json | -0]"
    )
    add_store(parser)
    add_status(parser, "only in one of these statuses")
    what = "only what has not changed for so long: a number and s, m, h, d, w or y, like 30d"
    add_older_than(parser, what, is_required=False)
    parser.add_argument(
        "--newer-than",
        dest="newer_than_s",
        metavar="AGE",
        type=age_s,
        help="only what has changed since",
    )
    parser.add_argument("--title", metavar="WORDS", help="only threads that are called by all these words")
    parser.add_argument("--model", metavar="MODEL", help="only of this model")
    parser.add_argument("--runs", action="store_true", help="list runs")
    parser.add_argument(
        "--sort",
        metavar="ORDER",
        choices=_SORTS,
        default="changed",
        help="changed (the default) or created: the newest first; or title",
    )
    parser.add_argument("-n", dest="limit", metavar="N", type=number, help="at most N lines")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="write an object for each, one a line")
    forms.add_argument("-0", dest="ids", action="store_true", help="write ids alone, with a null after each")


def run(options: argparse.Namespace) -> int:
    from threadfs.stores import open_catalogued

    now_ns = time.time_ns()
    is_wanted = _filter(options, now_ns)
    store = open_catalogued(options.store)
    tell_if_empty(options.store)
    try:
        catalogue = store.catalogue()
        with progress.counting("thread") as tell:
            catalogue.refresh(words=False, progress=tell)
        found = catalogue.runs() if options.runs else catalogue.threads()
    finally:
        store.close()
    listed = sorted(filter(is_wanted, found), key=_order(options.sort))[: options.limit]
    if options.ids:
        sys.stdout.write("".join(f"{_id(one)}\0" for one in listed))
    elif options.json:
        for one in listed:
            progress.say_json(_fields(one, now_ns))
    elif sys.stdout.isatty():
        _print_table(listed, now_ns)
    else:
        for one in listed:
            progress.say_columns(_id(one), one.status, shown_age(_age_s(one, now_ns)), one.name)
    return 0


def _filter(options: argparse.Namespace, now_ns: int) -> Filter:
    """Raises UsedWrongly."""
    from store.catalogue.folding import folded
    from store.catalogue.matching import holds
    from store.catalogue.queries import terms_of

    terms = [] if options.title is None else terms_of(options.title)
    if options.title is not None and not terms:
        raise UsedWrongly(f"there is no word in --title {options.title!r}; see threadfs ls --help")
    older_s, newer_s = options.older_than_s, options.newer_than_s

    def is_wanted(one: Listed) -> bool:
        age = _age_s(one, now_ns)
        if options.status and one.status not in options.status:
            return False
        if options.model is not None and one.model != options.model:
            return False
        if (older_s is not None and age < older_s) or (newer_s is not None and age > newer_s):
            return False
        words = folded(one.name) if terms else ""
        return all(holds(term, words) for term in terms)

    return is_wanted


def _order(sort: str) -> Callable[[Listed], tuple[int | str, ...]]:
    if sort == "title":
        return lambda one: (one.name.casefold(), one.name, _id(one))
    if sort == "created":
        return lambda one: (-one.created_at, _id(one))
    return lambda one: (-one.changed_ns, _id(one))


def _id(one: Listed) -> str:
    return one.thread_id if one.run_id is None else f"{one.run_id}@{one.thread_id}"


def _age_s(one: Listed, now_ns: int) -> int:
    return max(0, now_ns - one.changed_ns) // 1_000_000_000


def _fields(one: Listed, now_ns: int) -> dict[str, object]:
    return {
        "id": _id(one),
        "status": one.status,
        "title": one.name,
        "created_at": one.created_at,
        "changed_at": one.changed_ns // 1_000_000_000,
        "model": one.model,
        "age_s": _age_s(one, now_ns),
    }


def _print_table(listed: Sequence[Listed], now_ns: int) -> None:
    """In columns as wide as what is in them; nothing at all where there is nothing."""
    import shutil

    rows = [("ID", "STATUS", "AGE", "MODEL", "TITLE")] if listed else []
    for one in listed:
        rows.append((_id(one), one.status, shown_age(_age_s(one, now_ns)), one.model, one.name))
    shown = [[progress.printed(cell) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*shown, strict=True)]
    room = max(_TITLE_COLUMNS, shutil.get_terminal_size().columns - sum(widths[:-1]) - 2 * len(widths[:-1]))
    for *cells, title in shown:
        columns = [padded(cell, room_of_it) for cell, room_of_it in zip(cells, widths, strict=False)]
        progress.say("  ".join([*columns, cut(title, room)]))
