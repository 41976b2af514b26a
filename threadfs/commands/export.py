"""Write threads to stdout as OpenAI objects, one JSON document per line: each thread, followed by
its messages, its runs and their steps.

Every object is valid under the types of the `openai` package, and has all the fields that they accept. The
rest is in a field `threadfs`, from which `threadfs import` restores the documents byte for byte. The same
store always gives the same export.

With --to threads are written in a form for other programs, from which less can be restored. `chat` is a
line of chat-completions for each thread, as programs for fine-tuning read them: the instructions, what was
said, the calls and their outputs. `sharegpt` is the same as a line of ShareGPT. `markdown` is a file for each
thread in a directory, which is the last argument: a later export renames and rewrites what has changed, and
leaves all other files alone.

Exit status: 0 done; 1 something is damaged and missing, or STORE has no thread, as a place has where nothing
is mounted (--allow-empty: 0); 2 used wrongly.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from threadfs.commands import CommandFailed, UsedWrongly, progress
from threadfs.commands.places import PERHAPS_NOT_MOUNTED, add_store, completes_threads

if TYPE_CHECKING:
    from store import Store, StoreError

EXAMPLES = """\
examples:
  threadfs export ~/assistants > backup.jsonl
  threadfs export ~/assistants thread_1 | jq -r 'select(.object == "thread.run").status'
  threadfs export ~/assistants --to chat > train.jsonl
  threadfs export ~/assistants --to markdown ~/notes/conversations"""

_FORMS = ("chat", "sharegpt", "markdown")

# What is written of a thread.
_Lines: TypeAlias = Callable[[str], Iterable[bytes]]


def arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    threads = parser.add_argument("threads", metavar="THREAD", nargs="*", help="only these (default: all)")
    completes_threads(threads)
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument(
        "--strict",
        action="store_true",
        help="leave out the field threadfs: OpenAI's fields only, which restore less",
    )
    forms.add_argument(
        "--to",
        dest="form",
        metavar="FORM",
        choices=_FORMS,
        help="chat, sharegpt, or markdown, for which a last argument DIR says where",
    )
    parser.add_argument(
        "--allow-empty",
        action="store_true",
        help="a STORE without a thread is no failure, but an empty export",
    )


def run(options: argparse.Namespace) -> int:
    from store import DocumentKey, StorageFailed
    from threadfs.stores import is_empty, is_url, open_store, why_no_place_for_files

    store = open_store(options.store)
    thread_ids: list[str] = options.threads
    directory = _directory(store, thread_ids) if options.form == "markdown" else ""
    if directory and (why := why_no_place_for_files(directory, options.store)):
        raise UsedWrongly(why)
    for thread_id in thread_ids:
        store.document_info(DocumentKey(thread_id))  # Fails before any output if there is none.
    thread_ids = sorted(set(thread_ids) or store.list_thread_ids())
    if not thread_ids and not options.allow_empty:
        why = PERHAPS_NOT_MOUNTED if is_empty(options.store) else "has no thread"
        raise CommandFailed(f"{options.store} {why} (--allow-empty exports it all the same)")
    missing = 0

    def missed(what: str, error: StoreError) -> None:
        nonlocal missing
        if isinstance(error, StorageFailed) and is_url(store.location):
            raise error  # One file may be unreadable, but a database fails for all threads.
        missing += 1
        progress.complain(f"{what}: {error}")

    if directory:
        _write_notes(directory, store, thread_ids, missed)
    else:
        _write_lines(_lines(options, store, missed), thread_ids)
    if missing:
        raise CommandFailed(f"not exported: {missing} damaged, which threadfs fsck {options.store} names")
    return 0


def _directory(store: Store, given: list[str]) -> str:
    """Takes the directory from the end of the arguments."""
    from store import NotFound, StoreError

    missing = "DIR is missing: --to markdown takes a directory as the last argument"
    if not given:
        raise UsedWrongly(missing)
    directory = given.pop()
    if not os.path.isdir(directory):
        with suppress(NotFound, StoreError):
            store.get_thread(directory)
            raise UsedWrongly(f"{missing}, and {directory} is a thread")
    return directory


def _lines(options: argparse.Namespace, store: Store, missed: Callable[[str, StoreError], None]) -> _Lines:
    if options.form is None:
        from threadfs.openai.exporting import Export

        return Export(store, options.strict, missed).thread
    from threadfs.exporting import chat, sharegpt
    from threadfs.exporting.turns import TurnReader

    read = TurnReader(store, missed)
    line_of = chat.line if options.form == "chat" else sharegpt.line

    def line(thread_id: str) -> Iterable[bytes]:
        thread = read.thread(thread_id)
        made = thread and line_of(thread, read.turns(thread_id))
        return [made] if made else []

    return line


def _write_lines(lines: _Lines, thread_ids: list[str]) -> None:
    from store.printing import printable_json

    is_watched = sys.stdout.isatty()
    for thread_id in progress.tracked(thread_ids, "thread", len(thread_ids)):
        for line in lines(thread_id):
            sys.stdout.buffer.write(printable_json(line.decode()).encode() if is_watched else line)
    sys.stdout.buffer.flush()


def _write_notes(
    directory: str, store: Store, thread_ids: list[str], missed: Callable[[str, StoreError], None]
) -> None:
    from store import NotFound, StoreError
    from threadfs.exporting.notes import CHANGED, NEW, UNCHANGED, NameTaken, notes_in

    counts: Counter[str] = Counter()
    unnamed = 0
    with notes_in(directory) as notes:
        for thread_id in progress.tracked(thread_ids, "thread", len(thread_ids)):
            try:
                counts[notes.update(store, thread_id)] += 1
            except NotFound:
                continue  # Deleted meanwhile.
            except StoreError as error:
                missed(f"thread {thread_id}", error)
            except NameTaken as error:
                unnamed += 1
                progress.complain(f"thread {thread_id}: another file is called {error}: move it away")
            except OSError as error:
                place = os.path.join(directory, str(error.filename))
                raise CommandFailed(f"{place}: {error.strerror}") from None
    progress.say(", ".join(f"{counts[what]} {what}" for what in (NEW, CHANGED, UNCHANGED)))
    if unnamed:
        raise CommandFailed(f"not exported: {unnamed}, whose names other files have")
