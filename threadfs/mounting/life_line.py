"""Tells other processes whether the process that serves a mount is alive.

The process listens on a socket that is named after the file system; no data is ever sent. `threadfs umount`
connects before it unmounts, and waits for the connection to break: the kernel closes it when the process has
ended. The name is in the abstract namespace (unix(7)), so nothing is left behind, however the process ends.
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

# Open until the process has ended: the kernel closes them last, after all other work of the process.
_sockets: list[socket.socket] = []
# How many connections are accepted at once; more stay in the queue.
_MAX_CONNECTIONS = 64
_QUEUE = 64
# How long to try to connect while the queue is full, and to take a name that another process has.
_PATIENCE_S = 1.0

# What is asked of a mount whose process has ended, and of one that was asked just before it did.
_ENDED = (errno.ENOTCONN, errno.ECONNABORTED)

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def _name(device: str) -> bytes:
    return b"\0threadfs-" + device.encode()


def _of_peer(line: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end."""
    credentials = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    return pid, uid


def hold(mountpoint: str) -> None:
    """Listens for *mountpoint*, which this process serves, until the process ends."""
    mount = on_top(mountpoint)
    if mount is None:
        return
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        _bind(listening, _name(mount.device))
        listening.listen(_QUEUE)
    except OSError as error:
        # The mount works without it, but `threadfs umount` will not wait for the process to end.
        log.info("no life line: %s", error.strerror)
        listening.close()
    else:
        _sockets.append(listening)


def _bind(listening: socket.socket, name: bytes) -> None:
    """The number of a mount that has gone is given to the next one, when its process may still be ending."""
    patient_until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            listening.bind(name)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > patient_until_s:
                raise
            time.sleep(_PATIENCE_S / 50)
        else:
            return


async def keep_lines() -> None:
    """Accepts connections, so that the queue does not fill up, and keeps each until its peer closes it."""
    import trio  # Imported here, as clients do not need it and it takes a while.

    free = trio.Semaphore(_MAX_CONNECTIONS)

    async def keep(line: socket.socket) -> None:
        await trio.lowlevel.wait_readable(line)
        _sockets.remove(line)
        line.close()
        free.release()

    async with trio.open_nursery() as nursery:
        for listening in list(_sockets):
            while True:
                await free.acquire()
                await trio.lowlevel.wait_readable(listening)
                try:
                    line = listening.accept()[0]
                except OSError:  # The peer has closed it already, or there are too many open files.
                    free.release()
                    await trio.sleep(_PATIENCE_S)
                else:
                    if _of_peer(line)[1] in (0, os.geteuid()):
                        _sockets.append(line)
                        nursery.start_soon(keep, line)
                    else:  # Other users could use up the connections.
                        line.close()
                        free.release()


class LifeLine:
    """A connection to the process that serves *mount*."""

    def __init__(self, mount: Mount) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # None: no such process; 0: it is alive, but its queue is full.
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
        # Any user may listen on any name: trust only root and ourselves; root trusts all.
        if uid in (0, os.geteuid()) or os.geteuid() == 0:
            self.pid = pid

    def _is_connected(self, mount: Mount) -> bool:
        try:
            self._socket.connect(_name(mount.device))
        except BlockingIOError:
            return False
        return True

    def fileno(self) -> int:
        """What poll(2) says can be read when the process has ended, if there is one and it lets us wait."""
        return self._socket.fileno()

    def wait(self, timeout_s: float) -> bool:
        """Waits for the process to end; False on timeout, True if there was no process."""
        try:
            if not self.pid:
                return self.pid is None
            self._socket.settimeout(timeout_s)
            self._socket.recv(1)
        except TimeoutError:
            return False
        except OSError:
            return True  # A reset: it ended without accepting.
        finally:
            self._socket.close()
        return True


def server_of(mount: Mount) -> int | None:
    """The process that serves *mount*; ``None`` if it has ended, or belongs to another user."""
    life_line = LifeLine(mount)
    life_line.wait(0)
    return life_line.pid


def is_kept_out(mount: Mount) -> bool:
    """Whether another user's mount keeps us out: FUSE answers statfs with zeros then. Raises OSError."""
    return (
        os.statvfs(mount.mountpoint).f_bsize == 0
    )  # Not os.stat, which the kernel may answer from its cache.


def is_dead(mount: Mount) -> bool:
    """Whether the process that served *mount* has ended; only root sees that for all. Raises OSError."""
    try:
        return is_kept_out(mount) and os.geteuid() == 0 and server_of(mount) is None
    except OSError as error:
        if error.errno not in _ENDED:
            raise
    return True
