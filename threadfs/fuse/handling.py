"""What all handlers share: each error becomes an errno, and the requests in hand are counted."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import pyfuse3

from store import NotFound, StoreError
from store.printing import printable
from threadfs.fuse.asking import forget_origin
from threadfs.fuse.errnos import errno_of
from threadfs.fuse.waking.announced import HANDLE, ORDINARY, WITH_CONTEXT, WITH_HANDLE
from threadfs.fuse.waking.waker import Waker
from threadfs.nodes.base import NoSuchName, Refused, Tree

log = logging.getLogger("threadfs")

# The operations that may change the store.
_CHANGES = (
    *("mkdir", "create", "unlink", "rmdir", "rename", "setattr"),
    *("write", "flush", "fsync", "_commit_at_last_close"),
)


class HasHandlers(Protocol):
    tree: Tree
    # How many requests are in hand, how many of these may change the store, and whether new ones are refused.
    in_hand: int
    changes_in_hand: int
    is_ending: bool
    waker: Waker

    def paths_of(self, operation: str, arguments: Sequence[Any]) -> dict[str, bool]:
        """The paths at which an operation may change something; whether there is something afterwards."""
        ...

    def subject(self, operation: str, arguments: Sequence[Any]) -> str:
        """The path that an operation is about, for messages."""
        ...


H = TypeVar("H", bound=HasHandlers)
P = ParamSpec("P")
T = TypeVar("T")


def handler(
    function: Callable[Concatenate[H, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[H, P], Coroutine[Any, Any, T]]:
    """Counts the operation and turns every error into an errno; nothing else may leave a handler."""
    operation = function.__name__
    is_change = operation in _CHANGES
    has_context, has_handle = operation in WITH_CONTEXT, operation in WITH_HANDLE

    async def handle(self: H, /, *arguments: P.args, **named: P.kwargs) -> T:
        given: tuple[Any, ...] = arguments
        is_wakers = has_context and given[-1].pid == self.waker.announced.thread_id
        if is_wakers:
            answer: Any = await self.waker.announced.answer(operation, given)
            if answer is not ORDINARY:
                return cast(T, answer)
        elif has_handle and given[0] == HANDLE:
            return cast(T, self.waker.announced.answer_by_handle(operation, given))
        if not is_wakers:
            self.tree.journal.counters["operations"] += 1
        if self.is_ending:
            raise pyfuse3.FUSEError(errno.ENOTCONN)
        self.in_hand += 1
        self.changes_in_hand += is_change
        paths: dict[str, bool] = {}
        try:
            if is_change and self.waker.is_on:
                paths = self.paths_of(operation, given)
                self.waker.begins(paths)
            return await function(self, *arguments, **named)
        except pyfuse3.FUSEError:
            raise
        except NoSuchName as error:
            code = error.errno
        except (Refused, StoreError) as error:
            code = error.errno if isinstance(error, Refused) else errno_of(error)
            if not (isinstance(error, NotFound) and operation in ("lookup", "getattr")):
                self.tree.journal.refused(self.subject(operation, arguments), code, str(error))
            forget_origin(error)
        except Exception as error:
            code = errno.EIO
            path = self.subject(operation, arguments)
            log.exception("%s of %s failed", operation, printable(path))
            self.tree.journal.refused(path, code, "an error in threadfs: its log tells more")
            forget_origin(error)
        finally:
            self.in_hand -= 1
            self.changes_in_hand -= is_change
            if paths:
                self.waker.has_ended(paths)
        # Not while the other one is handled, which this one would hold.
        raise pyfuse3.FUSEError(code)

    return handle
