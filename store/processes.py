"""Processes that do background work for this one. Each is started by exec, with two pipes and no other
descriptor of ours, and has to end when its standard input does: we have ended then, or want no more.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from store.printing import printable

# Where the packages of this program are. Python looks there by itself where they are installed, after its own
# library, which nothing there may hide.
_PACKAGES: Final = Path(__file__).parents[1]
_INSTALLED: Final = ("site-packages", "dist-packages")


def started(module: str, *arguments: str, directory: str = "/") -> subprocess.Popen[bytes]:
    """One that runs a *module* in a *directory*; errors go to its standard output. Raises OSError."""
    environment = dict(os.environ)
    if _PACKAGES.name not in _INSTALLED:
        before = os.environ.get("PYTHONPATH")
        paths = [os.fspath(_PACKAGES), *([before] if before else [])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=directory,
        env=environment,
        start_new_session=True,  # A signal from the terminal is for the one who has started it.
    )


def close(process: subprocess.Popen[bytes]) -> None:
    """Has it end."""
    if process.stdin is not None:
        process.stdin.close()


def why(status: int, said: str) -> str:
    """Why one has ended, whose last line was *said*."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return printable(said) or f"exit status {status}"
