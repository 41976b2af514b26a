"""Scratch files: those that programs make, which vanish by themselves when they are left behind."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import pytest

from store import Run, Thread, ThreadStore
from tests.nodes.driving import Programs, outcome
from threadfs.nodes.base import Directory, Refused
from threadfs.nodes.root import root_of
from threadfs.nodes.scratch import UNUSED_BACKUP_S, UNUSED_S


@pytest.fixture
def thread(tmp_path: Path) -> Directory:
    store = ThreadStore(tmp_path / "store")
    store.create_thread(Thread(id="T"))
    found = root_of(store).lookup("threads")
    assert isinstance(found, Directory)
    thread = found.lookup("T")
    assert isinstance(thread, Directory)
    return thread


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + seconds)


def test_a_backup_that_an_editor_keeps_vanishes_soon(
    thread: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread.make_file("meta.json~")
    thread.make_file("tmp.notes")
    assert thread.holds("meta.json~")
    later(monkeypatch, UNUSED_BACKUP_S + 1)
    assert not thread.holds("meta.json~")
    assert thread.holds("tmp.notes")


def test_a_lock_link_that_a_killed_editor_left_vanishes_as_a_file_does(
    thread: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread.make_link(".#meta.json", "somebody@somewhere.1")
    thread.make_file("tmp.notes")
    later(monkeypatch, UNUSED_S + 1)
    assert not thread.holds(".#meta.json")
    assert not thread.holds("tmp.notes")


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    store = ThreadStore(tmp_path / "store")
    store.create_thread(Thread(id="T"))
    store.create_run("T", Run(id="R"))
    return Programs(root_of(store))


DIRECTORIES = ["threads/T", "threads/T/runs/R", "threads/T/runs/R/steps"]
TEMPORARY = [
    ".x",
    "#x#",
    "x~",
    "tmp",
    "tmp.x",
    "tmpk3_a9x",
    "sedAbCdEf",
    "4913",
    "x.tmp",
    "x.swp",
    "x.bak",
    "x.orig",
    "x.part",
    "x.new",
]
OTHERS = ["notes", "attachment.txt", "README.md", "new", "bak", "atmp", "4914", "Ab3dEf9h", "say.txt"]


@pytest.mark.parametrize("directory", DIRECTORIES)
@pytest.mark.parametrize("name", TEMPORARY)
def test_names_that_programs_give_to_their_files_are_taken(
    programs: Programs, directory: str, name: str
) -> None:
    programs.write(f"{directory}/{name}", b"text")
    assert programs.read(f"{directory}/{name}") == b"text"
    programs.directory(directory).make_link(f".{name}", "target")


@pytest.mark.parametrize("directory", DIRECTORIES)
@pytest.mark.parametrize("name", OTHERS)
def test_any_other_name_is_refused_and_the_reason_names_one_that_is_taken(
    programs: Programs, directory: str, name: str
) -> None:
    programs.write(f"{directory}/tmp", b"text")
    before = programs.names(directory)
    with pytest.raises(Refused, match="tmp…") as refused:
        programs.write(f"{directory}/{name}", b"text")
    assert refused.value.errno == errno.EACCES
    assert outcome(lambda: programs.directory(directory).make_link(name, "target")) == "EACCES"
    assert outcome(lambda: programs.rename(f"{directory}/tmp", f"{directory}/{name}")) == "EACCES"
    assert programs.names(directory) == before
    assert programs.read(f"{directory}/tmp") == b"text"


@pytest.mark.parametrize(
    ("directory", "name", "elsewhere"),
    [
        ("threads/T", "meta.json.AbCd12", "threads/T/runs/R"),
        ("threads/T", "my-messages.jsonl-copy", "threads/T/runs/R"),
        ("threads/T/runs/R", "status-copy", "threads/T"),
        ("threads/T/runs/R/steps", "s.json-x", "threads/T"),
    ],
)
def test_names_that_hold_the_one_of_a_document_there_are_taken(
    programs: Programs, directory: str, name: str, elsewhere: str
) -> None:
    programs.write(f"{directory}/{name}", b"text")
    assert outcome(lambda: programs.write(f"{elsewhere}/{name}", b"text")) == "EACCES"


@pytest.mark.parametrize("name", ["XXdhWl3f", "XXabcdef", "aB3dEfgh"])
def test_what_perl_makes_is_taken_where_it_takes_nobody_elses_file(programs: Programs, name: str) -> None:
    directory = programs.directory("threads/T")
    assert outcome(lambda: directory.make_file(name)) == "EACCES"
    directory.make_file(name, is_exclusive=True)
    assert outcome(lambda: directory.make_file("notes123", is_exclusive=True)) == "EACCES"


def test_a_document_is_renamed_to_the_names_of_backups_alone(programs: Programs) -> None:
    before = programs.read("threads/T/meta.json")
    assert outcome(lambda: programs.rename("threads/T/meta.json", "threads/T/old")) == "EACCES"
    assert programs.read("threads/T/meta.json") == before
    programs.rename("threads/T/meta.json", "threads/T/meta.json.orig")
    assert programs.read("threads/T/meta.json.orig") == before


LONG = b" " * (2 << 20)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("meta.json", b'{"metadata":{"a":"1"}}' + LONG + b'{"metadata":{"b":"2"}}'),
        ("messages.jsonl", b'{"role":"user","content":"one"}\n' + LONG + b'{"role":"nobody"}\n'),
    ],
)
def test_a_large_file_that_is_wrong_at_its_end_changes_nothing_when_it_is_renamed_over_a_stored_one(
    programs: Programs, name: str, data: bytes
) -> None:
    before = programs.read(f"threads/T/{name}")
    programs.write("threads/T/tmp.new", data)
    assert outcome(lambda: programs.rename("threads/T/tmp.new", f"threads/T/{name}")) == "EBADMSG"
    assert programs.read(f"threads/T/{name}") == before
