"""Which file systems are on this machine, and so answer from its memory."""

from __future__ import annotations

import ctypes
import os
import struct

# The types that statfs(2) gives to file systems on disks, or in the memory, of this machine. On any other
# (FUSE, NFS, SMB, …) even opening a file with a cached name may wait for a server.
# Source: https://github.com/torvalds/linux/blob/master/include/uapi/linux/magic.h
_LOCAL = {
    0xEF53,  # ext2, ext3, ext4
    0x58465342,  # XFS
    0x9123683E,  # Btrfs
    0xF2F52010,  # F2FS
    0x2FC12FC1,  # ZFS
    0xCA451A4E,  # bcachefs
    0x3153464A,  # JFS
    0x794C7630,  # overlay
    0x01021994,  # tmpfs
}
_BUFFER_BYTES = 256
_libc = ctypes.CDLL(None, use_errno=True)


def is_local(path: str) -> bool:
    """Whether the file system that *path* is on is known to be one of this machine."""
    buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
    if _libc.statfs(os.fsencode(path), buffer):
        return False
    (magic,) = struct.unpack_from("l", buffer.raw)
    return magic & 0xFFFFFFFF in _LOCAL
