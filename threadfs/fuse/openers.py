"""Whether the process that opened a file still has it open.

A descriptor is inherited, and each process that ends closes its own: FLUSH arrives for every one of them,
and does not say whose it is. In ``{ cat a; cat b; } > say`` the shell opens the file, and the end of each
``cat`` is no end of the text. ``/proc/PID/fdinfo`` (proc(5)) shows the descriptors of a process, and asks the
mount nothing. A process that ends, or closes, has the descriptor no longer when its FLUSH arrives.
"""

from __future__ import annotations

import os
import re
import time

# How many are looked at, and how much CPU time that takes at most. (The clock on the wall would say that the
# process has closed the file where it was only our turn that did not come.)
_MAX_DESCRIPTORS = 1024
_MAX_CPU_S = 0.02
_INFO_BYTES = 4096
_FIELDS = re.compile(rb"\nflags:\t(\d+)\nmnt_id:\t(\d+)\n")


def open_descriptors(pid: int, inode_number: int, device: str) -> int:
    """With how many descriptors the process or thread *pid* has a file open for writing.

    *device* is the number of the file system as in mountinfo, ``major:minor``. 0 if it cannot be known: of
    another user's process or one of another namespace, or of one with very many files.
    """
    if not pid or not device:
        return 0
    until_s = time.thread_time() + _MAX_CPU_S
    this_file = b"\nino:\t%d\n" % inode_number
    found = 0
    try:
        directory = os.open(f"/proc/{pid}/fdinfo", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        names = os.listdir(directory)
        if len(names) > _MAX_DESCRIPTORS:
            return 0
        for name in names:
            info = _info(directory, name)
            if this_file in info and (fields := _FIELDS.search(info)):
                is_writer = int(fields[1], 8) & os.O_ACCMODE != os.O_RDONLY
                found += is_writer and _device_of(pid, fields[2]) == device
            if time.thread_time() > until_s:
                return 0
    except OSError:
        return 0  # It has ended.
    finally:
        os.close(directory)
    return found


def _info(directory: int, name: str) -> bytes:
    """What ``fdinfo`` has of one descriptor; nothing if it was closed meanwhile."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return b""
    try:
        return os.read(file, _INFO_BYTES)
    finally:
        os.close(file)


def _device_of(pid: int, mount_id: bytes) -> str:
    """The file system that a mount of the process shows."""
    with open(f"/proc/{pid}/mountinfo", "rb") as mounts:
        for line in mounts:
            found, _, device, _ = line.split(b" ", 3)
            if found == mount_id:
                return device.decode()
    return ""
