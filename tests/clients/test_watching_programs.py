"""Programs that watch.

`tail -f`, `less +F` and `watch` look again by themselves, and see what any program does within a second or
two. Others wait for inotify, which on FUSE reports what is done through this mount alone. So the mount makes
the calls that a program would have made here, and they hear of what other programs and hosts do, too: of
each change once. [operating.md](operating.md#programs-that-watch) says where, and `-o nowake` switches it
off. To wait for a run, use `poll(2)` on its `status`, as with a file of sysfs: POLLPRI says that it is
another document, whoever changed it; then open it again.

Syncthing makes a folder `.stfolder` in what it shares, which `threads/` refuses: share it as "Send Only",
with the name of a thread that stays as `markerName`. VS Code watches folders by Parcel's watcher, and a file
that is open by itself as Node.js does.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from inotify_simple import INotify, flags

from store import ContentBlock, MessageRole, Run, RunStatus, TextContent, Thread, ThreadMessage, ThreadStore
from tests.clients.terminal import Terminal
from tests.clients.watchers import NODE_PATH, WATCHERS
from tests.mount.conftest import Mount, wait_until

THREAD = "Trip to Oslo"


def append_elsewhere(mount: Mount, text: str) -> None:
    """As another program does, in the store."""
    content = [ContentBlock(text=TextContent(value=text))]
    ThreadStore(mount.store).append_message(
        THREAD, ThreadMessage(thread_id=THREAD, role=MessageRole.user, content=content)
    )


def complete_elsewhere(mount: Mount, run: Path) -> None:
    ThreadStore(mount.store).update_run_status(run.parent.parent.name, run.name, RunStatus.completed)


class Follower:
    """A program that runs on, and what it has printed so far."""

    def __init__(self, command: list[str], cwd: Path, output: Path, environment: Mapping[str, str]) -> None:
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=cwd, env=environment, stdout=file, stderr=subprocess.STDOUT
            )

    def wait_for(self, text: str) -> None:
        try:
            wait_until(lambda: text in self.printed())
        except AssertionError:
            raise AssertionError(f"{text!r} was not printed, but {self.printed()!r}") from None

    def wait_for_match(self, pattern: str, begin: int) -> None:
        """For *pattern* after the first *begin* characters."""
        try:
            wait_until(lambda: re.search(pattern, self.printed()[begin:]) is not None)
        except AssertionError:
            raise AssertionError(f"{pattern!r} does not match {self.printed()[begin:]!r}") from None

    def printed(self) -> str:
        return self._output.read_text()


@pytest.fixture
def follow(mount: Mount, place: Path, environment: Mapping[str, str]) -> Iterator[Callable[..., Follower]]:
    """Starts a program in the mount that ends before the mount does."""
    followers: list[Follower] = []
    environment = {**environment, "NODE_PATH": NODE_PATH}

    def start(*command: str) -> Follower:
        followers.append(Follower(list(command), mount.root, place / f"output{len(followers)}", environment))
        return followers[-1]

    yield start
    for follower in followers:
        follower.process.send_signal(signal.SIGTERM)
        follower.process.wait()


@pytest.mark.program("coreutils")
@pytest.mark.parametrize("path", [f"transcripts/{THREAD}.md", f"threads/{THREAD}/messages.jsonl"])
@pytest.mark.parametrize("option", ["-f", "-F"])
def test_tail_f_shows_messages_that_anybody_adds(
    mount: Mount, follow: Callable[..., Follower], path: str, option: str
) -> None:
    tail = follow("tail", option, "-n", "+1", path)
    tail.wait_for("kids are 7 and 10")
    append_elsewhere(mount, "And by ferry?")
    tail.wait_for("And by ferry?")
    mount.path("threads", THREAD, "say").write_text("And by train?")
    tail.wait_for("And by train?")
    with mount.path("threads", THREAD, "messages.jsonl").open("a") as log:
        log.write('{"role": "assistant", "content": "By plane."}\n')
    tail.wait_for("By plane.")
    assert tail.printed().count("kids are 7 and 10") == 1


@pytest.mark.program("less")
def test_less_F_shows_messages_that_anybody_adds(mount: Mount, terminal: Callable[..., Terminal]) -> None:
    less = terminal(["less", "+F", f"transcripts/{THREAD}.md"], mount.root)
    less.wait_for("Waiting for data")
    append_elsewhere(mount, "And by ferry?")
    less.wait_for("And by ferry")
    mount.path("threads", THREAD, "say").write_text("And by train?")
    less.wait_for("And by train")


@pytest.mark.program("watch")
def test_watch_shows_a_run_move_from_one_status_to_another(
    mount: Mount, terminal: Callable[..., Terminal]
) -> None:
    run = mount.run("in_progress")
    watch = terminal(["watch", "-n", "0.2", "ls runs/completed"], mount.root)
    watch.wait_for("Every 0.2s")
    assert run.name not in watch.screen()
    complete_elsewhere(mount, run)
    watch.wait_for(run.name)


@pytest.mark.program("inotifywait")
def test_inotifywait_reports_what_is_done_through_the_mount(
    mount: Mount, follow: Callable[..., Follower]
) -> None:
    run = mount.run("in_progress")
    path = str(run.relative_to(mount.root))
    inotifywait = follow("inotifywait", "-m", "--format", "%e %f", "threads", path)
    inotifywait.wait_for("Watches established")
    mount.path("threads", "idea").mkdir()
    inotifywait.wait_for("CREATE,ISDIR idea")
    (run / "status").write_text("completed")
    inotifywait.wait_for("CLOSE_WRITE,CLOSE status")
    mount.path("threads", "idea").rmdir()
    inotifywait.wait_for("DELETE,ISDIR idea")


@pytest.mark.parametrize(
    "program", [pytest.param(name, marks=pytest.mark.program(name)) for name in WATCHERS]
)
def test_is_told_once_of_a_thread_a_message_a_status_and_a_deletion_elsewhere(
    mount: Mount, follow: Callable[..., Follower], program: str
) -> None:
    run = mount.run("in_progress")
    watching = WATCHERS[program]
    comes, is_written, is_changed, goes = watching.events
    watcher = follow(*watching.command)
    for text in watching.begins:
        watcher.wait_for(text)
    begin = len(watcher.printed())
    changes: list[tuple[str, str, Callable[[], object]]] = [
        (comes, "threads/elsewhere", lambda: ThreadStore(mount.store).create_thread(Thread(id="elsewhere"))),
        (is_written, f"threads/{THREAD}/messages.jsonl", lambda: append_elsewhere(mount, "And by ferry?")),
        (is_changed, f"{run.relative_to(mount.root)}/status", lambda: complete_elsewhere(mount, run)),
        (goes, "threads/elsewhere", lambda: ThreadStore(mount.store).delete_thread("elsewhere")),
    ]
    for event, path, change in changes:
        change()
        watcher.wait_for_match(watching.pattern(event, path), begin)
    told = [watching.pattern(event, path) for event, path, _ in changes]
    assert {one: len(re.findall(one, watcher.printed()[begin:])) for one in told} == dict.fromkeys(told, 1)


@pytest.mark.program("VS Code (its system calls)")
def test_shows_a_document_anew_that_is_open_and_changes_elsewhere(
    mount: Mount, follow: Callable[..., Follower]
) -> None:
    """A file that is open outside the folder of a window is watched by itself, by fs.watch of Node.js."""
    run = mount.run("in_progress")
    watches = 'require("fs").watch(process.argv[1], (...told) => console.log(...told)); console.log("ready")'
    watcher = follow("node", "-e", watches, str(run / "status"))
    watcher.wait_for("ready\n")
    complete_elsewhere(mount, run)
    watcher.wait_for("change status\n")


# The number of poll(2), or ppoll(2), and its limit of time where it has none; see asm/unistd.h.
_POLL = {"x86_64": ("7", "0xffffffff"), "aarch64": ("73", "0x0")}


def is_waiting_for_ever(call: list[str]) -> bool:
    """Whether *call*, a system call as proc(5) shows it, is a poll that ends with an event alone."""
    return len(call) > 3 and (call[0], call[3]) == _POLL[os.uname().machine]


@pytest.fixture
def entr(follow: Callable[..., Follower], place: Path) -> Callable[..., Follower]:
    """Runs a command with the file that has changed: at first with the first one, when it begins to watch."""

    def start(*paths: str, options: str = "-n") -> Follower:
        (place / "paths").write_text("".join(f"{path}\n" for path in paths))
        command = f"exec entr {options} echo changed: /_ < {place}/paths"
        follower = follow("sh", "-c", command)
        follower.wait_for("changed: ")
        # What changes in the next 50 ms it takes for what the command has done.
        call = Path(f"/proc/{follower.process.pid}/syscall")
        wait_until(lambda: is_waiting_for_ever(call.read_text().split()))
        return follower

    return start


@pytest.mark.program("entr")
def test_runs_a_command_when_a_message_comes_elsewhere(mount: Mount, entr: Callable[..., Follower]) -> None:
    path = f"transcripts/{THREAD}.md"
    program = entr(path)
    append_elsewhere(mount, "And by ferry?")
    program.wait_for(f"{path}\nchanged: {mount.root}/{path}\n")


@pytest.mark.program("entr")
def test_runs_a_command_when_a_status_changes_elsewhere(mount: Mount, entr: Callable[..., Follower]) -> None:
    run = mount.run("in_progress")
    program = entr(str(run / "status"))
    complete_elsewhere(mount, run)
    program.wait_for(f"status\nchanged: {run}/status\n")


@pytest.mark.program("entr")
def test_with_d_says_that_a_thread_has_come_elsewhere(mount: Mount, entr: Callable[..., Follower]) -> None:
    program = entr(f"transcripts/{THREAD}.md", options="-dn")
    ThreadStore(mount.store).create_thread(Thread(id="elsewhere"))
    program.wait_for("directory altered")


# As PathChanged= and DirectoryNotEmpty= have them; see path.c of systemd.
_PATH_CHANGED = (
    *(flags.DELETE_SELF, flags.MOVE_SELF, flags.ATTRIB, flags.CLOSE_WRITE),
    *(flags.CREATE, flags.DELETE, flags.MOVED_FROM, flags.MOVED_TO),
)
_NOT_EMPTY = flags.DELETE_SELF, flags.MOVE_SELF, flags.ATTRIB, flags.CREATE, flags.MOVED_TO


@pytest.mark.program("systemd path units (their system calls)")
def test_begin_at_a_thread_a_message_a_run_and_a_deletion_elsewhere(mount: Mount) -> None:
    store = ThreadStore(mount.store)
    for path, kinds, change in (
        ("threads", _PATH_CHANGED, lambda: store.create_thread(Thread(id="elsewhere"))),
        (f"threads/{THREAD}/messages.jsonl", _PATH_CHANGED, lambda: append_elsewhere(mount, "By ferry?")),
        ("runs/queued", _NOT_EMPTY, lambda: store.create_run("elsewhere", Run(id="R"))),
        ("threads", _PATH_CHANGED, lambda: store.delete_thread("elsewhere", force=True)),
    ):
        with closing(INotify()) as inotify:
            inotify.add_watch(mount.path(path), sum(kinds))
            assert inotify.read(timeout=0) == []
            change()
            assert inotify.read(timeout=10_000) != []
    store.close()


@pytest.mark.program("Python")
@pytest.mark.parametrize("where", ["in the store", "in the mount"])
def test_poll_on_a_status_wakes_up_when_the_run_changes(mount: Mount, where: str) -> None:
    run = mount.run("in_progress")
    descriptor = os.open(run / "status", os.O_RDONLY)
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLPRI)
        before = os.read(descriptor, 65536)
        assert waiting.poll(0) == []
        if where == "in the store":
            complete_elsewhere(mount, run)
        else:
            subprocess.run(["bash", "-c", "echo completed > status"], cwd=run, check=True)
        started = time.monotonic()
        ((woken, events),) = waiting.poll(10_000)
        assert time.monotonic() - started < 5
        assert woken == descriptor
        assert events & select.POLLPRI
        assert os.pread(descriptor, 65536, 0) == before
    finally:
        os.close(descriptor)
    assert json.loads((run / "status").read_text())["status"] == "completed"
