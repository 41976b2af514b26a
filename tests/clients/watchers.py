"""Programs that watch `threads/` and say what they are told: how each is started, and what it prints."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# Where scripts/setup puts what tests take from npm, and Debian its modules of JavaScript.
NODE_PATH = f"{Path(__file__).parents[2]}/.venv/npm/node_modules:/usr/share/nodejs"

_WATCHDOG = """
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer

class Handler(FileSystemEventHandler):
    def on_any_event(self, event):
        if event.event_type != "opened":
            print(event.event_type, event.src_path, flush=True)

observer = Observer()
observer.schedule(Handler(), "threads", recursive=True)
observer.start()
print("ready", flush=True)
observer.join()
"""
_CHOKIDAR = """
const { relative } = require("path");  // What it was told to watch it now and then names by its whole path.
require("chokidar").watch("threads", { ignoreInitial: true })
    .on("ready", () => console.log("ready"))
    .on("all", (event, path) => console.log(event, relative(".", path)));
"""
_PARCEL = """
const { relative, resolve } = require("path");
require("@parcel/watcher").subscribe(resolve("threads"), (error, events) => {
    for (const { type, path } of events) console.log(type, relative(".", path));
}).then(() => console.log("ready"));
"""
# It talks to nobody, never scans by itself after the start, and waits one second for further changes.
_SYNCTHING = """
mkdir ~/syncthing
cat > ~/syncthing/config.xml <<END
<configuration version="36">
  <folder id="threads" path="$PWD/threads" type="sendonly" rescanIntervalS="0" fsWatcherEnabled="true" fsWatcherDelayS="1">
    <markerName>Trip to Oslo</markerName>
  </folder>
  <gui enabled="false"></gui>
  <options>
    <listenAddress>tcp://127.0.0.1:0</listenAddress>
    <globalAnnounceEnabled>false</globalAnnounceEnabled> <localAnnounceEnabled>false</localAnnounceEnabled>
    <relaysEnabled>false</relaysEnabled> <natEnabled>false</natEnabled>
    <urAccepted>-1</urAccepted> <crashReportingEnabled>false</crashReportingEnabled>
  </options>
</configuration>
END
export STTRACE=model STHASHING=standard
exec syncthing serve --home="$HOME/syncthing" --no-browser --no-restart --no-upgrade --audit --auditfile=-
"""  # noqa: E501


def _line(event: str, path: str) -> str:
    return rf"(?m)^{event} {re.escape(path)}$"


def _audit_line(event: str, path: str) -> str:
    """An event in Syncthing's audit log, which has paths from the folder."""
    return rf'"action":"{event}",.*"path":{re.escape(json.dumps(path.removeprefix("threads/")))},'


class Watching(NamedTuple):
    command: list[str]
    # What it says of a thread that comes, a message, a status and a thread that goes.
    events: tuple[str, str, str, str]
    # What it prints until it watches.
    begins: tuple[str, ...] = ("ready\n",)
    # What is found in what it prints of an event at a path.
    pattern: Callable[[str, str], str] = _line


WATCHERS = {
    "inotifywait": Watching(
        ["inotifywait", "-m", "-r", "--format", "%e %w%f", "threads"],
        ("CREATE,ISDIR", "CLOSE_WRITE,CLOSE", "CLOSE_WRITE,CLOSE", "DELETE,ISDIR"),
        begins=("Watches established",),
    ),
    "watchdog": Watching([sys.executable, "-c", _WATCHDOG], ("created", "closed", "closed", "deleted")),
    "chokidar": Watching(["node", "-e", _CHOKIDAR], ("addDir", "change", "change", "unlinkDir")),
    "Parcel's watcher": Watching(["node", "-e", _PARCEL], ("create", "update", "update", "delete")),
    "Syncthing": Watching(
        ["sh", "-c", _SYNCTHING],
        ("modified", "modified", "modified", "deleted"),
        begins=("Started filesystem watcher for folder", '"from":"scanning","to":"idle"'),
        pattern=_audit_line,
    ),
}
