"""File managers.

What a file manager does is tried with `gio`, which makes the same calls, and in real windows. There is no
trash in a mount: "delete permanently" (Shift+Delete) works. Dragging does what cut and paste do: a draft
dragged into `threads` is a thread, a run dragged from `queued` to `in_progress` is claimed. A directory that
is shown shows by itself what comes and goes elsewhere; `by-title/`, `by-date/` and `search/` do when they are
loaded again (F5).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from store import Thread, ThreadStore
from tests.clients.windows import Desktop, end
from tests.mount.conftest import Mount, wait_until

THREAD = "Trip to Oslo"
# How often, one after the other, a picture has to be the same.
_SETTLED = 30


class Gio:
    """Runs gio in the mount."""

    def __init__(self, mount: Mount, environment: Mapping[str, str]) -> None:
        self._mount = mount
        self._environment = environment

    def result(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["gio", *arguments],
            cwd=self._mount.root,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def __call__(self, *arguments: str | Path) -> str:
        result = self.result(*arguments)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    def attribute(self, path: str | Path, name: str) -> str:
        for line in self("info", "-a", name, path).splitlines():
            key, _, value = line.strip().partition(": ")
            if key == name:
                return value
        raise AssertionError(f"gio says no {name} of {path}")


@pytest.fixture
def gio(mount: Mount, environment: Mapping[str, str]) -> Gio:
    return Gio(mount, environment)


@pytest.mark.program("gio")
def test_lists_what_is_there(gio: Gio, mount: Mount) -> None:
    assert gio("list", "threads").splitlines() == [path.name for path in mount.path("threads").iterdir()]
    assert "Trip to Oslo.md" in gio("list", "transcripts").splitlines()
    assert THREAD in gio("list", "by-title").splitlines()
    assert gio("list", "search/oslo").splitlines() == [THREAD, "hits.txt"]


@pytest.mark.program("gio")
@pytest.mark.parametrize(
    ("path", "content_type", "icon"),
    [
        ("threads", "inode/directory", "folder"),
        (f"transcripts/{THREAD}.md", "text/markdown", "text-markdown"),
        (f"threads/{THREAD}/meta.json", "application/json", "application-json"),
        (f"threads/{THREAD}/say", "text/plain", "text-plain"),
        ("runs/queued/*", "inode/directory", "folder"),
        (f"by-title/{THREAD}", "inode/directory", "folder"),
        ("README.md", "text/markdown", "text-markdown"),
    ],
)
def test_shows_types_and_icons(gio: Gio, mount: Mount, path: str, content_type: str, icon: str) -> None:
    (found,) = [str(each) for each in mount.root.glob(path)]
    assert gio.attribute(found, "standard::content-type") == content_type
    assert icon in gio.attribute(found, "standard::icon").split(", ")


@pytest.mark.program("gio")
def test_shows_the_size_and_the_date_of_a_transcript(gio: Gio, mount: Mount) -> None:
    transcript = mount.path("transcripts", f"{THREAD}.md")
    assert int(gio.attribute(transcript, "standard::size")) == len(transcript.read_bytes())
    stored = (mount.store / THREAD / "messages.jsonl").stat()
    assert int(gio.attribute(transcript, "time::modified")) >= int(stored.st_mtime)


@pytest.mark.program("gio")
def test_shows_the_free_space_of_the_disk_that_the_store_is_on(gio: Gio, mount: Mount) -> None:
    disk = os.statvfs(mount.store)
    free = gio("info", "-f", "-a", "filesystem::free", "threads").split()[-1]
    assert int(free) == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.05)


@pytest.mark.program("gio")
def test_opens_a_transcript(gio: Gio, mount: Mount) -> None:
    assert gio("cat", f"transcripts/{THREAD}.md") == mount.path("transcripts", f"{THREAD}.md").read_text()


@pytest.mark.program("gio")
def test_saves_a_status(gio: Gio, mount: Mount) -> None:
    run = mount.run("queued")
    fields = {**json.loads((run / "status").read_text()), "model": "another"}
    subprocess.run(["gio", "save", run / "status"], input=json.dumps(fields).encode(), check=True)
    assert json.loads(mount.stored(run).read_text()) == fields
    assert {path.name for path in run.iterdir()} == {"status", "cancel", "steps"}


@pytest.mark.program("gio")
def test_making_a_folder_makes_a_thread(gio: Gio, mount: Mount) -> None:
    gio("mkdir", "threads/New Folder")
    assert json.loads((mount.store / "New Folder" / "meta.json").read_text())["id"] == "New Folder"


@pytest.mark.program("gio")
def test_renaming_a_thread_is_refused_and_changes_nothing(gio: Gio, mount: Mount) -> None:
    result = gio.result("rename", f"threads/{THREAD}", "Another")
    assert "Permission denied" in result.stderr
    assert (mount.store / THREAD).exists()


@pytest.mark.program("gio")
def test_moving_a_draft_into_threads_makes_a_clone(gio: Gio, mount: Mount) -> None:
    subprocess.run(["cp", "-a", f"threads/{THREAD}", "drafts/Clone"], cwd=mount.root, check=True)
    gio("move", "drafts/Clone", "threads/")
    clone, original = (
        json.loads((mount.store / name / "meta.json").read_text()) for name in ("Clone", THREAD)
    )
    assert clone == {**original, "id": "Clone"}
    assert not mount.path("drafts", "Clone").exists()


@pytest.mark.program("gio")
def test_moving_a_run_to_another_status_claims_it(gio: Gio, mount: Mount) -> None:
    run = mount.run("queued")
    name = f"{run.name}@{run.parent.parent.name}"
    gio("move", f"runs/queued/{name}", "runs/in_progress/")
    assert json.loads(mount.stored(run).read_text())["status"] == "in_progress"


@pytest.mark.program("gio")
@pytest.mark.parametrize(
    "path", [f"threads/{THREAD}", f"threads/{THREAD}/meta.json", f"transcripts/{THREAD}.md"]
)
def test_there_is_no_trash_and_nothing_is_moved(gio: Gio, mount: Mount, path: str) -> None:
    before = sorted(mount.root.rglob("*"))
    result = gio.result("trash", path)
    assert result.returncode != 0
    assert "Unable to find or create trash directory" in result.stderr
    assert sorted(mount.root.rglob("*")) == before


@pytest.mark.program("gio")
def test_copying_a_file_over_a_document_replaces_it(gio: Gio, mount: Mount, place: Path) -> None:
    run = mount.run("queued")
    fields = {**json.loads((run / "status").read_text()), "model": "another"}
    (place / "new").write_text(json.dumps(fields))
    gio("copy", str(place / "new"), str(run / "status"))
    assert json.loads(mount.stored(run).read_text()) == fields


def is_soon(condition: Callable[[], bool]) -> bool:
    """Whether the condition holds within a second."""
    deadline = time.monotonic() + 1
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


WINDOWS = [pytest.param(title, marks=pytest.mark.program(title)) for title in ("Thunar", "PCManFM")]


class FileManager:
    """A file manager in a window, driven by the keyboard."""

    def __init__(self, desktop: Desktop, title: str, directory: Path, home: Path) -> None:
        self.desktop = desktop
        self.title = title
        self._home = home
        self.process = desktop.start([title.lower(), str(directory)], home)
        self._window = desktop.wait_for_window(f"^{directory.name}")

    def press(self, *keys: str) -> None:
        self.desktop.xdotool("windowfocus", "--sync", self._window)
        self.desktop.press(*keys)

    def until(self, condition: Callable[[], bool], *keys: str) -> None:
        """Presses the keys until they have worked: a directory that is not loaded yet has nothing in it."""

        def works() -> bool:
            if not condition():  # Else a dialog came late, from which no other window takes the focus.
                self.press(*keys)
            return is_soon(condition)

        wait_until(works)

    def dialog(self) -> str | None:
        others = [window for window in self.desktop.titles() if window != self._window]
        return others[0] if others else None

    def picture(self) -> bytes:
        """What the screen shows, without the line in which a window tells of the free space."""
        return self.desktop.rows(0, 350)

    def settled_picture(self) -> bytes:
        """When all is shown: there is something, and that for half a second."""
        found: list[bytes] = []

        def is_settled() -> bool:
            found.append(self.picture())
            return len(found) > _SETTLED and len({*found[-_SETTLED:]}) == 1

        wait_until(is_settled)
        return found[-1]

    def answer(self, *keys: str) -> None:
        dialog = self.dialog()
        assert dialog is not None
        self.desktop.xdotool("windowfocus", "--sync", dialog)
        self.desktop.press(*keys)


def cut_and_paste(source: FileManager, target: FileManager, is_moved: Callable[[], bool]) -> None:
    """Moves the first entry that one window shows to the directory of the other."""
    desktop = source.desktop

    def works() -> bool:
        for window, title in desktop.titles().items():
            if (
                title == "Error"
            ):  # Nothing was cut, as nothing was loaded yet. It keeps the keyboard until then.
                desktop.xdotool("windowfocus", "--sync", window)
                desktop.press("Escape")
        source.press("Home", "ctrl+x")
        target.press("ctrl+v")
        return is_soon(is_moved)

    wait_until(works)


@pytest.fixture(params=WINDOWS)
def browse(
    request: pytest.FixtureRequest, mount: Mount, desktop: Desktop, home: Path
) -> Iterator[Callable[[str], FileManager]]:
    """Opens a directory of the mount in a window."""
    opened: list[FileManager] = []

    def open_window(path: str) -> FileManager:
        opened.append(FileManager(desktop, request.param, mount.path(path), home))
        return opened[-1]

    yield open_window
    for manager in opened:
        end(manager.process)


def test_makes_a_thread_when_a_folder_is_made(browse: Callable[[str], FileManager], mount: Mount) -> None:
    manager = browse("threads")
    manager.until(lambda: manager.dialog() is not None, "ctrl+shift+n")
    manager.answer("ctrl+a")
    manager.desktop.type("Garden")
    manager.desktop.press("Return")
    wait_until(lambda: (mount.store / "Garden" / "meta.json").exists())
    assert sorted(path.name for path in mount.path("threads", "Garden").iterdir()) == [
        "ask",
        "messages.jsonl",
        "meta.json",
        "runs",
        "say",
        "start",
    ]


@pytest.mark.parametrize("browse", WINDOWS[:1], indirect=True)
def test_clones_a_thread_that_is_copied_to_drafts_and_moved_to_threads(
    browse: Callable[[str], FileManager], mount: Mount
) -> None:
    shutil.copytree(mount.path("threads", THREAD), mount.path("drafts", "Clone"))
    cut_and_paste(browse("drafts"), browse("threads"), lambda: (mount.store / "Clone").exists())
    log = (mount.store / THREAD / "messages.jsonl").read_bytes()
    assert (mount.store / "Clone" / "messages.jsonl").read_bytes().count(b"\n") == log.count(b"\n")
    assert not mount.path("drafts", "Clone").exists()


def test_shows_a_thread_that_comes_and_goes_elsewhere(
    browse: Callable[[str], FileManager], mount: Mount
) -> None:
    manager = browse("threads")
    store = ThreadStore(mount.store)
    for change in (
        lambda: store.create_thread(Thread(id="A garden")),
        lambda: store.delete_thread("A garden"),
    ):
        before = manager.settled_picture()
        change()
        wait_until(lambda before=before: manager.picture() != before)  # type: ignore[misc]
    store.close()


def test_deletes_a_thread_permanently(browse: Callable[[str], FileManager], mount: Mount) -> None:
    shutil.copytree(mount.store / THREAD, mount.store / "A garden")
    manager = browse("threads")
    manager.until(lambda: manager.dialog() is not None, "Home", "shift+Delete")
    manager.answer(*{"Thunar": ["alt+d"], "PCManFM": ["Return"]}[manager.title])
    wait_until(lambda: not (mount.store / "A garden").exists())
    assert (mount.store / THREAD).exists()


@pytest.mark.parametrize("browse", WINDOWS[:1], indirect=True)
def test_claims_a_run_that_is_moved_to_another_status(
    browse: Callable[[str], FileManager], mount: Mount
) -> None:
    run = mount.run("queued")
    cut_and_paste(
        browse("runs/queued"),
        browse("runs/in_progress"),
        lambda: b'"in_progress"' in mount.stored(run).read_bytes(),
    )
