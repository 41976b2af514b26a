"""The life of a worker's process: from the command line to a signal."""

from __future__ import annotations

import logging
import os
import signal

import trio

from store import Store, StoreError
from threadfs.work.availability import WrongEndpoint
from threadfs.work.endpoint import Endpoint
from threadfs.work.settings import Settings
from threadfs.work.worker import work

log = logging.getLogger("threadfs")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# As a shell reports a process that a signal has ended.
_SIGNALLED = 128


def run_until_signalled(store: Store, endpoint: Endpoint, settings: Settings) -> int:
    """Works until a signal comes or, with `Settings.once`, no run is left. Returns the exit status.

    The first signal hands back what is not done; at the second the process ends as if it were killed.

    Raises:
        WrongEndpoint, StoreError: as `work`.
    """
    # It would log each request.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    return trio.run(_run, store, endpoint, settings)


async def _run(store: Store, endpoint: Endpoint, settings: Settings) -> int:
    none_failed = True
    failure: Exception | None = None
    until_signalled = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        await nursery.start(_listen, until_signalled)
        with until_signalled:
            async with endpoint:
                try:
                    none_failed = await work(store, endpoint, settings)
                except (WrongEndpoint, StoreError) as error:
                    failure = error  # Not from here: it would be put into a group.
        nursery.cancel_scope.cancel()
    if failure:
        raise failure
    return 0 if none_failed or until_signalled.cancelled_caught else 1


async def _listen(
    until_signalled: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    # What whoever started the worker has it ignore, as nohup does, stays ignored.
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    with trio.open_signal_receiver(*heard) as signals:
        task_status.started()
        async for number in signals:
            if until_signalled.cancel_called:
                os._exit(_SIGNALLED + number)
            log.info("%s: stopping", signal.Signals(number).name)
            until_signalled.cancel()
