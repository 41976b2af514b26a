"""Programs that watch.

`tail -f`, `less +F` and `watch` look again by themselves, and see what any program does within a second or
two. inotify on FUSE is a matter of the kernel: it reports what is done through this mount, by anybody, and
nothing that other programs do in the store, nor what another mount of it does. So `inotifywait`, `entr` and
file managers that are shown a directory miss such changes until they look again (F5); on a mount with
`-o wake` they hear of them ([operating.md](operating.md#programs-that-watch)). To wait for a run,
use `poll(2)` on its `status`, as with a file of sysfs: POLLPRI says that it is another document, whoever
changed it; then open it again.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from store import ContentBlock, MessageRole, RunStatus, TextContent, Thread, ThreadMessage, ThreadStore
from tests.clients.terminal import Terminal
from tests.mount.conftest import Mount, checked_mount, wait_until

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

    def printed(self) -> str:
        return self._output.read_text()


@pytest.fixture
def follow(mount: Mount, place: Path, environment: Mapping[str, str]) -> Iterator[Callable[..., Follower]]:
    """Starts a program in the mount that ends before the mount does."""
    followers: list[Follower] = []

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


@pytest.mark.program("inotifywait")
def test_inotifywait_reports_no_thread_that_is_made_in_the_store(
    mount: Mount, follow: Callable[..., Follower]
) -> None:
    inotifywait = follow("inotifywait", "-m", "--format", "%e %f", "threads")
    inotifywait.wait_for("Watches established")
    ThreadStore(mount.store).create_thread(Thread(id="elsewhere"))
    wait_until(lambda: mount.path("threads", "elsewhere").exists())
    mount.path("threads", "here").mkdir()
    inotifywait.wait_for("CREATE,ISDIR here")
    assert "CREATE,ISDIR elsewhere" not in inotifywait.printed()


@pytest.mark.program("inotifywait")
def test_inotifywait_r_reports_what_others_do_on_a_mount_with_wake(
    place: Path, environment: Mapping[str, str]
) -> None:
    with checked_mount(place, "-o", "wake") as mount:
        inotifywait = Follower(
            ["inotifywait", "-m", "-r", "--format", "%e %w%f", "threads"],
            mount.root,
            place / "output",
            environment,
        )
        inotifywait.wait_for("Watches established")
        other = ThreadStore(mount.store)
        other.create_thread(Thread(id="elsewhere"))
        inotifywait.wait_for("CREATE,ISDIR threads/elsewhere\n")
        append_elsewhere(mount, "And by ferry?")
        inotifywait.wait_for(f"CLOSE_WRITE,CLOSE threads/{THREAD}/messages.jsonl\n")
        run = mount.run("in_progress")
        complete_elsewhere(mount, run)
        inotifywait.wait_for(f"CLOSE_WRITE,CLOSE {run.relative_to(mount.root)}/status\n")
        other.delete_thread("elsewhere")
        inotifywait.wait_for("DELETE,ISDIR threads/elsewhere\n")
        inotifywait.process.terminate()
        inotifywait.process.wait()


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
