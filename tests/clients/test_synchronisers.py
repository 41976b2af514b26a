"""Synchronisers and backups.

A copy of `threads/` holds everything, and a second synchronisation has nothing to do. What comes back goes
through `drafts/`: a thread appears in one step, with the times it had. `rsync` into a thread that is there
replaces its documents and appends to its log. A thread that it makes comes piece by piece, with each run as
soon as it is there, and `--delete` deletes runs and threads for good.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.mount.conftest import Mount

THREAD = "Trip to Oslo"
Contents = dict[str, tuple[bytes, int]]


def contents(directory: Path) -> Contents:
    """The bytes and the time, in seconds, of each file."""
    return {
        str(path.relative_to(directory)): (path.read_bytes(), int(path.stat().st_mtime))
        for path in directory.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


class Sync:
    """``$mnt``, ``$copy`` (a directory on the disk), and one thread to try things with."""

    def __init__(self, mount: Mount, place: Path, environment: Mapping[str, str]) -> None:
        self.mount = mount
        self.copy = place / "copy"
        self.copy.mkdir()
        self.threads = mount.path("threads")
        self.environment = {**environment, "mnt": str(mount.root), "copy": str(self.copy), "T": THREAD}

    def __call__(self, script: str) -> str:
        result = subprocess.run(
            ["bash", "-ec", script], env=self.environment, capture_output=True, text=True, check=False
        )
        assert (result.returncode, result.stderr) == (0, ""), result
        return result.stdout

    def change(self, field: str, value: str) -> None:
        """In the copy's meta.json."""
        path = self.copy / THREAD / "meta.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))

    def stored(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads((self.mount.store / THREAD / "meta.json").read_text())
        return fields


@pytest.fixture
def sync(mount: Mount, place: Path, environment: Mapping[str, str]) -> Sync:
    return Sync(mount, place, environment)


def program(title: str, *scripts: str) -> Any:
    return pytest.param(*scripts, marks=pytest.mark.program(title), id=scripts[0])


@pytest.mark.parametrize(
    "script",
    [
        program("rsync", "rsync -a $mnt/threads/ $copy/"),
        program("rsync", "rsync -aHAX --inplace $mnt/threads/ $copy/"),
        program("tar", "tar -C $mnt/threads -c . | tar -C $copy -x"),
        program("coreutils", "cp -a $mnt/threads/. $copy/"),
        program("coreutils", "cp -a --update $mnt/threads/. $copy/"),
    ],
)
def test_copies_all_threads_with_their_times(sync: Sync, script: str) -> None:
    sync(script)
    assert contents(sync.copy) == contents(sync.threads)


@pytest.mark.parametrize(
    "script",
    [
        program("rsync", "rsync -ai $mnt/threads/ $copy/"),
        program("rsync", "rsync -ai --inplace $mnt/threads/ $copy/"),
        program("rsync", "rsync -ai --delete $mnt/threads/ $copy/"),
        program("coreutils", "cp -av --update $mnt/threads/. $copy/"),
    ],
)
def test_has_nothing_to_do_the_second_time(sync: Sync, script: str) -> None:
    assert sync(script)
    assert sync(script) == ""


@pytest.mark.program("tar")
def test_tar_finds_no_difference_between_a_mount_and_its_archive(sync: Sync) -> None:
    sync("cd $mnt; tar -cf $copy/archive.tar threads; tar --compare -f $copy/archive.tar")


@pytest.mark.parametrize(
    "script",
    [
        program("rsync", "rsync -a $copy/ $mnt/threads/"),
        program("rsync", "rsync -a --inplace $copy/ $mnt/threads/"),
        program("rsync", "rsync -a --delete $copy/ $mnt/threads/"),
        program("coreutils", "cp -a --update $copy/. $mnt/threads/"),
        program("coreutils", "cp -r $copy/. $mnt/threads/"),
        program("tar", "tar -C $copy -c . | tar -C $mnt/threads -x --overwrite"),
        program("tar", "tar -C $copy -c . | tar -C $mnt/threads -x"),
    ],
)
def test_brings_a_changed_document_into_a_thread_that_is_there(sync: Sync, script: str) -> None:
    sync("rsync -a $mnt/threads/ $copy/")
    others = contents(sync.mount.store)
    sync.change("note", "changed")
    sync(script)
    assert sync.stored()["note"] == "changed"
    del others[f"{THREAD}/meta.json"]
    now = contents(sync.mount.store)
    assert {name: now[name][0] for name in others} == {name: others[name][0] for name in others}
    assert len(now) == len(others) + 1


@pytest.mark.parametrize(
    "script",
    [
        program("rsync", "rsync -a $copy/ $mnt/threads/"),
        program("rsync", "rsync -a --inplace $copy/ $mnt/threads/"),
        program("rsync", "rsync -a --append $copy/ $mnt/threads/"),
        program("coreutils", "cp -a $copy/. $mnt/threads/"),
    ],
)
def test_brings_a_longer_log_and_appends_what_is_new(sync: Sync, script: str) -> None:
    sync("rsync -a $mnt/threads/ $copy/")
    before = (sync.mount.store / THREAD / "messages.jsonl").read_bytes()
    with (sync.copy / THREAD / "messages.jsonl").open("a") as log:
        log.write('{"role": "user", "content": "And by train?"}\n')
    sync(script)
    after = (sync.mount.store / THREAD / "messages.jsonl").read_bytes()
    assert after.startswith(before)
    assert b"And by train?" in after[len(before) :]
    assert after.count(b"\n") == before.count(b"\n") + 1


@pytest.mark.parametrize(
    "script",
    [
        program("rsync", 'rsync -a "$copy/$T" $mnt/drafts/'),
        program("tar", 'tar -C $copy -c "$T" | tar -C $mnt/drafts -x'),
        program("coreutils", 'cp -a "$copy/$T" $mnt/drafts/'),
    ],
)
def test_restores_a_deleted_thread_as_it_was(sync: Sync, script: str) -> None:
    sync("rsync -a $mnt/threads/ $copy/")
    before = contents(sync.mount.store)
    sync('rm -r "$mnt/threads/$T"')
    assert not (sync.mount.store / THREAD).exists()
    sync(script)
    sync('mv "$mnt/drafts/$T" $mnt/threads/')
    assert contents(sync.mount.store) == before
    assert contents(sync.threads / THREAD) == contents(sync.copy / THREAD)


@pytest.mark.parametrize(
    "script",
    [
        program("coreutils", "cp -a $copy/* $mnt/drafts/ && mv $mnt/drafts/* $mnt/threads/"),
        program("rsync", "rsync -a $copy/ $mnt/drafts/ && mv $mnt/drafts/* $mnt/threads/"),
        program("rsync", "rsync -a $copy/ $mnt/threads/"),
    ],
)
def test_brings_a_whole_backup_back(sync: Sync, script: str) -> None:
    sync("rsync -a $mnt/threads/ $copy/")
    before = contents(sync.mount.store)
    sync("for run in $mnt/runs/in_progress/*; do echo 1 > $run/cancel; done; rm -r $mnt/threads/*")
    assert contents(sync.mount.store) == {}
    sync(script)
    assert contents(sync.mount.store) == before
    assert sync("ls $mnt/drafts") == ""


@pytest.mark.parametrize(
    ("script", "again"),
    [
        program(
            "tar",
            "cd $mnt; tar -c --listed-incremental=$copy/list -f $copy/0.tar threads",
            "cd $mnt; tar -cv --listed-incremental=$copy/list -f $copy/1.tar threads | grep -v '/$'",
        ),
        program(
            "restic",
            "restic init -q; cd $mnt; restic backup -q threads",
            "cd $mnt; restic backup -q threads; restic snapshots -c | grep -o '^[0-9a-f]\\{8\\}'"
            " | xargs restic diff | sed -n 's/^M *.//p'",
        ),
    ],
)
def test_notices_a_change_that_size_and_time_do_not_show(sync: Sync, script: str, again: str) -> None:
    sync.environment.update({"RESTIC_REPOSITORY": str(sync.copy / "repository"), "RESTIC_PASSWORD": "secret"})
    document = sync.threads / THREAD / "meta.json"
    document.write_text('{"metadata": {"owner": "Ada"}}')
    before = document.stat()
    sync(script)
    document.write_text('{"metadata": {"owner": "Bea"}}')
    os.utime(document, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = document.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert sync(again).splitlines() == [f"threads/{THREAD}/meta.json"]


@pytest.mark.program("rsync")
def test_rsync_delete_removes_from_a_copy_what_was_deleted_in_the_mount(sync: Sync) -> None:
    sync("rsync -a $mnt/threads/ $copy/")
    sync('rm -r "$mnt/threads/$T"; rsync -a --delete $mnt/threads/ $copy/')
    assert contents(sync.copy) == contents(sync.threads)
    assert not (sync.copy / THREAD).exists()


@pytest.mark.program("rsync")
def test_rsync_says_that_it_cannot_delay_updates_in_a_thread(sync: Sync) -> None:
    """It would need a directory beside the document."""
    sync("rsync -a $mnt/threads/ $copy/")
    sync.change("note", "changed")
    names = sorted(sync.mount.root.rglob("*"))
    command = ["rsync", "-a", "--delay-updates", f"{sync.copy}/", f"{sync.threads}/"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Unable to create partial-dir for Trip to Oslo/meta.json" in result.stderr
    assert "note" not in sync.stored()
    assert sorted(sync.mount.root.rglob("*")) == names


@pytest.mark.program("rsync")
def test_rsync_leaves_no_temporary_file_in_the_store_or_the_tree(sync: Sync) -> None:
    names = sorted(sync.mount.root.rglob("*")), sorted(sync.mount.store.rglob("*"))
    sync("rsync -a $mnt/threads/ $copy/")
    sync.change("note", "changed")
    sync("rsync -a $copy/ $mnt/threads/")
    assert (sorted(sync.mount.root.rglob("*")), sorted(sync.mount.store.rglob("*"))) == names


@pytest.mark.program("git")
def test_git_works_in_a_draft(sync: Sync) -> None:
    sync('cp -a "$mnt/threads/$T" $mnt/drafts/again')
    sync.environment.update(
        {
            f"GIT_{who}_{what}": "somebody@example.org"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
    )
    sync("cd $mnt/drafts/again; git init -q; git add .; git commit -qm first; echo '{}' > meta.json")
    assert sync("cd $mnt/drafts/again; git diff --stat").splitlines()[0].split()[0] == "meta.json"
    sync("cd $mnt/drafts/again; git checkout -q meta.json; git gc -q; git fsck --strict")
    assert sync("cd $mnt/drafts/again; git status --porcelain") == ""
    sync("cd $mnt/drafts/again; rm -rf .git; mv $mnt/drafts/again $mnt/threads/again")
    assert (sync.threads / "again" / "messages.jsonl").stat().st_size > 0


@pytest.mark.program("git")
def test_git_keeps_the_history_of_a_mount_from_outside(sync: Sync) -> None:
    sync.environment.update({"GIT_DIR": str(sync.copy / ".git"), "GIT_WORK_TREE": str(sync.threads)})
    sync("git init -q; git add -A; git -c user.name=x -c user.email=x@example.org commit -qm first")
    assert sync("git status --porcelain") == ""
    sync('echo Hello > "$mnt/threads/$T/say"')
    assert sync("git status --porcelain") == f' M "{THREAD}/messages.jsonl"\n'


@pytest.mark.program("restic")
def test_restic_backs_up_and_restores_all_threads(sync: Sync, place: Path) -> None:
    sync.environment.update({"RESTIC_REPOSITORY": str(sync.copy / "repository"), "RESTIC_PASSWORD": "secret"})
    before = contents(sync.threads)
    sync(
        "restic init -q; cd $mnt; restic backup -q threads; restic restore -q latest --target $copy/restored"
    )
    assert contents(sync.copy / "restored" / "threads") == before
    sync('rm -r "$mnt/threads/$T"; restic restore -q latest --target $mnt/drafts --include "/threads/$T"')
    sync('mv "$mnt/drafts/threads/$T" $mnt/threads/')
    assert contents(sync.threads) == before
