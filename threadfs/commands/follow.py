"""Print the transcript of a thread, from its beginning, and go on as it grows: messages, answers while they
come, and how runs end. It ends at an interrupt (Ctrl-C), or when nobody reads it any more.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from threadfs.commands.places import add_store, completes_threads, tell_if_empty

if TYPE_CHECKING:
    from store import Store
    from threadfs.commands.changes import Changes

EXAMPLES = """\
examples:
  threadfs follow ~/assistants idea
  threadfs follow ~/mnt idea | grep --line-buffered '^> Run'"""

_CHUNK_BYTES = 1 << 16


def arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    completes_threads(parser.add_argument("thread", metavar="THREAD"))


def run(options: argparse.Namespace) -> int:
    from threadfs.commands.changes import Changes, of_thread
    from threadfs.nodes.transcripts import Transcript
    from threadfs.stores import open_store

    store = open_store(options.store)
    tell_if_empty(options.store)
    text = Transcript(options.thread)
    shown_bytes = 0
    ended: set[str] = set()
    with Changes(store, of_thread(options.thread), until_unread=True) as changes:
        while True:
            _follow_all(store, options.thread, changes, ended)
            text.update(store)
            while piece := text.read(shown_bytes, _CHUNK_BYTES):
                shown_bytes += len(piece)
                if sys.stdout is not None:
                    sys.stdout.buffer.write(piece)
            if sys.stdout is not None:
                sys.stdout.buffer.flush()
            changes.wait()


def _follow_all(store: Store, thread_id: str, changes: Changes, ended: set[str]) -> None:
    """Follows the thread and its runs, but for those that have *ended*, which is brought up to date."""
    from store import Damaged, DocumentKey, NotFound

    changes.follow(DocumentKey(thread_id), DocumentKey(thread_id, ""))
    for run_id in set(store.list_run_ids(thread_id)) - ended:
        with suppress(NotFound, Damaged):
            if store.get_run(thread_id, run_id).status.is_terminal:
                ended.add(run_id)
            else:
                changes.follow(DocumentKey(thread_id, run_id))
