"""Threads out of the mount and back in: copies, backups, restored ones, clones. No warning, status 0."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.mount.scripts import commits, contents, document, make_older, new_run, new_thread, run, succeeds

CONTROLS = ("say", "ask", "start", "cancel")


@pytest.fixture
def thread(mount: Mount, tmp_path: Path) -> str:
    """The id of a thread with messages, and a run of each status with steps."""
    name = f"Ostsee {tmp_path.name}"
    made = mount.path("threads", name)
    made.mkdir()
    (made / "say").write_text("wohin?\n\n")
    (made / "messages.jsonl").open("a").write('{"role":"assistant","content":"ans Meer ⛵"}\n')
    for status in ("queued", "in_progress", "requires_action", "completed", "cancelled", "failed", "expired"):
        each = new_run(made, "in_progress")
        (each / "steps" / f"{status}.json").write_text('{"step_type":"tool_calls","usage":{"n":1e3}}')
        (each / "status").write_text(status)
    make_older(made)
    return name


def canonical(directory: Path) -> dict[str, bytes]:
    """What a copy of a thread holds, named as in the store. Control files are empty."""
    held = contents(directory)
    for name in list(held):
        if os.path.basename(name) in CONTROLS:
            assert held.pop(name) == b""
        elif name.endswith("/status"):
            held[f"{name}.json"] = held.pop(name)
    return held


OUT = {
    "cp -r": 'cp -r "$FROM" "$TO"',
    "cp -a": 'cp -a "$FROM" "$TO"',
    "rsync -a": 'rsync -a "$FROM/" "$TO/"',
    "tar": 'mkdir "$TO" && tar -C "$FROM" -cf - . | tar -C "$TO" -xf -',
    "cpio-like find": 'mkdir "$TO" && cd "$FROM" && find . -type d -exec mkdir -p "$TO/{}" \\; '
    '&& find . -type f -exec cp -p {} "$TO/{}" \\;',
}


def copy(script: str, source: Path, target: Path, cwd: Path) -> None:
    succeeds(f"FROM='{source}'; TO='{target}'; {script}", cwd)


@pytest.mark.parametrize("how", OUT)
def test_a_thread_copies_out_byte_for_byte(mount: Mount, thread: str, tmp_path: Path, how: str) -> None:
    copy(OUT[how], mount.path("threads", thread), tmp_path / "copy", tmp_path)
    assert canonical(tmp_path / "copy") == contents(mount.store / thread)


def backup(mount: Mount, thread: str, place: Path) -> Path:
    copied = place / "copy"
    copy(OUT["cp -a"], mount.path("threads", thread), copied, place)
    return copied


def remove(mount: Mount, thread: str) -> None:
    """Runs in progress are ended, then everything is removed."""
    for made in mount.path("threads", thread, "runs").iterdir():
        if document(made / "status")["status"] in ("in_progress", "requires_action"):
            (made / "cancel").write_text("1")
    succeeds(f"rm -r '{thread}'", mount.path("threads"))


@pytest.mark.parametrize("how", OUT)
def test_a_deleted_thread_comes_back_through_drafts_with_the_same_bytes(
    mount: Mount, thread: str, tmp_path: Path, how: str
) -> None:
    before, copied = contents(mount.store / thread), backup(mount, thread, tmp_path)
    remove(mount, thread)
    copy(OUT[how], copied, mount.path("drafts", thread), tmp_path)
    commits_before = commits(mount)
    succeeds(f"mv 'drafts/{thread}' threads/", mount.root)
    assert contents(mount.store / thread) == before
    assert commits(mount) == commits_before + 1
    assert os.listdir(mount.path("drafts")) == []


INTO = {
    "rsync -a": 'rsync -a "$FROM/" "$TO/"',
    "rsync -a --inplace": 'rsync -a --inplace "$FROM/" "$TO/"',
    "tar": 'mkdir -p "$TO" && tar -C "$FROM" -cf - . | tar -C "$TO" -xf -',
}
OVER = {**INTO, "cp -a": 'cp -a "$FROM/." "$TO/"', "cp -rf": 'cp -rf "$FROM/." "$TO/"'}


@pytest.mark.parametrize("how", INTO)
def test_a_deleted_thread_comes_back_into_one_that_exists_with_the_same_bytes(
    mount: Mount, thread: str, tmp_path: Path, how: str
) -> None:
    before, copied = contents(mount.store / thread), backup(mount, thread, tmp_path)
    remove(mount, thread)
    copy(INTO[how], copied, mount.path("threads", thread), tmp_path)
    assert contents(mount.store / thread) == before


@pytest.mark.parametrize("how", OVER)
def test_copying_a_thread_onto_itself_a_second_time_changes_nothing(
    mount: Mount, thread: str, tmp_path: Path, how: str
) -> None:
    copied = backup(mount, thread, tmp_path)
    before = contents(mount.store)
    for _ in range(2):
        copy(OVER[how], copied, mount.path("threads", thread), tmp_path)
        assert contents(mount.store) == before


def test_a_second_rsync_has_nothing_to_do(mount: Mount, thread: str, tmp_path: Path) -> None:
    copied = backup(mount, thread, tmp_path)
    assert succeeds(f"rsync -ai '{copied}/' 'threads/{thread}/'", mount.root) == ""
    assert succeeds(f"rsync -ai 'threads/{thread}/' '{copied}/'", mount.root) == ""


@pytest.mark.parametrize("how", INTO)
def test_a_copy_under_another_id_is_a_valid_clone_with_its_own_ids(
    mount: Mount, thread: str, tmp_path: Path, how: str
) -> None:
    copied = backup(mount, thread, tmp_path)
    clone = f"{thread} II"
    copy(INTO[how], copied, mount.path("threads", clone), tmp_path)
    assert_is_clone(mount, thread, clone)


def test_a_draft_moved_to_another_id_is_a_valid_clone_with_its_own_ids(mount: Mount, thread: str) -> None:
    succeeds(f"cp -r 'threads/{thread}' drafts/new && mv drafts/new 'threads/{thread} II'", mount.root)
    assert_is_clone(mount, thread, f"{thread} II")


def assert_is_clone(mount: Mount, thread: str, clone: str) -> None:
    original, copied = contents(mount.store / thread), contents(mount.store / clone)
    assert copied.keys() == original.keys()
    for name, data in original.items():
        for line, copied_line in zip(data.split(b"\n\n"), copied[name].split(b"\n\n"), strict=True):
            assert copied_line == line.replace(thread.encode(), clone.encode()), name
    for link in mount.path("runs").glob(f"*/*@{clone}"):
        assert document(link / "status")["thread_id"] == clone


def test_a_run_is_not_queued_before_all_of_its_thread_is_there(
    mount: Mount, thread: str, tmp_path: Path
) -> None:
    copied = backup(mount, thread, tmp_path)
    queued = set(os.listdir(mount.path("runs", "queued")))
    succeeds(f"cp -r '{copied}' drafts/later", mount.root)
    assert set(os.listdir(mount.path("runs", "queued"))) == queued
    succeeds("mv drafts/later threads/", mount.root)
    (new,) = set(os.listdir(mount.path("runs", "queued"))) - queued
    assert new.endswith("@later")
    remove(mount, "later")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("echo '{' > meta.json", "meta.json"),
        ("echo '[]' > messages.jsonl", "messages.jsonl:1"),
        ("echo nonsense >> messages.jsonl", "messages.jsonl:3"),
        ("mkdir runs/empty", "status"),
        ("echo '{}' > runs/stray", "runs/stray"),
        ("mkdir -p 'runs/a@b' && echo '{}' > 'runs/a@b/status'", "a@b"),
        ('for s in runs/*/status; do echo \'{"status":"no"}\' > "$s"; done', "status"),
        ('for s in runs/*/steps; do echo x > "$s/x.json"; done', "steps/x.json"),
        ('for s in runs/*/steps; do echo x > "$s/x.txt"; done', "x.txt"),
        ("echo x > notes.txt", "notes.txt"),
        ("echo x > say", "say"),
        ("mkdir sub", "sub"),
        ("ln -s meta.json link", "link"),
    ],
)
def test_a_draft_with_something_wrong_is_refused_whole_and_stays(mount: Mount, spoil: str, said: str) -> None:
    thread = new_thread(mount)
    (thread / "messages.jsonl").write_text('{"role":"user","content":"one"}\n' * 2)
    new_run(thread)
    succeeds(f"rm -rf drafts/bad && cp -r 'threads/{thread.name}' drafts/bad", mount.root)
    succeeds(spoil, mount.path("drafts", "bad"))
    before, drafted = contents(mount.store), contents(mount.path("drafts", "bad"))
    result = run("mv drafts/bad threads/", mount.root)
    assert (result.returncode, "Bad message" in result.stderr) == (1, True), result
    assert said in mount.errors().splitlines()[-1]
    assert contents(mount.store) == before
    assert contents(mount.path("drafts", "bad")) == drafted
    succeeds("rm -r drafts/bad", mount.root)


def test_a_draft_is_refused_while_a_file_in_it_is_open_for_writing(mount: Mount, thread: str) -> None:
    succeeds(f"cp -r 'threads/{thread}' drafts/open", mount.root)
    with mount.path("drafts", "open", "messages.jsonl").open("a"):
        assert "busy" in run("mv drafts/open threads/", mount.root).stderr
    succeeds("rm -r drafts/open", mount.root)


def test_a_draft_does_not_replace_a_thread(mount: Mount, thread: str) -> None:
    succeeds(f"cp -r 'threads/{thread}' drafts/", mount.root)
    before = contents(mount.store)
    result = run(f"mv -T 'drafts/{thread}' 'threads/{thread}'", mount.root)
    assert "exists" in result.stderr or "not empty" in result.stderr, result
    assert contents(mount.store) == before
    succeeds(f"rm -r 'drafts/{thread}'", mount.root)


def test_a_raw_copy_of_the_store_is_a_draft_too(mount: Mount, thread: str) -> None:
    succeeds(f"cp -r '{mount.store}/{thread}' drafts/raw && mv drafts/raw threads/", mount.root)
    assert_is_clone(mount, thread, "raw")
    remove(mount, "raw")


def test_a_thread_is_built_by_hand_in_drafts(mount: Mount) -> None:
    script = """
        mkdir -p drafts/built/runs/first && cd drafts/built && echo '{"created_at":1}' > meta.json &&
        echo '{"role":"user","content":"hi"}' > messages.jsonl &&
        echo '{"created_at":2,"status":"queued","model":"m"}' > runs/first/status &&
        cd ../.. && mv drafts/built threads/ && jq -r .content[0].text.value threads/built/messages.jsonl &&
        jq -r .status threads/built/runs/first/status && rm -r threads/built
    """
    assert succeeds(script, mount.root) == "hi\nqueued\n"


def test_a_thread_cannot_be_moved_into_drafts(mount: Mount, thread: str) -> None:
    before = contents(mount.store)
    with pytest.raises(PermissionError):
        mount.path("threads", thread).rename(mount.path("drafts", "x"))
    assert contents(mount.store) == before
