"""Programs that watch the mount are told what others change in the store, and nothing is changed by that."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from store import (
    DocumentKey,
    Run,
    RunContents,
    RunStatus,
    RunStep,
    RunStepStatus,
    Thread,
    ThreadStore,
)
from tests.mount.conftest import ANSWERS_S, EXAMPLES, Mount, checked_mount, start, stop, wait_until
from tests.mount.scripts import contents, new_run, new_thread, stats, succeeds
from tests.mount.watcher import watching
from tests.store.conftest import message

RUN, STEP = DocumentKey("T", "R"), DocumentKey("T", "R", "S")
Action = Callable[[ThreadStore], object]


def import_whole(store: ThreadStore) -> None:
    runs = {"Q": RunContents(b'{"created_at":2,"status":"completed"}')}
    store.import_thread("U", b'{"created_at":1}', [b'{"role":"user","content":"x"}'], runs)


# What another program does, and the events of it. There is the thread T with the queued run R and the step S.
EVENTS: dict[str, tuple[Action, list[tuple[str, str]]]] = {
    "a thread": (
        lambda s: s.create_thread(Thread(id="U")),
        [("CREATE", "threads/U"), ("CREATE", "transcripts/U.md"), ("CREATE", "answers/U.md")],
    ),
    "an import": (import_whole, [("CREATE", "threads/U"), ("CREATE", "runs/completed/Q@U")]),
    "a message": (
        lambda s: s.append_message("T", message("x")),
        [
            *(("MODIFY", "threads/T/messages.jsonl"), ("CLOSE_WRITE", "threads/T/messages.jsonl")),
            *(("MODIFY", "transcripts/T.md"), ("MODIFY", "answers/T.md"), ("ATTRIB", "threads/T")),
        ],
    ),
    "a run": (
        lambda s: s.create_run("T", Run(id="Q")),
        [("CREATE", "threads/T/runs/Q"), ("CREATE", "runs/queued/Q@T"), ("ATTRIB", "threads/T")],
    ),
    "a status": (
        lambda s: s.update_run_status("T", "R", RunStatus.in_progress),
        [
            *(("MODIFY", "threads/T/runs/R/status"), ("CLOSE_WRITE", "threads/T/runs/R/status")),
            *(("MOVED_FROM", "runs/queued/R@T"), ("MOVED_TO", "runs/in_progress/R@T")),
            *(("MODIFY", "transcripts/T.md"), ("ATTRIB", "threads/T")),
        ],
    ),
    "a step": (
        lambda s: s.append_step("T", "R", RunStep(id="X")),
        [("CREATE", "threads/T/runs/R/steps/X.json")],
    ),
    "the end of a step": (
        lambda s: s.update_step_status("T", "R", "S", RunStepStatus.completed),
        [("MODIFY", "threads/T/runs/R/steps/S.json"), ("CLOSE_WRITE", "threads/T/runs/R/steps/S.json")],
    ),
    "a title": (
        lambda s: s.patch_document(DocumentKey("T"), {"metadata": {"title": "x"}}),
        [
            *(("MODIFY", "threads/T/meta.json"), ("CLOSE_WRITE", "threads/T/meta.json")),
            *(("MODIFY", "transcripts/T.md"), ("ATTRIB", "threads/T")),
        ],
    ),
    "a run that goes": (
        lambda s: s.delete_run("T", "R", force=True),
        [
            *(("DELETE", "threads/T/runs/R"), ("DELETE_SELF", "threads/T/runs/R/")),
            *(("DELETE", "runs/queued/R@T"), ("ATTRIB", "threads/T")),
        ],
    ),
    "a thread that goes": (
        lambda s: s.delete_thread("T", force=True),
        [
            *(("DELETE", "threads/T"), ("DELETE_SELF", "threads/T/"), ("DELETE_SELF", "threads/T/runs/R/")),
            *(("DELETE", "transcripts/T.md"), ("DELETE", "answers/T.md"), ("DELETE", "runs/queued/R@T")),
        ],
    ),
}


@pytest.fixture
def own_mount(tmp_path: Path) -> Iterator[Mount]:
    with checked_mount(tmp_path) as mounted:
        wait_until(lambda: stats(mounted)["wake"] == 1)
        yield mounted


@pytest.fixture
def mount(own_mount: Mount) -> Mount:
    return own_mount


@pytest.fixture
def other(own_mount: Mount) -> Iterator[ThreadStore]:
    """Another program, which has made T, R and S."""
    store = ThreadStore(own_mount.store)
    store.create_thread(Thread(id="T", created_at=1))
    store.append_message("T", message("hi"))
    store.create_run("T", Run(id="R", created_at=1))
    store.append_step("T", "R", RunStep(id="S", created_at=1))
    wait_until(lambda: (own_mount.root / "runs/queued/R@T").is_symlink())
    yield store
    store.close()


_marks = count()


def settle(mount: Mount) -> None:
    """Returns when all that has changed before has been told: a later change is."""
    mark = f"mark {next(_marks)}"
    with watching(mount.root, "threads") as watcher:
        store = ThreadStore(mount.store)
        store.create_thread(Thread(id=mark))
        store.close()
        watcher.waits_for("CREATE", f"threads/{mark}")


@pytest.mark.parametrize("what", EVENTS)
def test_who_watches_is_told_once_what_another_program_does(
    own_mount: Mount, other: ThreadStore, what: str
) -> None:
    do, expected = EVENTS[what]
    settle(own_mount)
    with watching(own_mount.root) as watcher:
        watcher.watch_all()
        do(other)
        for event, path in expected:
            watcher.waits_for(event, path)
        settle(own_mount)
        names = [seen for seen in watcher.look() if seen[0] not in ("ATTRIB", "MODIFY", "CLOSE_WRITE")]
        assert len(set(names)) == len(names)
        assert watcher.count("CREATE", "threads/T") == 0


@pytest.mark.parametrize("path", ["meta.json", "messages.jsonl", "runs/R/status", "runs/R/steps/S.json"])
def test_new_times_alone_are_no_new_contents(own_mount: Mount, other: ThreadStore, path: str) -> None:
    other.close()  # With the log, in which it has written.
    settle(own_mount)
    stored = own_mount.store / "T" / path.replace("status", "status.json")
    with watching(own_mount.root) as watcher:
        watcher.watch_all("threads")
        os.utime(stored, (1, 1))
        watcher.waits_for("ATTRIB", f"threads/T/{path}")
        watcher.waits_for("ATTRIB", "threads/T")
        settle(own_mount)
        assert {event for event, seen in watcher.look() if seen.startswith("threads/T")} == {"ATTRIB"}
        assert own_mount.path("threads", "T", path).stat().st_mtime == 1


def test_who_is_woken_reads_what_has_changed(own_mount: Mount, other: ThreadStore) -> None:
    status = own_mount.path("threads/T/runs/R/status")
    assert json.loads(status.read_text())["status"] == "queued"
    for word in (RunStatus.in_progress, RunStatus.queued, RunStatus.in_progress, RunStatus.completed):
        with watching(own_mount.root, "threads/T/runs/R") as watcher:
            other.update_run_status("T", "R", word)
            watcher.waits_for("MODIFY", "threads/T/runs/R/status")
            assert json.loads(status.read_text())["status"] == word


def test_what_a_program_writes_here_is_told_once_and_what_is_made_of_it_too(mount: Mount) -> None:
    thread = new_thread(mount)
    run, name = new_run(thread), thread.name
    with watching(mount.root) as watcher:
        watcher.watch_all()
        succeeds("echo in_progress > status", run)
        watcher.waits_for("MOVED_TO", f"runs/in_progress/{run.name}@{name}")
        watcher.waits_for("MODIFY", f"transcripts/{name}.md")
        succeeds("echo hi > say", thread)
        watcher.waits_for("MODIFY", f"threads/{name}/messages.jsonl")
        succeeds("""echo '{"role":"user","content":"ho"}' >> messages.jsonl""", thread)
        wait_until(lambda: watcher.count("MODIFY", f"transcripts/{name}.md") >= 3)
        settle(mount)
        assert watcher.count("CLOSE_WRITE", f"threads/{name}/runs/{run.name}/status") == 1
        assert watcher.count("CLOSE_WRITE", f"threads/{name}/messages.jsonl") == 2


def test_who_makes_moves_and_removes_here_is_told_once(mount: Mount) -> None:
    with watching(mount.root) as watcher:
        watcher.watch_all()
        thread = new_thread(mount)
        watcher.watch(f"threads/{thread.name}", f"threads/{thread.name}/runs")
        run = new_run(thread)
        link = f"{run.name}@{thread.name}"
        watcher.waits_for("CREATE", f"runs/queued/{link}")
        succeeds(f"mv 'queued/{link}' in_progress/", mount.path("runs"))
        succeeds("echo completed > status", run)
        watcher.waits_for("MOVED_TO", f"runs/completed/{link}")
        succeeds(f"rm -r '{thread}'", mount.root)
        watcher.waits_for("DELETE", f"runs/completed/{link}")
        settle(mount)
        for event in ("CREATE", "DELETE"):
            assert watcher.count(event, f"threads/{thread.name}") == 1
            assert watcher.count(event, f"threads/{thread.name}/runs/{run.name}") == 1
        assert watcher.count("MOVED_TO", f"runs/in_progress/{link}") == 1


def test_nothing_is_changed_by_it(own_mount: Mount, other: ThreadStore) -> None:
    with watching(own_mount.root) as watcher:
        watcher.watch_all()
        for number in range(5):
            other.create_thread(Thread(id=f"U{number}"))
            other.append_message(f"U{number}", message("hi"))
            other.create_run(f"U{number}", Run(id="Q"))
            watcher.waits_for("CREATE", f"runs/queued/Q@U{number}")
        other.update_run_status("T", "R", RunStatus.in_progress)
        other.delete_thread("U0", force=True)
        watcher.waits_for("DELETE", "threads/U0")
        settle(own_mount)
        before = contents(own_mount.store)
    found = stats(own_mount)
    assert found["wakeups"] > 20
    assert (found["commits"], found["refusals"], found["written_bytes"]) == (0, 0, 0)
    assert contents(own_mount.store) == before
    assert own_mount.errors() == ""


def test_a_directory_that_a_program_is_in_keeps_its_path_when_its_coming_is_told(
    own_mount: Mount, other: ThreadStore
) -> None:
    threads = own_mount.path("threads")
    with watching(own_mount.root, "threads") as watcher:
        for number in range(8):
            other.create_thread(Thread(id=f"U{number}"))
            wait_until((threads / f"U{number}").is_dir)
            inside = subprocess.Popen(
                ["dash", "-c", "read x; pwd -P"],
                cwd=threads / f"U{number}",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            wait_until(
                lambda number=number: any(  # type: ignore[misc]
                    path == f"threads/U{number}" for _, path in watcher.look()
                )
            )
            assert inside.communicate("\n", timeout=ANSWERS_S)[0] == f"{threads}/U{number}\n"


def test_who_watches_a_file_that_was_replaced_while_it_was_read_is_told(
    own_mount: Mount, other: ThreadStore
) -> None:
    path = "threads/T/runs/R/status"
    with own_mount.path(path).open() as reader, watching(own_mount.root, path) as watcher:
        assert json.load(reader)["status"] == "queued"
        other.update_run_status("T", "R", RunStatus.in_progress)
        watcher.waits_for("ATTRIB", f"{path}/")
        reader.seek(0)
        assert json.load(reader)["status"] == "queued"


def test_a_thread_that_is_made_again_can_be_used_and_is_told_again(
    own_mount: Mount, other: ThreadStore
) -> None:
    with watching(own_mount.root, "threads") as watcher:
        for number in range(1, 6):
            other.delete_thread("T", force=True)
            wait_until(lambda number=number: watcher.count("DELETE", "threads/T") == number)  # type: ignore[misc]
            other.create_thread(Thread(id="T"))
            wait_until(lambda number=number: watcher.count("CREATE", "threads/T") == number)  # type: ignore[misc]
            succeeds("echo hi > say; mkdir runs/R", own_mount.path("threads", "T"))


def test_a_run_without_a_list_before_it_is_told(own_mount: Mount, other: ThreadStore) -> None:
    other.create_thread(Thread(id="U"))
    with watching(own_mount.root, "runs/queued") as watcher:
        wait_until(own_mount.path("threads", "U", "runs").is_dir)
        watcher.watch("threads/U/runs")
        other.create_run("U", Run(id="Q"))
        watcher.waits_for("CREATE", "threads/U/runs/Q")
        watcher.waits_for("CREATE", "runs/queued/Q@U")


def test_of_what_was_never_a_thread_or_run_nobody_is_told(own_mount: Mount, other: ThreadStore) -> None:
    settle(own_mount)
    with watching(own_mount.root) as watcher:
        watcher.watch_all()
        for place in (own_mount.store, own_mount.store / "T" / "runs"):
            place.joinpath("notes").mkdir()
            place.joinpath("notes").rmdir()
            place.joinpath("notes.txt").write_text("mine")
            place.joinpath("notes.txt").unlink()
        settle(own_mount)
        assert [path for _, path in watcher.look() if "notes" in path] == []


def test_the_directory_of_a_status_that_few_runs_have_comes_and_goes(
    own_mount: Mount, other: ThreadStore
) -> None:
    with watching(own_mount.root, "runs", "runs/in_progress") as watcher:
        other.update_run_status("T", "R", RunStatus.in_progress)
        watcher.waits_for("MOVED_TO", "runs/in_progress/R@T")
        other.update_run_status("T", "R", RunStatus.requires_action)
        watcher.waits_for("CREATE", "runs/requires_action")
        watcher.watch("runs/requires_action")
        watcher.waits_for("MOVED_FROM", "runs/in_progress/R@T")
        other.update_run_status("T", "R", RunStatus.in_progress)
        watcher.waits_for("DELETE", "runs/requires_action")
        assert watcher.count("MOVED_FROM", "runs/requires_action/R@T") == 1
        assert watcher.count("MOVED_TO", "runs/in_progress/R@T") == 2


def test_with_nowake_nobody_is_told(tmp_path: Path) -> None:
    with checked_mount(tmp_path, "-o", "nowake") as mount, watching(mount.root) as watcher:
        watcher.watch_all()
        other = ThreadStore(mount.store)
        other.create_thread(Thread(id="U"))
        events = mount.path(".threadfs", "events")
        wait_until(lambda: b'"thread.created","thread_id":"U"' in events.read_bytes())
        assert watcher.look() == []
        assert (stats(mount)["wake"], stats(mount)["wakeups"]) == (0, 0)
        other.close()


def test_a_mount_that_is_read_only_tells_nobody_and_goes_on(tmp_path: Path) -> None:
    with (
        checked_mount(tmp_path, "--read-only") as mount,
        watching(mount.root, "threads") as watcher,
    ):
        other = ThreadStore(mount.store)
        other.create_thread(Thread(id="U"))
        wait_until(mount.path("threads", "U").is_dir)
        assert watcher.look() == []
        assert stats(mount)["wake"] == 0
        other.close()


def test_who_may_not_write_what_is_shown_as_0444_touches_it(tmp_path: Path) -> None:
    """Root may, unless it has given that up, as other users of ``-o allow_other`` may not."""
    store = Path(shutil.copytree(EXAMPLES / "household", tmp_path / "store"))
    root = tmp_path / "mnt"
    root.mkdir()
    command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    command += [sys.executable, "-m", "threadfs.cli", "-f", "-o", "allow_other", str(store), str(root)]
    with subprocess.Popen(command) as process, closing(ThreadStore(store)) as other:
        wait_until(lambda: os.path.ismount(root))
        with watching(root, "transcripts") as watcher:
            other.append_message("Trip to Oslo", message("x"))
            watcher.waits_for("ATTRIB", "transcripts/Trip to Oslo.md")
        stop(Mount(store, root, tmp_path / "log", process))


# Changes as fast as it can, in a process of its own.
_BUSY = """
import sys
from store import MessageRole, Run, RunStatus, Thread, ThreadMessage, ThreadStore
store, number = ThreadStore(sys.argv[1]), 0
while True:
    number += 1
    store.append_message("Trip to Oslo", ThreadMessage(role=MessageRole.user, content=[]))
    store.create_thread(Thread(id=f"busy {number}"))
    store.create_run(f"busy {number}", Run(id="R"))
    store.update_run_status(f"busy {number}", "R", RunStatus.in_progress)
    store.delete_thread(f"busy {number}", force=True)
"""


@pytest.fixture
def busy(own_mount: Mount) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", _BUSY, own_mount.store]) as writer:
        yield
        writer.kill()


@pytest.mark.usefixtures("busy")
def test_a_mount_can_be_unmounted_at_any_time(own_mount: Mount) -> None:
    succeeds("find . > /dev/null", own_mount.root)
    wait_until(lambda: stats(own_mount)["wakeups"] > 20)
    subprocess.run(["fusermount3", "-u", str(own_mount.root)], check=True)
    assert own_mount.process.wait(ANSWERS_S) == 0


@pytest.mark.usefixtures("busy")
def test_a_mount_that_is_in_use_ends_at_the_second_signal(own_mount: Mount) -> None:
    succeeds("find . > /dev/null", own_mount.root)
    wait_until(lambda: stats(own_mount)["wakeups"] > 20)
    directory = os.open(own_mount.root, os.O_RDONLY)
    own_mount.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "busy" in own_mount.log.read_text())
    own_mount.process.send_signal(signal.SIGTERM)
    assert own_mount.process.wait(ANSWERS_S) == 0
    os.close(directory)


@pytest.mark.parametrize("number", range(2))
def test_a_mount_that_is_killed_leaves_nobody_waiting(tmp_path: Path, number: int) -> None:
    store = Path(shutil.copytree(EXAMPLES / "household", tmp_path / "store"))
    mount = start(store, tmp_path / "mnt", tmp_path / "log")
    with subprocess.Popen([sys.executable, "-c", _BUSY, mount.store]) as writer:
        succeeds("find . > /dev/null", mount.root)
        wait_until(lambda: stats(mount)["wakeups"] > 20 * number)
        mount.process.send_signal(signal.SIGKILL)
        mount.process.wait(ANSWERS_S)
        writer.kill()
    with pytest.raises(OSError, match="not connected"):
        os.listdir(mount.root / "threads")
    stop(mount)
