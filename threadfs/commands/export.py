"""Write threads to stdout as OpenAI objects, one JSON document per line: each thread, followed by
its messages, its runs and their steps.

Every object is valid under the types of the `openai` package, and has all the fields that they accept. The
rest is in a field `threadfs`, from which `threadfs import` restores the documents byte for byte. The same
store always gives the same export.
"""

from __future__ import annotations

import argparse
import sys

from threadfs.commands import CommandFailed, progress
from threadfs.commands.places import add_store

EXAMPLES = """\
examples:
  threadfs export ~/assistants > backup.jsonl
  threadfs export ~/assistants thread_1 | jq -r 'select(.object == "thread.run").status'"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("threads", metavar="THREAD", nargs="*", help="only these (default: all)")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="leave out the field threadfs: OpenAI's fields only, which restore less",
    )


def run(options: argparse.Namespace) -> int:
    from store import DocumentKey, StorageFailed, StoreError
    from store.printing import printable_json
    from threadfs.openai.exporting import Export
    from threadfs.stores import is_url, open_store

    store = open_store(options.store)
    for thread_id in options.threads:
        store.document_info(DocumentKey(thread_id))  # Fails before any output if there is none.
    missing = 0

    def missed(what: str, error: StoreError) -> None:
        nonlocal missing
        if isinstance(error, StorageFailed) and is_url(store.location):
            raise error  # One file may be unreadable, but a database fails for all threads.
        missing += 1
        progress.complain(f"{what}: {error}")

    export = Export(store, options.strict, missed)
    is_watched = sys.stdout.isatty()
    thread_ids = sorted(set(options.threads) or store.list_thread_ids())
    for thread_id in progress.tracked(thread_ids, "thread", len(thread_ids)):
        for line in export.thread(thread_id):
            sys.stdout.buffer.write(printable_json(line.decode()).encode() if is_watched else line)
    sys.stdout.buffer.flush()
    if missing:
        raise CommandFailed(f"not exported: {missing} damaged, which threadfs fsck {options.store} names")
    return 0
