"""``-o uid=,gid=,umask=,fmask=,dmask=``: whose the files are shown to be, and who may do what then."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Mount, checked_mount
from threadfs.ownership import Ownership, ownership_of, value

OWNER, GROUP, STRANGER = 65534, 65533, 65532

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone becomes somebody else")


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    options = f"allow_other,uid={OWNER},gid={GROUP},umask=027"
    with checked_mount(tmp_path_factory.mktemp("shared"), "-o", options) as mounted:
        yield mounted


def run_as(mount: Mount, user: int, group: int, script: str) -> subprocess.CompletedProcess[str]:
    command = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "sh", "-c", script]
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(
        command, cwd=mount.root, env=environment, capture_output=True, text=True, check=False
    )


def shown(path: Path) -> str:
    status = path.lstat()
    return f"{stat.filemode(status.st_mode)} {status.st_uid} {status.st_gid}"


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        (".", "drwxr-x---"),
        ("drafts", "drwxr-x---"),
        ("threads/*Oslo", "drwxr-x---"),
        ("threads/*Oslo/meta.json", "-rw-r-----"),
        ("threads/*Oslo/say", "-rw-r-----"),
        ("transcripts/*Oslo.md", "-r--r-----"),
        ("runs/queued/*", "lrwxrwxrwx"),
    ],
)
def test_files_are_shown_with_the_owner_and_the_permissions_that_were_asked_for(
    mount: Mount, path: str, mode: str
) -> None:
    (found, *_) = mount.root.glob(path) if path != "." else (mount.root,)
    assert shown(found) == f"{mode} {OWNER} {GROUP}"


@as_root
def test_the_owner_who_is_shown_does_what_owners_do(mount: Mount) -> None:
    script = "mkdir threads/a && echo Hello > threads/a/say && echo llama3 > threads/a/start"
    script += " && cp -r threads/a drafts/b && mv drafts/b threads/b && rm -r threads/a"
    done = run_as(mount, OWNER, STRANGER, script)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Hello" in (mount.store / "b" / "messages.jsonl").read_text()
    assert not (mount.store / "a").exists()


@as_root
def test_the_group_does_what_the_mask_leaves_it(mount: Mount) -> None:
    assert run_as(mount, STRANGER, GROUP, "cat threads/*Oslo/meta.json").returncode == 0
    for script in ("echo x > 'threads/Trip to Oslo/say'", "mkdir threads/c", "touch drafts/d"):
        assert "Permission denied" in run_as(mount, STRANGER, GROUP, script).stderr, script


@as_root
def test_others_get_nothing_that_the_mask_takes_from_them(mount: Mount) -> None:
    for script in ("ls", "cat README.md", "echo x > 'threads/Trip to Oslo/say'"):
        done = run_as(mount, STRANGER, STRANGER, script)
        assert done.returncode
        assert "Permission denied" in done.stderr, script


def test_what_belongs_to_the_shown_owner_may_be_given_to_them_and_to_nobody_else(mount: Mount) -> None:
    (thread,) = mount.path("threads").glob("*Oslo")
    os.chown(thread / "meta.json", OWNER, GROUP)
    with pytest.raises(PermissionError):
        os.chown(thread / "meta.json", STRANGER, -1)
    with pytest.raises(PermissionError):
        os.chown(thread / "meta.json", -1, STRANGER)
    assert shown(thread / "meta.json") == f"-rw-r----- {OWNER} {GROUP}"


def test_a_draft_begins_with_the_permissions_of_the_mount_and_keeps_what_it_is_given(mount: Mount) -> None:
    draft = mount.path("drafts", "modes")
    draft.mkdir()
    (draft / "file").write_text("")
    assert shown(draft) == f"drwxr-x--- {OWNER} {GROUP}"
    assert shown(draft / "file") == f"-rw-r----- {OWNER} {GROUP}"
    draft.chmod(0o700)
    (draft / "file").chmod(0o604)
    assert shown(draft) == f"drwx------ {OWNER} {GROUP}"
    assert shown(draft / "file") == f"-rw----r-- {OWNER} {GROUP}"


@pytest.mark.parametrize(
    ("options", "ownership"),
    [
        ({}, Ownership(os.getuid(), os.getgid())),
        ({"uid": "7", "gid": "0"}, Ownership(7, 0)),
        ({"uid": "root", "gid": "root"}, Ownership(0, 0)),
        ({"umask": "077"}, Ownership(file_mask=0o77, directory_mask=0o77)),
        ({"umask": "0"}, Ownership(file_mask=0, directory_mask=0)),
        ({"fmask": "0137"}, Ownership(file_mask=0o137)),
        ({"dmask": "27"}, Ownership(directory_mask=0o27)),
        ({"fmask": "117", "dmask": "007", "umask": "077"}, Ownership(file_mask=0o117, directory_mask=0o7)),
        ({"ro": "", "umask": "002"}, Ownership(file_mask=2, directory_mask=2)),
    ],
)
def test_options_say_whose_the_files_are_and_what_is_permitted(
    options: dict[str, str], ownership: Ownership
) -> None:
    assert ownership_of(options) == ownership


BAD = {
    "uid": ("", "nobody that there is", "-1", "1.5", "4294967295", "٣"),
    "gid": ("", "no such group", "-1"),
    "umask": ("", "8", "0o22", "1777", "-22", "rwx", "22 "),
    "fmask": ("9",),
    "dmask": ("00022",),
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_a_value_that_means_nothing_is_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=name):
        value(name, text)
