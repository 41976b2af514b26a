"""Whether the process that opened a file still has it open.

A descriptor is inherited, and each process that ends closes its own: FLUSH arrives for every one of them,
and does not say whose it is. In ``{ cat a; cat b; } > say`` the shell opens the file, and the end of each
``cat`` is no end of the text. What a process has open is told by ``/proc/PID/fdinfo`` (proc(5)), which asks
the mount nothing. A process that ends, or closes, has no such descriptor any more when its FLUSH arrives.
"""

from __future__ import annotations

import os
import time

_MAX_DESCRIPTORS = 1024
_MAX_S = 0.02
_INFO_BYTES = 4096


def has_open(pid: int, inode_number: int, device: str) -> bool:
    """Whether the process or thread *pid* has a file open for writing; not, if that cannot be known.

    *device* is the number of the file system as in mountinfo, ``major:minor``. A process that cannot be
    looked into (another user's, one of another namespace), or has very many files, counts as one that has
    let go.
    """
    if not pid or not device:
        return False
    until_s = time.monotonic() + _MAX_S
    try:
        directory = os.open(f"/proc/{pid}/fdinfo", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        for name in os.listdir(directory)[:_MAX_DESCRIPTORS]:
            fields = _fields(directory, name)
            if (
                fields.get(b"ino") == b"%d" % inode_number
                and int(fields.get(b"flags", b"0"), 8) & os.O_ACCMODE != os.O_RDONLY
                and _device_of(pid, fields.get(b"mnt_id", b"")) == device
            ):
                return True
            if time.monotonic() > until_s:
                return False
    except OSError:
        return False  # It has ended.
    finally:
        os.close(directory)
    return False


def _fields(directory: int, name: str) -> dict[bytes, bytes]:
    """What is told of one descriptor; nothing when it was closed since."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return {}
    try:
        lines = os.read(file, _INFO_BYTES).splitlines()
    finally:
        os.close(file)
    return {key: value.strip() for key, _, value in (line.partition(b":") for line in lines)}


def _device_of(pid: int, mount_id: bytes) -> str:
    """The file system that a mount of the process shows."""
    with open(f"/proc/{pid}/mountinfo", "rb") as mounts:
        for line in mounts:
            found, _, device, _ = line.split(b" ", 3)
            if found == mount_id:
                return device.decode()
    return ""
