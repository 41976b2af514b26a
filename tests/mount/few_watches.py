"""``python -m tests.mount.few_watches N ...``: threadfs where the system has N inotify watches for it.

As by ``fs.inotify.max_user_watches``, which would limit the tests that run at the same time, too. With
``none`` it has no inotify instance, as by ``fs.inotify.max_user_instances``.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

from inotify_simple import INotify

from store.disk import watch_budget
from threadfs.cli import main


def refuse_instances() -> None:
    def refused(self: INotify, *arguments: Any, **named: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    INotify.__init__ = refused


def limit_watches(limit: int) -> None:
    add_watch = INotify.add_watch

    def add_if_there_is_room(self: INotify, path: str | bytes | os.PathLike[str], mask: int) -> int:
        held = Path(f"/proc/self/fdinfo/{self.fileno()}").read_text()
        if held.count("inotify wd:") >= limit and f" ino:{os.stat(path).st_ino:x} " not in held:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(add_watch(self, path, mask))

    INotify.add_watch = add_if_there_is_room
    told = os.memfd_create("max_user_watches")
    os.write(told, b"%d\n" % limit)
    watch_budget._MAX_WATCHES = Path(f"/proc/self/fd/{told}")


if __name__ == "__main__":
    amount, *arguments = sys.argv[1:]
    if amount == "none":
        refuse_instances()
    else:
        limit_watches(int(amount))
    sys.exit(main(arguments))
