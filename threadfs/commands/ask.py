"""Ask in a thread, and print the answer as it comes: say TEXT (or what is on stdin), queue a run, and wait
for a worker to answer it.

An interrupt (Ctrl-C), or the end of whoever reads the answer, cancels the run. What the run waits for is
said on stderr. Exit status: 0 when the run is completed, 1 when it has ended otherwise or cannot be queued,
2 used wrongly.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from threadfs.commands import UsedWrongly, progress
from threadfs.commands.places import add_store, completes_threads, tell_if_empty

if TYPE_CHECKING:
    from store import Run, Store
    from threadfs.commands.answers import ShownAnswer
    from threadfs.commands.changes import Changes

EXAMPLES = """\
examples:
  threadfs ask ~/assistants idea "Where should we go?"
  git diff | threadfs ask ~/mnt review --model llama3.1 > review.txt"""

# A worker that is ready has claimed a run by then.
_CLAIMS_S = 0.5


def arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    thread = parser.add_argument("thread", metavar="THREAD", help="an existing thread")
    completes_threads(thread)
    parser.add_argument("text", metavar="TEXT", nargs="?", help="what is asked (default: stdin)")
    parser.add_argument(
        "--model", metavar="NAME", help="the model that is asked (default: the thread's, else the worker's)"
    )


def run(options: argparse.Namespace) -> int:
    from store import DocumentKey, RunInTerminalState, RunNotFound, StoreError
    from threadfs.asking import question
    from threadfs.commands.answers import ShownAnswer
    from threadfs.commands.changes import Changes, interrupted_by_any_end, of_thread
    from threadfs.commands.wait import exit_status
    from threadfs.stores import open_store

    store = open_store(options.store)
    tell_if_empty(options.store)
    store.document_info(DocumentKey(options.thread))  # Fails before anything is typed if there is none.
    message, asked = question(store, options.thread, _text(options.text), options.model)
    answer = ShownAnswer(store, options.thread, asked.id)
    with interrupted_by_any_end(), Changes(store, of_thread(options.thread), until_unread=True) as changes:
        try:
            store.ask(options.thread, message, asked)
            ended = _answered(store, options, asked.id, answer, changes)
            answer.end_line()
        except (KeyboardInterrupt, BrokenPipeError) as end:
            try:
                with suppress(RunNotFound, RunInTerminalState):
                    store.cancel_run(options.thread, asked.id)
            except StoreError as error:
                progress.complain(f"run {asked.id} is not cancelled: {error}")
            if isinstance(end, KeyboardInterrupt):
                answer.end_line()
            raise
    return exit_status(ended)


def _text(given: str | None) -> str:
    """What is asked. Raises UsedWrongly when it is nothing, or no text."""
    if given is None:
        if sys.stdin is None:
            raise UsedWrongly("nothing is asked: stdin is closed, and TEXT is missing")
        if sys.stdin.isatty():
            progress.complain("what do you ask? (end with Ctrl-D)")
        given = sys.stdin.buffer.read().decode(errors="surrogateescape")
    text = given.removesuffix("\n")
    if not text:
        raise UsedWrongly("nothing is asked: give TEXT, or text on stdin")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsedWrongly("what is asked is not UTF-8") from None
    return text


def _answered(
    store: Store, options: argparse.Namespace, run_id: str, answer: ShownAnswer, changes: Changes
) -> Run:
    """The run when it has ended. Its answer is printed meanwhile, and, to stderr, what it waits for."""
    from store import DocumentKey
    from store.names import WORKERS

    thread_id = options.thread
    asked_s = time.monotonic()
    said = ""
    while True:
        changes.follow(DocumentKey(thread_id), DocumentKey(thread_id, ""), DocumentKey(thread_id, run_id))
        changes.follow(WORKERS)
        # First the status: when it has ended, all of its answer is there.
        found = store.get_run(thread_id, run_id)
        answer.update()
        if found.status.is_terminal:
            return found
        remaining_s = max(0.0, asked_s + _CLAIMS_S - time.monotonic())
        if not remaining_s:
            reason = _what_it_waits_for(store, options.store, found, changes)
            if reason and reason != said:
                progress.complain(reason)
            said = reason
        changes.wait(remaining_s or None)


def _what_it_waits_for(store: Store, location: str, asked: Run, changes: Changes) -> str:
    """Why a run does not go on, in words; empty when it does, or soon will. Follows what it waits for."""
    from store import Damaged, DocumentKey, NotFound, RunStatus

    if asked.status is RunStatus.requires_action:
        return f"{asked.id} waits for the outputs of its tools: write them in its tools/ in a mount"
    if asked.status is not RunStatus.queued:
        return ""
    for other_id in store.list_run_ids(asked.thread_id):
        with suppress(NotFound, Damaged):
            if store.get_run(asked.thread_id, other_id).status.is_in_progress:
                changes.follow(DocumentKey(asked.thread_id, other_id))
                if reason := _what_keeps(store.get_run(asked.thread_id, other_id), location):
                    return f"{asked.id} waits for {other_id}, {reason}"
    workers = store.workers()
    if not workers:
        return f"no worker lives: threadfs work {shlex.quote(location)} --endpoint URL"
    if all(worker.state.state != "ready" for worker in workers):
        states = (f"{worker.state.endpoint} is {worker.state.state}" for worker in workers)
        return f"no worker is ready: {'; '.join(states)}"
    return ""


def _what_keeps(other: Run, location: str) -> str:
    """What a run that is in progress waits for, when that is no worker."""
    from store import RunStatus

    if other.status is RunStatus.requires_action:
        return "which waits for the outputs of its tools"
    if other.status.is_in_progress and other.worker is None:
        return (
            f"another program's; if it is abandoned: threadfs expire {shlex.quote(location)} --older-than 1h"
        )
    return ""
