"""Mounting and unmounting as an operator does it: mount(8), findmnt, systemd, killed processes, users."""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import OSLO, ROOT, Result, command, environment, fails, succeeds, threadfs
from tests.conftest import inotify_limit, open_files
from tests.mount.conftest import ANSWERS_S, EXAMPLES, Mount, start, stop, wait_until
from threadfs.commands.background import log_file_for
from threadfs.mounting import life_line
from threadfs.mounting.mount_table import on_top

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone may do this")


@pytest.fixture
def desk(household: Path, tmp_path: Path) -> Iterator[Path]:
    """A directory with a ``store``; whatever is mounted on ``mnt`` in it is taken down."""
    try:
        yield tmp_path
    finally:
        while os.path.ismount(tmp_path / "mnt") or is_dead(tmp_path / "mnt"):
            subprocess.run(["fusermount3", "-uzq", str(tmp_path / "mnt")], check=True)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """For tests that leave it as it is."""
    place = tmp_path_factory.mktemp("standing")
    store = Path(shutil.copytree(EXAMPLES / "household", place / "store"))
    mount = start(store, place / "mnt", place / "log")
    try:
        yield mount
    finally:
        stop(mount)


def is_dead(place: Path) -> bool:
    try:
        os.statvfs(place)
    except OSError as error:
        return "not connected" in str(error)
    return False


def killed(mount: Mount) -> Mount:
    mount.process.kill()
    mount.process.wait()
    assert is_dead(mount.root)
    return mount


def server_of(place: Path) -> int:
    """The process that serves a mount."""
    mount = on_top(str(place))
    assert mount is not None
    server = life_line.server_of(mount)
    assert server is not None
    return server


def find_mount(place: Path, columns: str) -> str:
    return subprocess.run(
        ["findmnt", "-n", "-r", "-o", columns, str(place)], capture_output=True, text=True, check=False
    ).stdout.strip()


# ── Options ─────────────────────────────────────────────────────────────────────────────────────────────


def test_options_of_fstab_are_understood_or_ignored(desk: Path) -> None:
    options = (
        "rw,noauto,user,nofail,_netdev,relatime,x-systemd.automount,comment=mine,dev,suid,noexec,nowords"
    )
    succeeds(threadfs("store", "mnt", "-o", options, "-o", "allow_other,ro", cwd=desk))
    found = find_mount(desk / "mnt", "OPTIONS").split(",")
    assert {"ro", "noexec", "nosuid", "nodev", "allow_other"} <= set(found)


def test_findmnt_shows_the_type_and_the_store(desk: Path) -> None:
    succeeds(threadfs("store", "mnt", cwd=desk))
    assert find_mount(desk / "mnt", "FSTYPE,SOURCE") == f"fuse.threadfs {desk}/store"


NAMES = [b"B\xc3\xbccher", b"\xff, no UTF-8", b"back\\slash", b"two\nlines"]


@pytest.mark.parametrize("name", NAMES)
def test_a_store_and_a_mount_point_may_have_any_name(desk: Path, name: bytes) -> None:
    store = Path(shutil.move(desk / "store", desk / os.fsdecode(b"store " + name)))
    place = desk / os.fsdecode(b"mnt " + name)
    mounting = command(store, place)
    try:
        for said in (b"mounted ", b"already mounted: "):
            done = subprocess.run(mounting, env=environment(desk), capture_output=True, check=False)
            assert (done.returncode, done.stderr) == (0, b"")
            assert done.stdout.startswith(said + bytes(store) + b" on " + bytes(place) + b"\n")
        assert OSLO in os.listdir(place / "threads")
        succeeds(threadfs("umount", place))
    finally:
        subprocess.run(["fusermount3", "-uzq", place], check=False)


def test_by_default_a_mount_is_for_the_user_who_mounts(desk: Path) -> None:
    succeeds(threadfs("store", "mnt", cwd=desk))
    assert "allow_other" not in find_mount(desk / "mnt", "OPTIONS")


# mount(8) hands no PATH on, so its helper finds programs of the system only. In a mount namespace of its own
# this one is among those.
_BY_MOUNT = """
set -e
mount --bind {programs} /usr/local/bin
mount -t fuse.threadfs -o {options} {desk}/store {desk}/mnt
ls {desk}/mnt/threads
stat -c '%u %a' {desk}/mnt/threads/*/meta.json
findmnt -n -o OPTIONS {desk}/mnt
umount {desk}/mnt
ls -A {desk}/mnt
"""


def program_of_the_system(desk: Path) -> Path:
    """The program, alone in a directory."""
    program = desk / "bin" / "threadfs"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} XDG_STATE_HOME={desk} exec {sys.executable} -m threadfs.cli "$@"\n'
    )
    program.chmod(0o755)
    return program


@as_root
@pytest.mark.parametrize("options", ["defaults", "ro,noatime,_netdev", "uid=65534,fmask=0137"])
def test_mount_with_a_type_mounts_and_umount_unmounts(desk: Path, options: str) -> None:
    program = program_of_the_system(desk)
    (desk / "mnt").mkdir()
    script = _BY_MOUNT.format(programs=program.parent, options=options, desk=desk)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert OSLO in done.stdout
    assert ("ro" in done.stdout.splitlines()[-1].split(",")) == ("ro" in options.split(","))
    assert ("65534 640\n" in done.stdout) == ("uid" in options)


@as_root
@pytest.mark.parametrize("options", ["defaults", "ro", "ro,user,noauto", "rw,nodev,nosuid"])
def test_mount_with_a_type_makes_no_store(desk: Path, options: str) -> None:
    """What is missing is on a disk that is not mounted yet, and would be hidden."""
    program = program_of_the_system(desk)
    (desk / "mnt").mkdir()
    script = f"mount --bind {program.parent} /usr/local/bin\n"
    script += f"exec mount -t fuse.threadfs -o {options} {desk}/missing {desk}/mnt"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=30
    )
    fails(done, 1, f"{desk}/missing is not there: mount its disk, or make it")
    assert not (desk / "missing").exists()


@pytest.mark.parametrize("said", ["NOTIFY_SOCKET=/run/notify", "SYSTEMD_EXEC_PID=$$"])
def test_a_unit_makes_no_store(desk: Path, said: str) -> None:
    words = shlex.join(command("-f", desk / "missing", "mnt"))
    done = subprocess.run(
        ["sh", "-c", f"export {said}; exec {words}"],
        cwd=desk,
        env=environment(desk),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    fails(done, 1, f"{desk}/missing is not there")
    assert not (desk / "missing").exists()


_AUTOFS_IOC_READY, _AUTOFS_IOC_CATATONIC = 0x9360, 0x9362


@as_root
def test_an_automount_point_is_mounted_on_when_somebody_asks_for_it(desk: Path) -> None:
    """As systemd does it for ``x-systemd.automount``: who asks waits until the mount is reported to stand."""
    place = desk / "mnt"
    place.mkdir()
    asked, asks = os.pipe()
    options = f"fd={asks},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
    subprocess.run(["mount", "-i", "-t", "autofs", "-o", options, "auto", place], pass_fds=[asks], check=True)
    os.close(asks)
    trigger = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        asking = subprocess.Popen(["ls", place / "threads"], stdout=subprocess.PIPE, start_new_session=True)
        token = struct.unpack_from("iiI", os.read(asked, 1000))[2]
        succeeds(threadfs("store", "mnt", cwd=desk))
        assert asking.poll() is None
        fcntl.ioctl(trigger, _AUTOFS_IOC_READY, token)
        assert OSLO in asking.communicate(timeout=ANSWERS_S)[0].decode()
        succeeds(threadfs("umount", "mnt", cwd=desk))
        assert find_mount(place, "FSTYPE") == "autofs"
    finally:
        fcntl.ioctl(trigger, _AUTOFS_IOC_CATATONIC)  # Whoever waits still is told that there is nothing.
        os.close(trigger)
        os.close(asked)
        subprocess.run(["umount", "--lazy", "-A", place], check=True)


def test_a_mount_outlives_the_process_group_of_its_starter(desk: Path) -> None:
    succeeds(threadfs("store", desk / "mnt", cwd=desk))
    server = server_of(desk / "mnt")
    assert os.getsid(server) == os.getpgid(server) == server


@pytest.mark.alone
def test_who_mounts_is_told_that_changes_by_others_cannot_be_followed(desk: Path) -> None:
    with inotify_limit("max_user_instances", 0):
        mounted = threadfs("store", "mnt", "--log", "log", cwd=desk)
    assert mounted.returncode == 0
    assert mounted.stdout.startswith("mounted ")
    (line,) = mounted.stderr.splitlines()
    assert line.startswith(
        "threadfs: changes by other programs are not followed, as no inotify instance is left"
    )
    assert f" WARNING {line.removeprefix('threadfs: ')}" in (desk / "log").read_text()


@pytest.mark.alone
@pytest.mark.parametrize("options", [[], ["--log", "log"]], ids=["logs to the terminal", "logs to a file"])
def test_who_mounts_in_the_foreground_is_told_it_once(desk: Path, options: list[str]) -> None:
    with inotify_limit("max_user_instances", 0):
        mounting = subprocess.Popen(
            command("-f", *options, "store", "mnt"),
            cwd=desk,
            env=environment(desk),
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: os.path.ismount(desk / "mnt") and bool(os.listdir(desk / "mnt")))
    mounting.send_signal(signal.SIGTERM)
    assert mounting.communicate(timeout=ANSWERS_S)[1].count("are not followed") == 1


def test_two_that_mount_the_same_store_at_once_do_not_stack(desk: Path) -> None:
    both = [
        subprocess.Popen(command("store", "mnt"), cwd=desk, env=environment(desk), stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=ANSWERS_S)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0, 0]
    assert sorted(text.split()[0] for text in said) == [b"already", b"already", b"mounted"]
    assert find_mount(desk / "mnt", "SOURCE").splitlines() == [f"{desk}/store"]


def test_a_mount_that_can_be_written_is_not_taken_for_a_read_only_one(desk: Path) -> None:
    succeeds(threadfs("store", "mnt", cwd=desk))
    asked = threadfs("--read-only", "store", "mnt", cwd=desk)
    fails(asked, 1, "not read-only", f"threadfs umount {desk}/mnt")
    assert "rw" in find_mount(desk / "mnt", "OPTIONS").split(",")


def test_a_mount_that_is_read_only_already_is_said_to_be(desk: Path) -> None:
    succeeds(threadfs("--read-only", "store", "mnt", cwd=desk))
    for options in ([], ["--read-only"]):
        said = succeeds(threadfs(*options, "store", "mnt", cwd=desk))
        assert said.startswith("already mounted (read-only)")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--allow-other", "with --allow-other"),
        ("-onoexec", "noexec"),
        ("-onowords", "nowords"),
        ("-oro", "read-only"),
        ("-ouid=65534,umask=027", "with this owner and these masks"),
    ],
)
def test_an_option_that_a_mount_does_not_have_is_said(desk: Path, option: str, words: str) -> None:
    succeeds(threadfs("store", "mnt", cwd=desk))
    asked = threadfs("store", "mnt", option, cwd=desk)
    fails(asked, 1, f"{desk}/mnt is mounted already, and not {words}", f"threadfs umount {desk}/mnt")
    succeeds(threadfs("umount", "mnt", cwd=desk))
    succeeds(threadfs("store", "mnt", option, cwd=desk))
    assert succeeds(threadfs("store", "mnt", option, cwd=desk)).startswith("already mounted")


def test_a_missing_store_that_is_named_by_its_path_is_made_and_said_to_be_new(desk: Path) -> None:
    said = succeeds(threadfs("./new", "mnt", cwd=desk))
    assert said.startswith(f"made a new store: {desk}/new\n")
    assert os.path.ismount(desk / "mnt")


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (["new"], 2, "a new one is given as ./new"),
        (["far/away/new"], 1, "there is no directory"),
        (["/etc"], 1, "/etc is no store"),
        (["./store/../other"], 1, "is no store"),
    ],
)
def test_what_is_no_store_is_mounted_only_with_create(
    desk: Path, words: list[str], status: int, reason: str
) -> None:
    (desk / "other" / "things").mkdir(parents=True)
    fails(threadfs(*words, "mnt", cwd=desk), status, reason)
    assert set(os.listdir(desk)) - {"state"} == {"other", "store"}
    if words != ["/etc"]:
        succeeds(threadfs("--create", *words, "mnt", cwd=desk))
        assert os.listdir(desk / "mnt" / "threads") == []


def test_mount_and_unmount_are_accepted_as_commands(desk: Path) -> None:
    succeeds(threadfs("mount", "store", "mnt", cwd=desk))
    assert os.path.ismount(desk / "mnt")
    succeeds(threadfs("unmount", "mnt", cwd=desk))
    assert not os.path.ismount(desk / "mnt")


def test_a_store_that_is_named_like_a_command_is_given_with_its_directory(desk: Path) -> None:
    (desk / "store").rename(desk / "fsck")
    succeeds(threadfs("./fsck", "mnt", cwd=desk))
    assert os.listdir(desk / "mnt" / "threads")


ON_STORES = [["fsck"], ["fsck", "--repair"], ["export"], ["import"], ["prune", "--older-than", "0s"]]


@pytest.mark.parametrize("words", ON_STORES, ids=" ".join)
@pytest.mark.parametrize("place", ["threads", f"threads/{OSLO}", "drafts/new"])
def test_a_mount_is_not_taken_for_a_store(standing: Mount, words: list[str], place: str) -> None:
    name, *options = words
    result = threadfs(name, standing.path(place), *options, given="")
    fails(result, 1, f"is in a mount, and no store: it shows {standing.store}")


def test_a_mount_point_stands_for_the_store_that_it_shows(mounted: Mount, desk: Path) -> None:
    link = desk / "link"
    link.symlink_to(mounted.root)
    run_id = "run_74710763d50d067d8ffe929ab97605f0"
    for place in (mounted.root, link):
        assert succeeds(threadfs("fsck", place)) == ""
        assert succeeds(threadfs("export", place)) == succeeds(threadfs("export", mounted.store))
        assert succeeds(threadfs("wait", place, f"{run_id}@{OSLO}")) == "completed\n"
    fails(threadfs("ask", mounted.root, "none", "Hello"), 1, "no thread 'none'")
    succeeds(threadfs("import", mounted.root, given=threadfs("export", mounted.store).stdout))
    assert OSLO in succeeds(threadfs("prune", mounted.root, "--older-than", "0s", "--dry-run"))
    run = mounted.run("queued")
    expired = f"{run.name}@{run.parent.parent.name}"
    assert expired in succeeds(threadfs("expire", mounted.root, "--older-than", "0s"))
    assert '"expired"' in mounted.stored(run).read_text()


def test_a_mount_point_stands_for_its_store_also_when_it_is_dead(mounted: Mount) -> None:
    killed(mounted)
    assert succeeds(threadfs("fsck", mounted.root)) == ""


def test_the_threads_of_a_mount_are_not_mounted(standing: Mount, tmp_path: Path) -> None:
    fails(threadfs(standing.path("threads"), tmp_path / "other"), 1, "is in a mount, and no store")


@pytest.mark.parametrize("words", ON_STORES, ids=" ".join)
def test_a_thread_is_not_taken_for_a_store(household: Path, words: list[str]) -> None:
    name, *options = words
    before = sorted(household.rglob("*"))
    fails(threadfs(name, household / OSLO, *options, given=""), 1, "is a thread, and no store")
    assert sorted(household.rglob("*")) == before


def test_a_thread_is_not_mounted(household: Path, tmp_path: Path) -> None:
    fails(threadfs(household / OSLO, tmp_path / "mnt"), 1, "is a thread, and no store")


def test_who_mounts_again_is_told_which_process_does_not_answer(mounted: Mount, tmp_path: Path) -> None:
    pid = mounted.process.pid
    said = tmp_path / "said"
    mounted.process.send_signal(signal.SIGSTOP)
    try:
        with said.open("wb") as stderr:
            again = command(mounted.store, mounted.root)
            mounting = subprocess.Popen(again, stdout=subprocess.PIPE, stderr=stderr, text=True)
        wait_until(lambda: said.read_bytes().endswith(b"\n"))
    finally:
        mounted.process.send_signal(signal.SIGCONT)
    stdout, _ = mounting.communicate(timeout=60)
    assert stdout == f"already mounted: {mounted.store} on {mounted.root}\n"
    why = f"waiting for process {pid}, which is stopped (kill -CONT {pid} lets it go on)"
    assert said.read_text() == f"threadfs: {mounted.root} does not answer: {why}\n"


# ── list and umount ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.alone
def test_list_names_mounts_with_their_stores(standing: Mount) -> None:
    assert f"{standing.store} on {standing.root}\n" in succeeds(threadfs("list"))


@pytest.mark.alone
def test_list_names_dead_mounts(mounted: Mount) -> None:
    killed(mounted)
    assert f"{mounted.store} on {mounted.root} (dead)\n" in succeeds(threadfs("list"))


@pytest.mark.alone
def test_list_does_not_wait_for_a_mount_that_does_not_answer(mounted: Mount) -> None:
    mounted.process.send_signal(signal.SIGSTOP)
    try:
        assert f"{mounted.store} on {mounted.root} (does not answer)\n" in succeeds(threadfs("list"))
    finally:
        mounted.process.send_signal(signal.SIGCONT)


@pytest.mark.alone
def test_list_tells_which_mounts_are_read_only_and_names_are_as_they_are(tmp_path: Path) -> None:
    store = Path(shutil.copytree(EXAMPLES / "household", tmp_path / "my, own store"))
    mount = start(store, tmp_path / "a mount", tmp_path / "log", "--read-only")
    try:
        assert f"{store} on {mount.root} (read-only)\n" in succeeds(threadfs("list"))
    finally:
        stop(mount)


def test_umount_returns_when_the_mount_and_its_process_are_gone(desk: Path) -> None:
    succeeds(threadfs("store", desk / "mnt", cwd=desk))
    server = server_of(desk / "mnt")
    assert succeeds(threadfs("umount", "mnt", cwd=desk)) == ""
    assert not os.path.ismount(desk / "mnt")
    assert not Path(f"/proc/{server}/exe").exists()


def test_a_mount_takes_the_name_of_one_whose_process_is_still_ending() -> None:
    mount = on_top("/proc")
    assert mount is not None
    ending = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ending.bind(f"\0threadfs-{mount.device}".encode())
    threading.Timer(0.1, ending.close).start()
    life_line.hold("/proc")
    try:
        assert life_line.server_of(mount) == os.getpid()
    finally:
        for held in life_line._sockets:
            held.close()
        life_line._sockets.clear()


def test_any_number_may_ask_who_serves_a_mount_and_wait_for_its_end(mounted: Mount) -> None:
    def sockets() -> int:
        return sum(file.startswith("socket:") for file in open_files(mounted.process.pid))

    mount = on_top(str(mounted.root))
    assert mount is not None
    assert mounted.path("README.md").read_text()
    before = sockets()
    assert {life_line.server_of(mount) for _ in range(300)} == {mounted.process.pid}
    wait_until(lambda: sockets() == before)
    lines = [life_line.LifeLine(mount) for _ in range(100)]
    assert {line.pid for line in lines} == {mounted.process.pid}
    assert mounted.path("README.md").read_text()
    assert not lines[0].wait(0.1)
    stop(mounted)
    assert all(line.wait(ANSWERS_S) for line in lines[1:])


def test_a_mount_that_is_asked_by_too_many_is_there_all_the_same(mounted: Mount) -> None:
    mount = on_top(str(mounted.root))
    assert mount is not None
    lines = [life_line.LifeLine(mount) for _ in range(131)]
    assert lines[-1].pid is not None
    assert not lines[-1].wait(0.1)


def test_the_command_returns_also_where_the_connection_cannot_be_cloned(desk: Path) -> None:
    program = """
import sys
from threadfs import cli
from threadfs.fuse import detached
detached._FUSE_DEV_IOC_CLONE = 0
sys.exit(cli.main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", program, str(desk / "store"), str(desk / "mnt")]
    assert (
        subprocess.run(command, timeout=ANSWERS_S, capture_output=True, env=environment(desk)).returncode == 0
    )
    assert os.listdir(desk / "mnt")


def test_links_may_lead_to_the_store_and_the_mount_point(desk: Path) -> None:
    (desk / "real").mkdir()
    (desk / "link").symlink_to("real")
    succeeds(threadfs("--create", "link/stores/mine", "link/mnt", cwd=desk))
    try:
        (desk / "real" / "mnt" / "threads" / "t").mkdir()
        assert (desk / "real" / "stores" / "mine" / "t" / "meta.json").exists()
        succeeds(threadfs("fsck", desk / "link" / "stores" / "mine"))
    finally:
        succeeds(threadfs("umount", "link/mnt", cwd=desk))


def test_umount_clears_a_dead_mount(mounted: Mount) -> None:
    killed(mounted)
    succeeds(threadfs("umount", mounted.root))
    assert os.listdir(mounted.root) == []


@pytest.mark.parametrize("place", ["/proc", "/", "/nowhere"])
def test_what_is_no_mount_of_ours_is_not_unmounted(place: str) -> None:
    fails(threadfs("umount", place), 1, f"{place} is no threadfs mount")


def test_umount_of_a_busy_mount_fails_and_says_what_to_do(mounted: Mount) -> None:
    with mounted.path("README.md").open("rb"):
        fails(threadfs("umount", mounted.root), 1, "is busy", "fuser")
    assert os.path.ismount(mounted.root)


def test_umount_of_a_mount_that_does_not_answer_and_is_busy_says_what_to_do(mounted: Mount) -> None:
    with mounted.path("README.md").open("rb"):
        mounted.process.send_signal(signal.SIGSTOP)
        try:
            fails(threadfs("umount", mounted.root), 1, "does not answer", "--lazy")
        finally:
            mounted.process.send_signal(signal.SIGCONT)


def test_umount_tries_again_as_a_mount_may_be_busy_by_itself(
    mounted: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is for a moment while it wakes who watches it."""
    unmounting = tmp_path / "bin" / "fusermount3"
    unmounting.parent.mkdir()
    unmounting.write_text(
        f"""#!/bin/sh
        mkdir '{tmp_path}/tried' && echo "failed to unmount: Device or resource busy" >&2 && exit 1
        exec '{shutil.which("fusermount3")}' "$@"
        """
    )
    unmounting.chmod(0o755)
    monkeypatch.setenv("PATH", f"{unmounting.parent}:{os.environ['PATH']}")
    assert threadfs("umount", mounted.root).returncode == 0
    assert (tmp_path / "tried").is_dir()


def test_a_lazy_umount_takes_a_busy_mount_out_of_sight_at_once(mounted: Mount) -> None:
    with mounted.path("README.md").open("rb") as reader:
        succeeds(threadfs("umount", "--lazy", mounted.root))
        assert not os.path.ismount(mounted.root)
        assert reader.read()
    assert mounted.process.wait(ANSWERS_S) == 0


@pytest.mark.parametrize("options", [[], ["--lazy"]], ids=["", "lazy"])
def test_umount_names_the_files_in_drafts_and_leaves_them(mounted: Mount, options: list[str]) -> None:
    mounted.path("drafts", "trip", "runs").mkdir(parents=True)
    mounted.path("drafts", "trip", "meta.json").write_text("{}")
    mounted.path("drafts", "notes\nof mine").write_text("mine")
    fails(
        threadfs("umount", mounted.root, *options), 1, "would be lost", "trip", "notes\\nof mine", "--force"
    )
    assert mounted.path("drafts", "trip", "meta.json").read_text() == "{}"
    succeeds(threadfs("umount", mounted.root, "--force", *options))
    assert not os.path.ismount(mounted.root)


def test_umount_says_how_many_drafts_there_are_without_naming_them_all(mounted: Mount) -> None:
    for number in range(9):
        mounted.path("drafts", f"draft{number}").write_text("")
    fails(threadfs("umount", mounted.root), 1, "and 4 more")


def test_empty_directories_in_drafts_are_no_loss(mounted: Mount) -> None:
    mounted.path("drafts", "trip", "runs").mkdir(parents=True)
    succeeds(threadfs("umount", mounted.root))


def test_a_dead_mount_is_cleared_whatever_its_drafts_held(mounted: Mount) -> None:
    mounted.path("drafts", "notes").write_text("mine")
    killed(mounted)
    succeeds(threadfs("umount", mounted.root))
    assert not os.path.ismount(mounted.root)


def test_a_mount_that_does_not_answer_is_not_asked_for_its_drafts_for_long(mounted: Mount) -> None:
    mounted.path("drafts", "notes").write_text("mine")
    mounted.process.send_signal(signal.SIGSTOP)
    try:
        succeeds(threadfs("umount", "--lazy", mounted.root))
        assert not os.path.ismount(mounted.root)
    finally:
        mounted.process.send_signal(signal.SIGCONT)


# ── systemd ─────────────────────────────────────────────────────────────────────────────────────────────


def test_systemd_is_told_when_the_mount_answers_and_when_it_goes(household: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(ANSWERS_S)
        process = subprocess.Popen(
            command("-f", "store", "mnt"),
            cwd=tmp_path,
            env={**environment(tmp_path), "NOTIFY_SOCKET": str(tmp_path / "notify")},
            stderr=subprocess.DEVNULL,
        )
        mount = Mount(household, tmp_path / "mnt", tmp_path / "log", process)
        try:
            assert manager.recv(1000).startswith(b"READY=1\n")
            assert OSLO in os.listdir(mount.path("threads"))
            process.send_signal(signal.SIGTERM)
            assert manager.recv(1000) == b"STOPPING=1"
            assert process.wait(ANSWERS_S) == 0
        finally:
            stop(mount)


def test_in_the_journal_lines_begin_with_how_urgent_they_are(household: Path, tmp_path: Path) -> None:
    with (tmp_path / "journal").open("wb") as journal:
        status = os.fstat(journal.fileno())
        process = subprocess.Popen(
            command("-f", "store", "mnt"),
            cwd=tmp_path,
            env={**environment(tmp_path), "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
            stderr=journal,
        )
    mount = Mount(household, tmp_path / "mnt", tmp_path / "log", process)
    try:
        wait_until(lambda: os.path.ismount(mount.root))
    finally:
        stop(mount)
    lines = (tmp_path / "journal").read_text().splitlines()
    assert lines[0] == f"<6>mounted {household} on {mount.root}"
    assert all(re.match("<[0-7]>", line) for line in lines)


@pytest.mark.parametrize(
    ("place", "reason"),
    [("full", "<3>{desk}/full is not empty"), ("--nope", "<3>unrecognized arguments: --nope")],
)
def test_in_the_journal_the_reason_of_a_failed_start_is_an_error(desk: Path, place: str, reason: str) -> None:
    (desk / "full" / "something").mkdir(parents=True)
    with (desk / "journal").open("wb") as journal:
        status = os.fstat(journal.fileno())
        done = subprocess.run(
            command("-f", "store", place),
            cwd=desk,
            env={**environment(desk), "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
            stderr=journal,
            check=False,
        )
    assert done.returncode != 0
    assert (desk / "journal").read_text().startswith(reason.format(desk=desk))


@pytest.mark.parametrize("name", ["threadfs@.service", "threadfs-work@.service"])
def test_the_unit_is_one_that_systemd_accepts(tmp_path: Path, name: str) -> None:
    unit = tmp_path / name
    text = (ROOT / "contrib" / name).read_text()
    # systemd-analyze insists that the program and its manual are there.
    text = text.replace("%h/.local/bin/threadfs", "/bin/true").replace("Documentation=man:threadfs(1)\n", "")
    unit.write_text(text)
    checked = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(unit)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def run_line(mount: Mount, name: str, process: object = "", **environment: str) -> None:
    """Does what systemd does with the last line *name* of the unit."""
    line = re.findall(rf"(?m)^{name}=-(.*)$", (ROOT / "contrib" / "threadfs@.service").read_text())[-1]
    given = {"${MOUNTPOINT}": str(mount.root), "${MAINPID}": str(process), "$$": "$"}
    words = shlex.split(line)
    for variable, text in given.items():
        words = [word.replace(variable, text) for word in words]
    subprocess.run(words, env={**os.environ, **environment}, check=False)


def stop_post(mount: Mount) -> None:
    run_line(mount, "ExecStopPost")


@pytest.mark.parametrize("is_busy", [False, True], ids=["that nobody uses", "that is busy"])
def test_the_unit_stops_a_mount_by_two_signals(mounted: Mount, tmp_path: Path, is_busy: bool) -> None:
    sleep = tmp_path / "bin" / "sleep"
    sleep.parent.mkdir()
    sleep.write_text('#!/bin/sh\nexec /bin/sleep "0.$1"\n')  # Its seconds are not ours.
    sleep.chmod(0o755)
    descriptor = os.open(mounted.root if is_busy else "/", os.O_RDONLY)
    try:
        run_line(mounted, "ExecStop", mounted.process.pid, PATH=f"{sleep.parent}:{os.environ['PATH']}")
        if is_busy:
            assert mounted.process.poll() is None
            mounted.process.terminate()  # As systemd goes on.
        assert mounted.process.wait(5) == 0
        assert os.listdir(mounted.root) == []
    finally:
        os.close(descriptor)


@pytest.mark.alone
def test_the_unit_stops_well_when_the_process_has_ended_already(mounted: Mount) -> None:
    mounted.process.terminate()
    mounted.process.wait()
    started_s = time.monotonic()
    run_line(mounted, "ExecStop")
    assert time.monotonic() - started_s < 1


def test_the_unit_clears_what_a_killed_process_left(mounted: Mount) -> None:
    stop_post(killed(mounted))
    assert os.listdir(mounted.root) == []


def test_the_unit_leaves_a_mount_alone_that_somebody_else_serves(mounted: Mount) -> None:
    with mounted.path("README.md").open("rb") as reader:
        stop_post(mounted)
        assert os.path.ismount(mounted.root)
        assert reader.read()


# ── Where the log is ────────────────────────────────────────────────────────────────────────────────────


def test_a_relative_xdg_state_home_counts_as_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    assert log_file_for("/srv/mnt", None) == f"{tmp_path}/.local/state/threadfs/srv-mnt.log"


@as_root
def test_where_home_is_somebody_elses_the_log_is_in_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is when a user mounts by a line of fstab with ``user``."""
    others = tmp_path / "others"
    others.mkdir()
    os.chown(others, pwd.getpwnam("nobody").pw_uid, -1)
    own = pwd.struct_passwd(("me", "x", os.getuid(), 0, "", str(tmp_path / "own"), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: own)
    monkeypatch.setenv("HOME", str(others))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert log_file_for("/mnt", None) == f"{tmp_path}/own/.local/state/threadfs/mnt.log"


def test_where_no_log_can_be_written_it_is_said_how_to_place_it(desk: Path) -> None:
    (desk / "state").write_text("")
    fails(threadfs("store", "mnt", cwd=desk), 1, "cannot log to", "Not a directory", "--log FILE")


# ── Another user ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def common(household: Path) -> Iterator[Path]:
    """A directory that anybody may use, with a ``store``, a ``mnt``, and the program."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copytree(household, place / "store")
        (place / "mnt").mkdir()
        for package in ("store", "threadfs"):
            shutil.copytree(ROOT / package, place / "program" / package)
        nobody = pwd.getpwnam("nobody")
        for path in [place, *place.rglob("*")]:
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        place.chmod(0o755)
        try:
            yield place
        finally:
            subprocess.run(["fusermount3", "-uzq", str(place / "mnt")], check=False)


def as_nobody(place: Path, *words: object, user: str = "nobody") -> Result:
    """Runs a command as a user who is not root, and has no access to this checkout."""
    libraries = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    return subprocess.run(
        ["setpriv", f"--reuid={user}", "--regid=nogroup", "--clear-groups", *map(str, words)],
        cwd=place,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(place),
            "PYTHONPATH": f"{place / 'program'}:{libraries}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def threadfs_as_nobody(place: Path, *words: object, user: str = "nobody") -> Result:
    """The same for threadfs, which may read what root alone may: Python is perhaps where others may not."""
    reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return as_nobody(place, *reads, sys.executable, "-m", "threadfs.cli", *words, user=user)


@pytest.mark.alone
@as_root
@pytest.mark.usefixtures("fuse_for_all")
def test_a_user_who_is_not_root_mounts_and_unmounts_and_owns_the_files(common: Path) -> None:
    mounting = threadfs_as_nobody(common, "store", "mnt")
    assert (mounting.returncode, mounting.stderr) == (0, "")
    # Nobody else may see it, not even root, who is told of drafts all the same.
    with pytest.raises(PermissionError):
        os.listdir(common / "mnt")
    listed = as_nobody(common, "stat", "-c", "%U %F", f"mnt/threads/{OSLO}/meta.json")
    assert listed.stdout == "nobody regular file\n"
    as_nobody(common, "touch", "mnt/drafts/notes")
    fails(threadfs("umount", common / "mnt"), 1, "would be lost: notes")
    fails(threadfs("fsck", common / "mnt"), 1, "is mounted by another user: give the store")
    unmounting = threadfs_as_nobody(common, "umount", "--force", "mnt")
    assert (unmounting.returncode, unmounting.stderr) == (0, "")
    assert stat.S_ISDIR(os.stat(common / "mnt").st_mode)
    assert os.listdir(common / "mnt") == []


@pytest.mark.alone
@as_root
@pytest.mark.usefixtures("fuse_for_all")
def test_a_dead_mount_of_another_user_is_dead_for_root_and_anothers_for_others(common: Path) -> None:
    assert threadfs_as_nobody(common, "store", "mnt").returncode == 0
    line = f"{common}/store on {common}/mnt (of another user)\n"
    dead = f"{common}/store on {common}/mnt (dead)\n"
    assert line in succeeds(threadfs("list"))
    os.kill(server_of(common / "mnt"), signal.SIGKILL)
    wait_until(lambda: dead in succeeds(threadfs("list")))
    assert dead in threadfs_as_nobody(common, "list").stdout
    assert line in threadfs_as_nobody(common, "list", user="daemon").stdout
    mounting = succeeds(threadfs(common / "store", common / "mnt", cwd=common))
    assert mounting.startswith("cleared the dead mount")
    succeeds(threadfs("umount", common / "mnt"))
    assert find_mount(common / "mnt", "SOURCE") == ""


@as_root
def test_with_allow_other_others_read_what_the_modes_let_them(desk: Path) -> None:
    for path in (desk, *desk.parents):
        if path != Path("/tmp") and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    succeeds(threadfs("store", "mnt", "--allow-other", cwd=desk))
    reading = as_nobody(Path("/"), "cat", desk / "mnt" / "threads" / OSLO / "meta.json")
    assert (reading.returncode, reading.stderr) == (0, "")
    writing = as_nobody(Path("/"), "sh", "-c", f"echo hello > '{desk}/mnt/threads/{OSLO}/say'")
    assert "Permission denied" in writing.stderr
