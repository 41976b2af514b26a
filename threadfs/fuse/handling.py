"""What all handlers share: each error becomes an errno, and the requests in hand are counted."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import pyfuse3

from store import NotFound, StoreError
from store.printing import printable
from threadfs.fuse.asking import forget_origin
from threadfs.fuse.errnos import errno_of
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
    is_change = function.__name__ in _CHANGES

    async def handle(self: H, /, *arguments: P.args, **named: P.kwargs) -> T:
        self.tree.journal.counters["operations"] += 1
        if self.is_ending:
            raise pyfuse3.FUSEError(errno.ENOTCONN)
        self.in_hand += 1
        self.changes_in_hand += is_change
        try:
            return await function(self, *arguments, **named)
        except pyfuse3.FUSEError:
            raise
        except NoSuchName as error:
            code = error.errno
        except (Refused, StoreError) as error:
            code = error.errno if isinstance(error, Refused) else errno_of(error)
            if not (isinstance(error, NotFound) and function.__name__ in ("lookup", "getattr")):
                self.tree.journal.refused(self.subject(function.__name__, arguments), code, str(error))
            forget_origin(error)
        except Exception as error:
            code = errno.EIO
            path = self.subject(function.__name__, arguments)
            log.exception("%s of %s failed", function.__name__, printable(path))
            self.tree.journal.refused(path, code, "an error in threadfs: its log tells more")
            forget_origin(error)
        finally:
            self.in_hand -= 1
            self.changes_in_hand -= is_change
        # Not while the other one is handled, which this one would hold.
        raise pyfuse3.FUSEError(code)

    return handle
