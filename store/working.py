"""What a store offers to programs that answer runs, and to those that show answers while they grow.

A program that answers runs registers as a worker. Its registration lasts until it is closed or the program
ends, however it ends. It claims one run after the other, and each claim gives an `Answer`::

    with store.register_worker(WorkerState(endpoint="localhost:11434")) as worker:
        answer = worker.claim(thread_id, run_id)
        with answer:                                        # queued again, if the block ends without `finish`
            for text in pieces_from_the_model(answer.run):
                answer.append(text)                         # others see it at once
            answer.finish(Outcome(RunStatus.completed))     # durable: the message is in the log

A program without a registration, such as a shell script, calls `Working.claim_run`; the run then has no
``worker``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

if TYPE_CHECKING:  # They need the models, which who only reads does not.
    from store.models import Run, RunError, ThreadMessage
    from store.statuses import RunStatus
    from store.tools import ToolCall

# How many times a run is begun at most, when each time its worker dies.
MAX_TRIES = 3


def any_run(run: Run) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What a worker tells about itself; for people, so each text is one short line.

    ``endpoint`` is the host, and port, of its endpoint; ``jobs`` the number of runs that it answers at most;
    ``state`` is ``ready`` or why it claims nothing (``waiting: connection refused since 10:15``); ``notes``
    are lines about runs that cannot be claimed (``run_1 waits for run_2, another program's``).
    """

    endpoint: str
    jobs: int = 1
    state: str = "ready"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Worker:
    """A living worker. ``jobs_in_use`` counts the runs that it has claimed and not ended."""

    id: str
    state: WorkerState
    jobs_in_use: int


class GrowingAnswer(NamedTuple):
    """An answer that a living worker is writing. The text so far has *size_bytes* of UTF-8, more than none.

    *message_id* is the id that the message will have in the log, and is another one in each attempt at a run.
    """

    thread_id: str
    run_id: str
    message_id: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt at a run ended.

    The message has all the text that was given to `Answer.append`, and there is none without text.

    Args:
        status: of the run, if it is still in progress: ``completed``, ``failed``, ``incomplete``,
            ``requires_action``, or ``cancelled``.
        message_is_cut: why the message is not whole (``max_tokens``, ``content_filter``, ``run_failed``,
            ``run_cancelled``); ``None``: it is whole.
        keeps_text: False: no message, whatever was appended.
        error: ``last_error`` of a run that failed; its message is the ``error`` of the step.
        run_is_cut: why the run is ``incomplete`` (``max_completion_tokens``, ``content_filter``).
        usage: tokens, as the endpoint counted them; of the run (added up over its attempts) and of the step.
        tool_calls: the calls that a run that ``requires_action`` waits for; in the order of the endpoint.
    """

    status: RunStatus
    message_is_cut: str | None = None
    keeps_text: bool = True
    error: RunError | None = None
    run_is_cut: str | None = None
    usage: dict[str, Any] | None = None
    tool_calls: Sequence[ToolCall] = field(default=())


class Answer(Protocol):
    """One attempt at a run that a worker has claimed, and the text of the answer while it grows.

    Its methods may be called from any thread, one at a time. At the end of a ``with`` block an answer that
    has not ended is handed back.
    """

    # The run as claimed: in progress, with ``worker``, ``attempt`` (the step) and ``tries``.
    run: Run
    message_id: str
    # The step of this attempt, ``in_progress`` since the claim.
    step_id: str

    def append(self, text: str) -> None:
        """Adds *text* to the answer; others can read it soon (in a database five times a second). Not synced.

        When it fails, the text is kept in memory: the next `append` shows it, too, and `finish` needs only
        the memory. Halves of surrogate pairs become U+FFFD.

        Raises:
            RunLost: the run was deleted.
            StorageFailed: the disk is full, say. In a database others just do not see the text meanwhile.
        """
        ...

    def finish(self, outcome: Outcome) -> Run:
        """Ends the attempt: message, step, run, in this order; durable when this returns.

        The message and the step are written only if the run still bears this worker and attempt, whatever its
        status is; the status only if it is still in progress. After a failure it may be called again, and
        writes what is missing.

        Returns:
            The run as stored.

        Raises:
            RunLost: the run is another worker's or nobody's by now, or was deleted; nothing was written, and
                the answer is closed.
            StorageFailed: the disk or the server refused; the answer is still open.
        """
        ...

    def hand_back(self) -> None:
        """Ends the attempt without a result: the step is ``cancelled``, the run ``queued`` in its old place.

        This attempt does not count (``tries``). A run whose status was changed meanwhile keeps that.

        Raises:
            RunLost, StorageFailed: as `finish`.
        """
        ...

    def close(self) -> None:
        """Lets go of what is open. A run that has not ended is left as if the worker had died."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None:
        """`hand_back`, unless it has ended or is lost; then `close`."""
        ...


class Registration(Protocol):
    """A worker that is alive: this program. Closing it with runs in hand leaves these as if it had died."""

    id: str

    def set_state(self, state: WorkerState) -> None:
        """Tells others about the worker. Not synced. Raises StorageFailed."""
        ...

    def claim(self, thread_id: str, run_id: str, *, yields_to: Callable[[Run], bool] = any_run) -> Answer:
        """As `Working.claim_run`, and the run gets ``worker``, ``tries`` and a step in progress."""
        ...

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


class Working(Protocol):
    """The part of a store that is about answering runs."""

    def ask(self, thread_id: str, message: ThreadMessage, run: Run) -> tuple[ThreadMessage, Run]:
        """Appends *message* and makes *run*, which records the message (``asked``); durable on return.

        The run is prepared first, so that what can fail fails before the message is there. No other program
        sees one without the other for longer than a moment; in a database, not at all.

        Returns:
            Both as stored.

        Raises:
            ThreadNotFound: no such thread.
            AlreadyExists: the thread has a run of this id.
            StorageFailed: nothing is stored; or, as the text then says, only the message is, or both are
                and the run is not durable.
        """
        ...

    def claim_run(self, thread_id: str, run_id: str, *, yields_to: Callable[[Run], bool] = any_run) -> Run:
        """Sets a queued run in progress, if it is its turn; under the thread's lock. Durable on return.

        The runs of a thread follow one another, the oldest first (by ``created_at``, then by the time when it
        was made, in nanoseconds). *yields_to* says which older queued runs go first: those that the caller
        would claim as well. So workers with different models do not wait for each other's runs.

        Returns:
            The run as stored; it has no ``worker``.

        Raises:
            RunNotFound: there is none.
            StatusChanged: it is not queued.
            RunWaits: another run of the thread is in progress, or goes first.
        """
        ...

    def register_worker(self, state: WorkerState) -> Registration:
        """Registers a new worker, this program, under a random id.

        Raises:
            StorageFailed: the store is read-only, or its file system has no locks.
        """
        ...

    def workers(self) -> list[Worker]:
        """The workers that live, on whatever host, by id. Raises StorageFailed."""
        ...

    def take_over(self) -> list[Run]:
        """Clears up after workers that have died: each of their runs is ended, or queued again.

        A run whose message is in the log is ``completed``. Else its step is ``failed``, with the text so far
        as ``partial``, and the run is ``queued``, or ``failed`` (``server_error``) the third time. A run that
        has all outputs of its tools and is not queued yet, because the program that set the last one was
        killed, is queued. Workers call this at their start, when a watch reports `Part.WORKERS`, and, where
        `Store.is_remote`, once a second. Several may do so at the same time.

        Returns:
            The runs as stored by this call.

        Raises:
            StorageFailed: at some run, which is left to the next call.
        """
        ...

    def growing_answers(self, thread_id: str) -> list[GrowingAnswer]:
        """The answers in the thread that living workers are writing, one at most for each run.

        Take the growing answers first, then the log. An id that is in the log has ended, although it may be
        in this list. An id that is in neither was handed back, or lost its worker.
        """
        ...

    def read_answer(self, answer: GrowingAnswer, offset: int, size: int) -> bytes | None:
        """At most *size* bytes of the text at *offset*, which may cut a character; ``None`` if it has ended.

        What has been read stays as it is: the text only grows.
        """
        ...

    def set_tool_output(self, thread_id: str, run_id: str, call_id: str, output: str) -> Run:
        """Sets the output of a call that a run waits for; with the last one the run is queued.

        Returns:
            The run as stored, durably.

        Raises:
            RunNotFound: no such run.
            StatusChanged: it is not (or no longer) ``requires_action``.
            ToolCallNotFound: it waits for no such call.
            OutputIsSet: the call has its output.
        """
        ...
