"""A read-only mount: everything can be read, every change is refused with EROFS."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import EXAMPLES, Mount, start, stop
from tests.mount.scripts import contents, run

THREAD = "threads/Trip to Oslo"


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    place = tmp_path_factory.mktemp("read-only")
    shutil.copytree(EXAMPLES / "household", place / "store")
    mounted = start(place / "store", place / "mnt", place / "log", "--read-only")
    try:
        yield mounted
    finally:
        stop(mounted)
    assert "Traceback" not in mounted.log.read_text()


CHANGES: dict[str, Callable[[Path, Path], object]] = {
    "mkdir a thread": lambda root, run: (root / "threads" / "new").mkdir(),
    "mkdir a run": lambda root, run: (run.parent / "new").mkdir(),
    "mkdir a draft": lambda root, run: (root / "drafts" / "new").mkdir(),
    "rmdir a thread": lambda root, run: run.parents[1].rmdir(),
    "rmdir a run": lambda root, run: run.rmdir(),
    "write cancel": lambda root, run: (run / "cancel").write_text("1"),
    "write status": lambda root, run: (run / "status").write_text("completed"),
    "write say": lambda root, run: (root / THREAD / "say").write_text("hi"),
    "write ask": lambda root, run: (root / THREAD / "ask").write_text("hi"),
    "write start": lambda root, run: (root / THREAD / "start").write_text("m"),
    "write meta.json": lambda root, run: (root / THREAD / "meta.json").write_text("{}"),
    "append to the log": lambda root, run: (root / THREAD / "messages.jsonl").open("a"),
    "open for both": lambda root, run: (root / THREAD / "messages.jsonl").open("r+"),
    "make a step": lambda root, run: (run / "steps" / "new.json").write_text("{}"),
    "make a scratch file": lambda root, run: (run / "tmp.notes").write_text("x"),
    "make a draft's file": lambda root, run: (root / "drafts" / "notes").write_text("x"),
    "symlink": lambda root, run: (run / "link").symlink_to("status"),
    "link": lambda root, run: (run / "link").hardlink_to(run / "status"),
    "mkfifo": lambda root, run: os.mkfifo(run / "fifo"),
    "unlink": lambda root, run: (run / "status").unlink(),
    "rename": lambda root, run: (run / "status").rename(run / "status~"),
    "claim": lambda root, run: next((root / "runs" / "queued").iterdir()).rename(
        root / "runs" / "in_progress" / next((root / "runs" / "queued").iterdir()).name
    ),
    "truncate": lambda root, run: os.truncate(run / "status", 0),
    "chmod": lambda root, run: (run / "status").chmod(0o644),
    "chown": lambda root, run: os.chown(run / "status", os.getuid(), os.getgid()),
    "utimes": lambda root, run: os.utime(run / "status", (1, 1)),
    "touch": lambda root, run: (run / "status").touch(),
}


@pytest.mark.parametrize("what", CHANGES)
def test_every_change_is_refused_with_erofs(mount: Mount, what: str) -> None:
    before = contents(mount.store)
    with pytest.raises(OSError, match="Read-only file system"):
        CHANGES[what](mount.root, mount.run("queued"))
    assert contents(mount.store) == before


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh"])
def test_a_shell_says_that_it_is_read_only(mount: Mount, shell: str) -> None:
    result = run("echo 1 > cancel", mount.run("queued"), shell)
    assert result.returncode != 0
    assert "read-only file system" in result.stderr.lower() or shell == "dash"


def test_everything_can_be_read_and_copied(mount: Mount, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", mount.path("threads"), tmp_path / "copy"], check=True)
    assert len(contents(tmp_path / "copy")) > len(contents(mount.store))
    assert mount.path("transcripts", "Trip to Oslo.md").read_text()


def test_the_mount_is_marked_read_only(mount: Mount) -> None:
    assert os.statvfs(mount.root).f_flag & os.ST_RDONLY
