"""``export --to markdown``: a directory of notes, and what a later export makes of it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import DocumentKey, ThreadStore
from tests.cli.conftest import command, fails, threadfs
from tests.exporting.conftest import CREATED_S, add, export, exported, message
from tests.mount.conftest import start, stop
from threadfs.exporting.note_names import note_name


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The day of a note is that of the local time."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def names(notes: Path) -> list[str]:
    return sorted(os.listdir(notes))


def retitle(store: Path, thread_id: str, title: str) -> None:
    ThreadStore(store).patch_document(DocumentKey(thread_id), {"metadata": {"title": title}})


def test_a_note_has_its_properties_and_what_was_said(store: Path, notes: Path) -> None:
    add(store, "thread_1", message("user", "Price?", CREATED_S + 60), title='The "price"', source="chat")
    assert exported(store, "--to", "markdown", notes) == "1 new, 0 changed, 0 unchanged\n"
    assert (notes / "2025-11-28 The price.md").read_text() == (
        "---\n"
        'title: "The \\"price\\""\n'
        "created: 2025-11-28T10:00:00Z\n"
        "updated: 2025-11-28T10:01:00Z\n"
        'source: "chat"\n'
        'id: "thread_1"\n'
        "---\n"
        '# The "price"\n\n`thread_1`\n\n## User, 2025-11-28 10:01:00 UTC\n\nPrice?\n'
    )


def test_the_day_in_the_name_is_that_of_the_local_time(
    store: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    add(store, "thread_1", title="Far east")
    exported(store, "--to", "markdown", notes)
    assert names(notes) == ["2025-11-29 Far east.md"]


def test_a_second_export_writes_only_what_has_changed(store: Path, notes: Path) -> None:
    add(store, "thread_1", message("user", "One."), title="One")
    add(store, "thread_2", message("user", "Two."), title="Two")
    exported(store, "--to", "markdown", notes)
    before = {path.name: path.stat().st_ino for path in notes.iterdir()}
    ThreadStore(store).append_lines("thread_2", [message("user", "More.", CREATED_S + 5)])
    assert exported(store, "--to", "markdown", notes) == "0 new, 1 changed, 1 unchanged\n"
    after = {path.name: path.stat().st_ino for path in notes.iterdir()}
    assert before["2025-11-28 One.md"] == after["2025-11-28 One.md"]
    assert "More." in (notes / "2025-11-28 Two.md").read_text()
    assert names(notes) == ["2025-11-28 One.md", "2025-11-28 Two.md"]


def test_a_new_title_renames_the_note_also_one_that_another_program_has_renamed(
    store: Path, notes: Path
) -> None:
    add(store, "thread_1", title="Old")
    exported(store, "--to", "markdown", notes)
    (notes / "2025-11-28 Old.md").rename(notes / "mine.md")
    # Obsidian writes properties without the quotes that they need not have.
    unquoted = (notes / "mine.md").read_text().replace('"thread_1"', "thread_1")
    (notes / "mine.md").write_text(unquoted)
    retitle(store, "thread_1", "New")
    assert exported(store, "--to", "markdown", notes) == "0 new, 1 changed, 0 unchanged\n"
    assert names(notes) == ["2025-11-28 New.md"]


def test_a_title_of_which_only_the_case_changes_renames_the_note(store: Path, notes: Path) -> None:
    add(store, "thread_1", title="honey")
    exported(store, "--to", "markdown", notes)
    retitle(store, "thread_1", "Honey")
    exported(store, "--to", "markdown", notes)
    assert names(notes) == ["2025-11-28 Honey.md"]


def test_threads_that_are_called_the_same_have_a_note_each_that_keeps_its_name(
    store: Path, notes: Path
) -> None:
    for number, title in enumerate(("New chat", "new chat", "New chat")):
        add(store, f"thread_{number}", title=title)
    exported(store, "--to", "markdown", notes)
    found = names(notes)
    assert len(found) == 3
    assert "2025-11-28 New chat.md" in found
    ThreadStore(store).delete_thread("thread_0", force=True)
    assert exported(store, "--to", "markdown", notes) == "0 new, 0 changed, 2 unchanged\n"
    assert names(notes) == found


def test_other_files_are_left_alone_and_a_note_gets_another_name(store: Path, notes: Path) -> None:
    add(store, "thread_1", title="Mine")
    notes.mkdir()
    (notes / "2025-11-28 mine.md").write_text("a list of bees")
    (notes / "2025-11-28 link.md").symlink_to("/etc/passwd")
    exported(store, "--to", "markdown", notes)
    assert (notes / "2025-11-28 mine.md").read_text() == "a list of bees"
    assert len(names(notes)) == 3
    assert exported(store, "--to", "markdown", notes) == "0 new, 0 changed, 1 unchanged\n"


def test_a_note_without_a_name_left_is_told_and_the_others_come(store: Path, notes: Path) -> None:
    add(store, "thread_1", title="Mine")
    add(store, "thread_2", title="Yours")
    notes.mkdir()
    for is_taken in (False, True):
        (notes / note_name("2025-11-28", "Mine", "thread_1", is_taken=is_taken)).mkdir()
    status, stdout, stderr = export(store, "--to", "markdown", notes)
    assert (status, stdout) == (1, "1 new, 0 changed, 0 unchanged\n")
    assert "thread_1: another file is called" in stderr
    assert "2025-11-28 Yours.md" in names(notes)


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("src/main.py: why?", "2025-11-28 src main.py why.md"),
        ("../../etc/passwd", "2025-11-28 etc passwd.md"),
        ("[[link]] #tag ^block", "2025-11-28 link tag block.md"),
        ("two\nlines\tand \x1b[31mred\u202e", "2025-11-28 two lines and 31mred.md"),
        ("dots...", "2025-11-28 dots.md"),
        ("Cafe\u0301", "2025-11-28 Café.md"),
        ("👩\u200d👩\u200d👧", "2025-11-28 👩\u200d👩\u200d👧.md"),
    ],
)
def test_a_name_is_one_that_every_system_takes(title: str, name: str) -> None:
    assert note_name("2025-11-28", title, "thread_1") == name


def test_a_title_of_which_no_name_is_left_gives_way_to_a_mark_of_the_id() -> None:
    assert note_name("", "???", "thread_1") == note_name("", "", "thread_1") == "(12c351ff).md"


@given(title=st.text(), thread_id=st.text(min_size=1))
def test_any_title_makes_a_name_within_limits(title: str, thread_id: str) -> None:
    for is_taken in (False, True):
        name = note_name("2025-11-28", title, thread_id, is_taken=is_taken)
        assert len(os.fsencode(name)) <= 150
        assert "/" not in name
        assert name.isprintable() or {"\u200c", "\u200d"} & {*name}


def test_a_thread_without_a_title_is_called_after_what_the_user_said_first(store: Path, notes: Path) -> None:
    add(store, "thread_1", message("assistant", "Hello."), message("user", "\nHow do bees\nsleep?"))
    add(store, "thread_2")
    exported(store, "--to", "markdown", notes)
    assert names(notes) == ["2025-11-28 How do bees.md", "2025-11-28 thread_2.md"]


def test_an_id_with_characters_that_cannot_be_printed_is_found_again(store: Path, notes: Path) -> None:
    add(store, "thread\u202e1", title="Turned")
    exported(store, "--to", "markdown", notes)
    assert exported(store, "--to", "markdown", notes) == "0 new, 0 changed, 1 unchanged\n"


def test_a_disk_that_takes_no_more_leaves_the_old_note_and_nothing_half(store: Path, notes: Path) -> None:
    add(store, "thread_1", message("user", "One."), title="One")
    exported(store, "--to", "markdown", notes)
    before = (notes / "2025-11-28 One.md").read_bytes()
    ThreadStore(store).append_lines("thread_1", [message("user", "x" * 100_000, CREATED_S + 5)])
    asked = ["prlimit", "--fsize=20000", *command("export", store, "--to", "markdown", notes)]
    ended = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert ended.stderr == f"threadfs: {notes}/2025-11-28 One.md: File too large\n"
    assert ended.returncode == 1
    assert names(notes) == ["2025-11-28 One.md"]
    assert (notes / "2025-11-28 One.md").read_bytes() == before


def test_what_a_killed_export_left_is_removed_and_nothing_else(store: Path, notes: Path) -> None:
    add(store, "thread_1", title="One")
    notes.mkdir()
    (notes / ".threadfs-tmp-0123456789abcdef").write_text("half")
    (notes / ".threadfs-tmp-of mine").write_text("whole")
    exported(store, "--to", "markdown", notes)
    assert names(notes) == [".threadfs-tmp-of mine", "2025-11-28 One.md"]


def test_two_exports_at_once_write_each_note_once(store: Path, notes: Path) -> None:
    for number in range(20):
        add(store, f"thread_{number}", message("user", "x"), title="Same")
    asked = command("export", store, "--to", "markdown", notes)
    both = [subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = {process.communicate()[0] for process in both}
    assert told == {"20 new, 0 changed, 0 unchanged\n", "0 new, 0 changed, 20 unchanged\n"}
    assert len(names(notes)) == 20


def test_a_damaged_thread_is_named_and_the_others_come(store: Path, notes: Path) -> None:
    add(store, "thread_1", title="One")
    add(store, "thread_2", title="Two")
    (store / "thread_1" / "meta.json").write_text("{")
    status, stdout, stderr = export(store, "--to", "markdown", notes)
    assert (status, stdout) == (1, "1 new, 0 changed, 0 unchanged\n")
    assert "thread thread_1: " in stderr


def test_a_directory_is_needed_and_a_thread_is_not_taken_for_one(store: Path, notes: Path) -> None:
    add(store, "thread_1")
    fails(threadfs("export", store, "--to", "markdown"), 2, "DIR is missing")
    fails(
        threadfs("export", store, "--to", "markdown", "thread_1"), 2, "DIR is missing", "thread_1 is a thread"
    )
    notes.write_text("")
    fails(threadfs("export", store, "--to", "markdown", notes), 1, f"{notes}: Not a directory")


def test_no_notes_are_written_into_the_store(store: Path) -> None:
    add(store, "thread_1", title="One")
    before = sorted(store.rglob("*"))
    for directory in (store, store / "notes", store / "thread_1" / "notes"):
        fails(threadfs("export", store, "--to", "markdown", directory), 2, "is in the store")
    assert sorted(store.rglob("*")) == before


def test_no_notes_are_written_into_a_mount(store: Path, notes: Path, tmp_path: Path) -> None:
    add(store, "thread_1", title="One")
    mount = start(store, tmp_path / "mnt", tmp_path / "log")
    try:
        notes.symlink_to(mount.path("drafts"))
        for place, directory in ((store, mount.root), (mount.root, mount.path("drafts")), (store, notes)):
            fails(
                threadfs("export", place, "--to", "markdown", directory), 2, f"is in the mount {mount.root}"
            )
        fails(threadfs("export", mount.root, "--to", "markdown", store / "notes"), 2, "is in the store")
        assert not list(mount.path("drafts").iterdir())
    finally:
        stop(mount)


def test_a_note_that_only_its_owner_may_read_stays_so(store: Path, notes: Path) -> None:
    add(store, "thread_1", title="One")
    exported(store, "--to", "markdown", notes)
    (note,) = notes.iterdir()
    note.chmod(0o600)
    ThreadStore(store).append_lines("thread_1", [message("user", "More.")])
    exported(store, "--to", "markdown", notes)
    assert note.stat().st_mode & 0o777 == 0o600
