"""The programs that the tests in this directory use, and the Debian packages that they are in."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.clients.watchers import NODE_PATH


class Program(NamedTuple):
    # As the table in docs/clients.md names it.
    title: str
    # What must be in PATH; empty where a program is played by its system calls.
    command: str = ""
    package: str = ""


_ALL = (
    Program("vim", "vim", "vim"),
    Program("nano", "nano", "nano"),
    Program("emacs", "emacs", "emacs-nox"),
    Program("Mousepad", "mousepad", "mousepad"),
    Program("gedit", "gedit", "gedit"),
    Program("VS Code (its system calls)"),
    Program("sed", "sed", "sed"),
    Program("perl", "perl", "perl"),
    Program("jq", "jq", "jq"),
    Program("sponge", "sponge", "moreutils"),
    Program("coreutils", "cp", "coreutils"),
    Program("bash", "bash", "bash"),
    Program("Python", "python3", "python3"),
    Program("rsync", "rsync", "rsync"),
    Program("tar", "tar", "tar"),
    Program("git", "git", "git"),
    Program("restic", "restic", "restic"),
    Program("gio", "gio", "libglib2.0-bin"),
    Program("Thunar", "thunar", "thunar"),
    Program("PCManFM", "pcmanfm", "pcmanfm"),
    Program("less", "less", "less"),
    Program("watch", "watch", "procps"),
    Program("inotifywait", "inotifywait", "inotify-tools"),
    Program("entr", "entr", "entr"),
    Program("watchdog"),
    Program("chokidar", "node", "node-chokidar"),
    Program("Parcel's watcher", "node"),
    Program("Syncthing", "syncthing", "syncthing"),
    Program("systemd path units (their system calls)"),
    Program("grep", "grep", "grep"),
    Program("ripgrep", "rg", "ripgrep"),
    Program("find", "find", "findutils"),
    # What drives the others.
    Program("tmux", "tmux", "tmux"),
    Program("Xvfb", "Xvfb", "xvfb"),
    Program("xdotool", "xdotool", "xdotool"),
    Program("dbus-run-session", "dbus-run-session", "dbus-daemon"),
)
PROGRAMS = {program.title: program for program in _ALL}


def require(title: str) -> None:
    """Fails, with what to do, when the program is not installed: what is skipped is not shown to work."""
    program = PROGRAMS[title]
    if program.command and shutil.which(program.command) is None:
        pytest.fail(f"{program.command} is missing: apt-get install {program.package}", pytrace=False)


def version(title: str) -> str:
    """The version as its makers count, without what Debian adds."""
    program = PROGRAMS[title]
    if title == "Python":
        return platform.python_version()
    if title == "watchdog":
        return metadata.version(title)
    if title == "Parcel's watcher":
        package = json.loads(Path(NODE_PATH.split(":")[0], "@parcel/watcher/package.json").read_text())
        return str(package["version"])
    if not program.package:
        return "—"
    query = ["dpkg-query", "-W", "-f", "${source:Upstream-Version}", program.package]
    try:
        result = subprocess.run(query, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "?"
    return result.stdout.split("+")[0].split("~")[0] or "?"
