"""The one table from what a store says to what a caller of the file system gets."""

from __future__ import annotations

import errno

import store
from store import errors

_ERRNOS: dict[type[store.StoreError], int] = {
    store.NotFound: errno.ENOENT,
    store.RunInTerminalState: errno.EPERM,
    store.RunStepInTerminalState: errno.EPERM,
    store.StatusChanged: errno.ENOENT,
    store.RunInProgress: errno.EBUSY,
    errors.OutputIsSet: errno.EPERM,
    errors.ToolCallNotFound: errno.ENOENT,
    store.NotEmpty: errno.ENOTEMPTY,
    store.AlreadyExists: errno.EEXIST,
    store.InvalidName: errno.EINVAL,
    store.InvalidDocument: errno.EINVAL,
    store.InvalidQuery: errno.EINVAL,
    store.Damaged: errno.EIO,
}


def errno_of(error: store.StoreError) -> int:
    if isinstance(error, store.StorageFailed):
        # Never EINTR, which FUSE must not answer, and never "fine".
        return error.errno if error.errno not in (0, errno.EINTR) else errno.EIO
    for kind in type(error).__mro__:
        if kind in _ERRNOS:
            return _ERRNOS[kind]
    return errno.EIO
