"""Knowing from outside whether the process that serves a mount is still there.

The process listens on a socket whose name says which file system it serves; nothing is ever said there. Who
unmounts connects before, and waits for the connection to break: the kernel breaks it when the process has
ended. The name is an abstract one, so that nothing is left behind, whatever the process dies of.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
import time

from threadfs.mounting.mount_table import Mount, on_top

log = logging.getLogger("threadfs")

# Not closed here while anybody is at the other end: the kernel does that, after all else that a process does.
_held: list[socket.socket] = []
# As many as may wait for an end at once; more are left in the queue.
_MAX_KEPT = 64
_QUEUE = 64
# How long to try to get into a full queue.
_PATIENCE_S = 1.0

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def _name(device: str) -> bytes:
    return b"\0threadfs-" + device.encode()


def _of_peer(line: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end."""
    said = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(said)
    return pid, uid


def hold(mountpoint: str) -> None:
    """Tells who asks that the process serving *mountpoint*, which is this one, lives: from now to its end."""
    mount = on_top(mountpoint)
    if mount is None:
        return
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.bind(_name(mount.device))
        listening.listen(_QUEUE)
    except OSError as error:
        # It serves all the same; `threadfs umount` will not wait for its end.
        log.info("no life line: %s", error.strerror)
        listening.close()
    else:
        _held.append(listening)


async def keep_lines() -> None:
    """Takes those who ask out of the queue, which would be full some day, and keeps them to their end."""
    import trio  # Who only asks does not wait until this is imported.

    free = trio.Semaphore(_MAX_KEPT)

    async def keep(line: socket.socket) -> None:
        await trio.lowlevel.wait_readable(line)
        _held.remove(line)
        line.close()
        free.release()

    async with trio.open_nursery() as nursery:
        for listening in list(_held):
            while True:
                await free.acquire()
                await trio.lowlevel.wait_readable(listening)
                try:
                    line = listening.accept()[0]
                except OSError:  # They have hung up already, or there are too many open files.
                    free.release()
                    await trio.sleep(_PATIENCE_S)
                else:
                    if _of_peer(line)[1] in (0, os.geteuid()):
                        _held.append(line)
                        nursery.start_soon(keep, line)
                    else:  # Others could keep those out whom it concerns.
                        line.close()
                        free.release()


class LifeLine:
    """A connection to the process that serves *mount*; none when that is not there."""

    def __init__(self, mount: Mount) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # 0 when it is there, but more have asked than it could answer yet.
        self.pid: int | None = None
        self._socket.setblocking(False)
        patient_until_s = time.monotonic() + _PATIENCE_S
        try:
            while not self._is_connected(mount):
                if time.monotonic() > patient_until_s:
                    self.pid = 0
                    return
                time.sleep(_PATIENCE_S / 50)
        except OSError:
            return
        pid, uid = _of_peer(self._socket)
        # Anybody may listen under any name: believe root, ourselves, and whom root asks about.
        if uid in (0, os.geteuid()) or os.geteuid() == 0:
            self.pid = pid

    def _is_connected(self, mount: Mount) -> bool:
        try:
            self._socket.connect(_name(mount.device))
        except BlockingIOError:
            return False
        return True

    def wait(self, timeout_s: float) -> bool:
        """Whether the process has ended in time; True when there was none."""
        try:
            if not self.pid:
                return self.pid is None
            self._socket.settimeout(timeout_s)
            self._socket.recv(1)
        except TimeoutError:
            return False
        except OSError:
            return True  # reset: it ended without ever answering
        finally:
            self._socket.close()
        return True


def server_of(mount: Mount) -> int | None:
    """The process that serves *mount*; none when it is not there, or when that is not ours to know."""
    life_line = LifeLine(mount)
    life_line.wait(0)
    return life_line.pid


def is_kept_out(mount: Mount) -> bool:
    """Whether the mount is another's, and not for us: FUSE tells those zeros. Raises OSError."""
    return os.statvfs(mount.mountpoint).f_bsize == 0  # What os.stat asks for, the kernel may remember.


def is_dead(mount: Mount) -> bool:
    """Whether nobody serves *mount* any more; of another's mount only root can tell. Raises OSError."""
    try:
        return is_kept_out(mount) and os.geteuid() == 0 and server_of(mount) is None
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
    return True
