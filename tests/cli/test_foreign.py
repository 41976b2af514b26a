"""A store that lies among other things: what is not surely a thread is neither deleted nor changed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from store import Run, RunStatus, Thread, ThreadStore
from store.disk.system_calls import SystemCalls
from store.errors import Foreign
from tests.cli.conftest import OSLO, fails, succeeds, threadfs
from tests.mount.conftest import start, stop
from tests.store.conftest import message
from threadfs.cli import main

LONG_AGO_S = time.time() - 100 * 86400
OLD = ("--older-than", "30d")


def aged(directory: Path) -> None:
    """Makes all in it old, as `prune` and `expire` see it."""
    for root, directories, files in os.walk(directory, topdown=False):
        for name in [*directories, *files]:
            os.utime(Path(root, name), (LONG_AGO_S, LONG_AGO_S), follow_symlinks=False)


def everything(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b""
        for path in directory.rglob("*")
    }


@pytest.fixture
def store(tmp_path: Path) -> ThreadStore:
    """Two threads with a message and a run each, ``T`` and ``other``."""
    store = ThreadStore(tmp_path / "store")
    for thread_id in ("T", "other"):
        store.create_thread(Thread(id=thread_id))
        store.append_message(thread_id, message())
        store.create_run(thread_id, Run(id="R", status=RunStatus.failed))
    aged(tmp_path / "store")
    return store


@pytest.fixture
def at(store: ThreadStore) -> Path:
    return Path(store.location)


def make_project(at: Path, meta: str = '{"name": "web", "created_at": "today"}') -> Path:
    """A directory of somebody's work, which has a meta.json for a reason of its own, and runs."""
    project = at / "project"
    (project / "runs" / "R").mkdir(parents=True)
    (project / "meta.json").write_text(meta)
    (project / "main.py").write_text("today's work")
    (project / "runs" / "R" / "status.json").write_text('{"created_at": 1, "status": "queued"}')
    aged(at)
    return project


# ── prune ───────────────────────────────────────────────────────────────────────────────────────────────

METAS = [
    "{}",
    "[1]",
    "",
    '{"name": "web"}',
    '{"created_at": 1700000000, "title": "web"}',
    '{"id": "project", "created_at": 1, "object": "package"}',
    '{"id": 7, "object": "thread", "created_at": 1}',
    '{"object": "thread", "created_at": 1}',
    '{"id": "project", "object": "thread", "created_at": "today"}',
]


@pytest.mark.parametrize(
    "options", [(), ("--dry-run",), ("--foreign",), ("--status", "queued")], ids=" ".join
)
@pytest.mark.parametrize("meta", METAS)
def test_a_directory_with_a_meta_json_that_is_no_threads_stays_and_is_named(
    at: Path, capsys: pytest.CaptureFixture[str], meta: str, options: tuple[str, ...]
) -> None:
    project = make_project(at, meta)
    before = everything(project)
    assert main(["prune", str(at), *OLD, *options]) == 1
    said, complained = capsys.readouterr()
    assert everything(project) == before
    assert said.splitlines() == ([] if "--status" in options else ["T", "other"])
    assert complained.count("\n") == 1
    assert "project/meta.json is no Thread" in complained


def within(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("mine")


FOREIGN: dict[str, Callable[[Path], object]] = {
    "attachment.txt": lambda path: path.write_text("mine"),
    "photos": lambda path: path.mkdir(),
    ".hidden": lambda path: path.write_text("mine"),
    ".tmpAb12Cd.txt": lambda path: path.write_text("mine"),
    ".tmpAb12Ce": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("/"),
    "fifo": lambda path: os.mkfifo(path),
    "runs/notes.txt": lambda path: path.write_text("mine"),
    "runs/a@b": lambda path: path.mkdir(),
    "runs/R/trace.log": lambda path: path.write_text("mine"),
    "runs/R/steps": lambda path: path.write_text("mine"),
    "runs/R/steps/S.txt": within,
    "runs/R/steps/S.json": lambda path: path.mkdir(parents=True),
    "runs/gone/output.bin": within,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_thread_that_holds_what_the_format_does_not_know_stays_and_is_named(
    at: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    FOREIGN[name](at / "T" / name)
    aged(at)
    before = everything(at / "T")
    for dry_run, pruned in ((["--dry-run"], "other\n"), ([], "other\n"), ([], "")):
        assert main(["prune", str(at), *OLD, *dry_run]) == 1
        said, complained = capsys.readouterr()
        assert (said, complained.count("\n")) == (pruned, 1)
        assert f"thread 'T' stays: T/{name} is no part of a thread" in complained
    assert everything(at / "T") == before
    assert main(["prune", str(at), *OLD, "--foreign"]) == 0
    assert os.listdir(at) == []


LEFT = ["T/.tmpAb12Cd", "T/runs/R/.tmpAb12Cd", f"T/runs/.threadfs-tmp-{'0' * 16}", "T/messages.jsonl"]


@pytest.mark.parametrize("name", LEFT)
def test_what_killed_programs_left_does_not_protect_an_old_thread(at: Path, name: str) -> None:
    (at / name).write_text("")
    (at / "T" / "runs" / "being-made").mkdir()
    aged(at)
    assert main(["prune", str(at), *OLD]) == 0
    assert os.listdir(at) == []


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["", "dry-run"])
def test_a_foreign_file_in_a_run_protects_that_run_alone(
    store: ThreadStore, at: Path, capsys: pytest.CaptureFixture[str], dry_run: list[str]
) -> None:
    (at / "T" / "attachment.txt").write_text("mine")
    store.create_run("T", Run(id="kept", status=RunStatus.failed))
    (at / "T" / "runs" / "kept" / "trace.log").write_text("mine")
    aged(at)
    assert main(["prune", str(at), *OLD, "--status", "failed", *dry_run]) == 1
    said, complained = capsys.readouterr()
    assert said == "R@T\nR@other\n"
    assert "run kept@T stays: T/runs/kept/trace.log is no part of a thread" in complained
    assert (at / "T" / "runs" / "kept" / "trace.log").exists()
    assert (at / "T" / "runs" / "R").exists() == bool(dry_run)


def test_with_foreign_the_run_and_what_lies_in_it_go(at: Path) -> None:
    (at / "T" / "runs" / "R" / "trace.log").write_text("mine")
    aged(at)
    assert main(["prune", str(at), *OLD, "--status", "failed", "--foreign"]) == 0
    assert os.listdir(at / "T" / "runs") == []


class _Meanwhile(SystemCalls):
    """Another program drops a file into a thread in the last moment before it goes."""

    def rename(self, directory: int, name: str, new_directory: int, new_name: str) -> None:
        if ".threadfs-deleted-" in new_name:
            os.close(os.open(f"{name}/late.txt", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=directory))
        super().rename(directory, name, new_directory, new_name)


@pytest.mark.parametrize("delete", ["delete_thread", "delete_run"])
def test_what_comes_in_the_last_moment_is_kept(at: Path, delete: str) -> None:
    store = ThreadStore(at, calls=_Meanwhile())
    with pytest.raises(Foreign, match=r"late\.txt is no part of a thread"):
        store.delete_thread("T") if delete == "delete_thread" else store.delete_run("T", "R")
    assert [path.name for path in at.rglob("late.txt")] == ["late.txt"]
    assert store.get_run("T", "R").status is RunStatus.failed


# ── expire, fsck, import ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["", "dry-run"])
def test_expire_changes_no_run_of_what_is_no_thread(
    store: ThreadStore, at: Path, capsys: pytest.CaptureFixture[str], dry_run: list[str]
) -> None:
    store.create_run("T", Run(id="stale"))
    (at / "T" / "attachment.txt").write_text("mine")
    project = make_project(at, '{"created_at": 1}')
    before = everything(project)
    assert main(["expire", str(at), *OLD, *dry_run]) == 1
    said, complained = capsys.readouterr()
    assert (said, complained.count("\n")) == ("stale@T\n", 1)
    assert "run R@project stays: project/meta.json is no Thread: id: missing" in complained
    assert everything(project) == before


def test_expire_changes_nothing_that_is_no_run(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = at / "T" / "runs" / "R" / "status.json"
    status.write_text('{"created_at": 1, "status": "queued"}')
    aged(at)
    assert main(["expire", str(at), *OLD]) == 1
    assert "T/runs/R/status.json is no Run: id: missing" in capsys.readouterr().err
    assert status.read_text() == '{"created_at": 1, "status": "queued"}'


@pytest.mark.parametrize("meta", METAS)
def test_a_repair_leaves_alone_what_is_no_thread(
    at: Path, capsys: pytest.CaptureFixture[str], meta: str
) -> None:
    project = make_project(at, meta)
    (project / ".tmpAb12Cd").write_text("mine")
    (project / "runs" / "R" / "status.json").write_text("experiment 7")
    (project / "runs" / "R" / "steps").mkdir()
    aged(at)
    before = everything(project)
    main(["fsck", "--repair", str(at)])
    assert "(moved" not in capsys.readouterr().out
    assert everything(project) == before
    assert not (at / ".threadfs-aside").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda thread: (thread / "meta.json").write_text(""),
        lambda thread: (thread / "meta.json").write_text('{"id": "T", "obj'),
        lambda thread: (thread / "meta.json").write_text("{}"),
        lambda thread: (thread / "meta.json").unlink(),
        lambda thread: (thread / "runs" / "R" / "status.json").write_text("{"),
    ],
)
def test_a_damaged_thread_is_repaired_whatever_else_lies_in_it(
    at: Path, damage: Callable[[Path], object]
) -> None:
    (at / "T" / "attachment.txt").write_text("mine")
    (at / "T" / "runs" / "R" / "trace.log").write_text("mine")
    damage(at / "T")
    main(["fsck", "--repair", str(at)])
    assert main(["fsck", str(at)]) == 0
    assert (at / "T" / "attachment.txt").read_text() == "mine"
    assert len(list(at.rglob("trace.log"))) == 1


def test_a_damaged_document_with_nothing_beside_it_is_repaired(at: Path) -> None:
    (at / "lone").mkdir()
    (at / "lone" / "meta.json").write_text('{"id": "lo')
    assert main(["fsck", "--repair", str(at)]) == 0
    assert ThreadStore(at).get_thread("lone").metadata == {}


# ── What is no store ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A directory of other things."""
    made = tmp_path / "work"
    make_project(made)
    (made / "notes.txt").write_text("mine")
    return made


ON_STORES = [
    ["fsck"],
    ["fsck", "--repair"],
    ["export"],
    ["import"],
    ["prune", *OLD],
    ["expire", *OLD],
    ["wait", "", "T", "R"],
]


def on(words: list[str], place: Path) -> list[str]:
    name, *others = words
    return [name, str(place), *filter(None, others)]


@pytest.mark.parametrize("words", ON_STORES, ids=" ".join)
def test_a_directory_of_other_things_is_no_store(
    work: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    before = everything(work)
    assert main(on(words, work)) == (3 if words[0] == "wait" else 1)
    assert f"{work} is no store: it holds other things, and not one thread" in capsys.readouterr().err
    assert everything(work) == before


@pytest.mark.parametrize("words", ON_STORES, ids=" ".join)
def test_etc_is_no_store(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(on(words, Path("/etc"))) == (3 if words[0] == "wait" else 1)
    said, complained = capsys.readouterr()
    assert said == ""
    assert "/etc is no store" in complained


# What looks for something in a store, and the status with which it ends where there is nothing.
ON_EMPTY = {
    "fsck": 0,
    "ls": 0,
    f"prune {' '.join(OLD)}": 0,
    f"expire {' '.join(OLD)}": 0,
    "search honey": 1,
    "export": 1,
    "export --to chat": 1,
    "follow T": 1,
    "ask T Hello": 1,
    "events --thread T": 1,
    "wait R@T": 3,
}


@pytest.mark.parametrize("names", [[], ["lost+found"], [".git", ".Trash-0", "lost+found"]], ids=" ".join)
@pytest.mark.parametrize("words", ON_EMPTY)
def test_a_directory_with_nothing_but_hidden_names_is_an_empty_store_and_perhaps_no_mount(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: list[str], words: str
) -> None:
    for name in names:
        (tmp_path / "store" / name).mkdir(parents=True)
    (tmp_path / "store").mkdir(exist_ok=True)
    assert main(on(words.split(), tmp_path / "store")) == ON_EMPTY[words]
    said, complained = capsys.readouterr()
    assert said == ""
    assert complained.count("has no thread; is it a mount point that is not mounted?") == 1


DAMAGED: dict[str, Callable[[Path], object]] = {
    "an empty document": lambda thread: (thread / "meta.json").write_text(""),
    "half a document": lambda thread: (thread / "meta.json").write_text('{"id": "da'),
    "no object": lambda thread: (thread / "meta.json").write_text("[]"),
    "a FIFO": lambda thread: os.mkfifo(thread / "meta.json"),
    "a field that is wrong": lambda thread: (thread / "meta.json").write_text('{"object": "thread"}'),
    "messages without a document": lambda thread: (thread / "messages.jsonl").write_text(
        json.dumps({"role": "user"}) + "\n"
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_thread_makes_a_store_and_fsck_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "damaged").mkdir()
    DAMAGED[damage](tmp_path / "damaged")
    assert main(["fsck", str(tmp_path)]) == 1
    said, complained = capsys.readouterr()
    assert said.startswith("damaged")
    assert complained == ""


def test_what_is_mounted_is_not_asked_whether_it_is(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    mount = start(tmp_path / "store", tmp_path / "mnt", tmp_path / "log")
    try:
        assert succeeds(threadfs("ls", mount.root)) == ""
        (mount.root / "threads" / "T").mkdir()
        assert succeeds(threadfs("ls", mount.root)).startswith("T\t")
        (mount.root / "threads" / "T").rmdir()
        fails(threadfs("export", mount.root), 1, "has no thread (--allow-empty")
    finally:
        stop(mount)


def test_an_export_without_a_thread_fails_unless_it_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    asked = ["export", tmp_path / "store"]
    fails(threadfs(*asked), 1, "has no thread; is it a mount point that is not mounted? (--allow-empty")
    fails(threadfs(*asked, "--to", "markdown", tmp_path / "notes"), 1, "has no thread")
    assert not (tmp_path / "notes").exists()
    assert succeeds(threadfs(*asked, "--allow-empty")) == ""
    notes = ("--to", "markdown", tmp_path / "notes")
    assert succeeds(threadfs(*asked, "--allow-empty", *notes)) == "0 new, 0 changed, 0 unchanged\n"


def test_import_into_a_directory_with_nothing_in_it_says_that_the_store_is_new(
    household: Path, tmp_path: Path
) -> None:
    backup = threadfs("export", household).stdout
    (tmp_path / "new").mkdir()
    for options, said in ((["--dry-run"], True), ([], True), ([], False)):
        result = threadfs("import", "new", *options, given=backup, cwd=tmp_path)
        assert result.returncode == 0
        new = "threadfs: new has no thread yet: it is taken for a new store\n"
        assert result.stderr == (new if said else "")


def test_a_mistyped_store_without_a_directory_is_not_made_by_import(tmp_path: Path) -> None:
    fails(
        threadfs("import", "new", given="", cwd=tmp_path), 2, "'new' is no store", "given as ./new", "--help"
    )
    assert not os.listdir(tmp_path)


def test_import_into_a_missing_directory_makes_it_and_says_so(household: Path, tmp_path: Path) -> None:
    backup = threadfs("export", household).stdout
    rehearsed = threadfs("import", "./new", "--dry-run", given=backup, cwd=tmp_path)
    assert rehearsed.stderr == "threadfs: ./new is not there yet: what is imported makes it\n"
    made = threadfs("import", "./new", given=backup, cwd=tmp_path)
    assert (made.returncode, made.stderr) == (0, f"threadfs: made a new store: {tmp_path}/new\n")
    assert (tmp_path / "new" / OSLO / "meta.json").exists()
    refused = threadfs("import", "far/away/new", given=backup, cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "there is no directory" in refused.stderr
    assert not (tmp_path / "far").exists()
    assert threadfs("import", "--create", "far/away/new", given=backup, cwd=tmp_path).returncode == 0


def test_create_takes_a_directory_of_other_things_for_a_store(work: Path) -> None:
    before = everything(work)
    refused = threadfs("import", work, given="")
    assert refused.returncode == 1
    assert "--create" in refused.stderr
    assert threadfs("import", "--create", work, given="").returncode == 0
    assert everything(work) == before


def test_fsck_with_create_makes_a_missing_store(tmp_path: Path) -> None:
    assert main(["fsck", str(tmp_path / "new")]) == 1
    assert not (tmp_path / "new").exists()
    assert main(["fsck", "--create", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new").is_dir()
