"""Write threads to stdout as OpenAI objects, one JSON document per line: each thread, followed by
its messages, its runs and their steps.

Every object is valid under the types of the `openai` package, and has all that those accept. What they
cannot hold goes along in a field `threadfs`, so that `threadfs import` restores the documents as they were.
The same store gives the same bytes.
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
        help="leave out the field threadfs: only what OpenAI has, which restores less",
    )


def run(options: argparse.Namespace) -> int:
    from store import DocumentKey, StorageFailed, StoreError
    from store.printing import printable_json
    from threadfs.exporting import Export
    from threadfs.stores import is_url, open_store

    store = open_store(options.store)
    for thread_id in options.threads:
        store.document_info(DocumentKey(thread_id))  # Says now that there is none.
    missing = 0

    def missed(what: str, error: StoreError) -> None:
        nonlocal missing
        if isinstance(error, StorageFailed) and is_url(store.location):
            raise error  # A file can be unreadable; of a database it is the server, for all that follows too.
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
