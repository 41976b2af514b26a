"""The key of an endpoint: where it comes from, and to whom it may go.

It comes from a file or from the environment, and never from the command line, which every user of the machine
can read. It goes to the endpoint alone, and unencrypted only within this machine.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Mapping

from httpx2 import URL

KEY = "THREADFS_API_KEY"
# Many have this one exported, and it is meant for one host.
_OF_OPENAI, _OPENAI = "OPENAI_API_KEY", "api.openai.com"
_MAX_BYTES = 16 << 10


class NoKey(Exception):
    """The key cannot be used; the text says what to do."""


def is_loopback(url: URL) -> bool:
    """Whether the host is this machine."""
    try:
        return ipaddress.ip_address(url.host).is_loopback
    except ValueError:
        return url.host == "localhost" or url.host.endswith(".localhost")


def key_for(url: URL, key_file: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key to send to *url*, if there is one.

    Raises:
        NoKey: the file cannot be read or others can read it, it is no key, or it would go over the network
            unencrypted.
    """
    if key_file is not None:
        key, where = _read(key_file), key_file
    else:
        key, where = environment.get(KEY, "").strip(), f"${KEY}"
        if not key and url.scheme == "https" and url.host == _OPENAI:
            key, where = environment.get(_OF_OPENAI, "").strip(), f"${_OF_OPENAI}"
        if not key:
            return None
    if not key.isascii() or not key.isprintable() or " " in key or not key:
        raise NoKey(f"{where} holds no key: one line of ASCII without blanks")
    if url.scheme != "https" and not is_loopback(url):
        raise NoKey(f"the key in {where} would go to {url.host} unencrypted: use https://, or no key")
    return key


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise NoKey(f"others can read {path}: chmod 600 it")
            return file.read(_MAX_BYTES).decode(errors="replace").strip()
    except OSError as error:
        raise NoKey(f"{path}: {error.strerror}") from None
