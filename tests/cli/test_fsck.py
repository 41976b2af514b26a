"""`threadfs fsck`: a store that was damaged on purpose, in every way that there is."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from random import Random

import pytest

from store import ThreadStore
from store.checking import Finding, Problem, Severity
from store.disk import checking
from store.disk.leftovers import ASIDE
from store.disk.repairing import Repair
from store.errors import StorageFailed
from tests.cli.conftest import OSLO, RUNNING, Result, command, succeeds, threadfs
from tests.cli.damage import (
    DAMAGES,
    LOG,
    META,
    RUN,
    STATUS,
    STEP_FILE,
    Damage,
    edit,
    edit_line,
    leave,
)
from tests.mount.conftest import Mount, wait_until
from threadfs.cli import main


@pytest.fixture(params=DAMAGES, ids=[damage.name for damage in DAMAGES])
def damage(request: pytest.FixtureRequest, household: Path, monkeypatch: pytest.MonkeyPatch) -> Damage:
    monkeypatch.setattr(checking, "MOMENT_S", 0.0)
    damaged: Damage = request.param
    damaged.make(household)
    return damaged


def every_file(store: Path) -> dict[str, bytes]:
    """The bytes of all files below *store*, by path."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def found_in(directory: Path) -> list[tuple[str, str, str]]:
    """What is damaged; notes are of none."""
    store = ThreadStore(directory)
    findings = [finding for place in checking.places(store) for finding in checking.check_place(store, place)]
    findings += checking.find_leftovers(store)
    return [
        (finding.path, finding.severity.value, finding.what)
        for finding in findings
        if finding.severity is not Severity.NOTE
    ]


def repaired(directory: Path) -> None:
    store = ThreadStore(directory)
    repair = Repair(store)
    for _ in range(5):
        for place in checking.places(store):
            for finding in checking.check_place(store, place):
                done = repair.mend(finding)
                assert done or finding.problem in (Problem.DUPLICATE, Problem.LINE_REFERENCE)
        for finding in checking.find_leftovers(store):
            assert repair.mend(finding)


def test_damage_is_found_with_its_path_and_severity(household: Path, damage: Damage) -> None:
    assert any(
        (path, severity) == (damage.path, damage.severity) and damage.words in what
        for path, severity, what in found_in(household)
    ), found_in(household)


def test_after_a_repair_nothing_is_wrong(household: Path, damage: Damage) -> None:
    repaired(household)
    assert found_in(household) == []


def test_a_repair_loses_no_byte_of_any_document(household: Path, damage: Damage) -> None:
    before = every_file(household)
    repaired(household)
    kept = b"\0".join(every_file(household).values())
    for content in before.values():
        # Of a log, the lines: in the store, or aside.
        for piece in content.split(b"\n") if b'"thread.message"' in content else [content]:
            assert piece in kept


def test_the_rest_of_the_store_is_not_touched_by_a_repair(household: Path, damage: Damage) -> None:
    others = {path: data for path, data in every_file(household).items() if path.startswith("thread_")}
    repaired(household)
    assert others == {
        path: data for path, data in every_file(household).items() if path.startswith("thread_")
    }


# ── The command ─────────────────────────────────────────────────────────────────────────────────────────


# Of the message that names the run which a repair has set aside.
NOTE_OF_RUN = f"{LOG}: note: line 2: run_id: there is no run {RUN!r} any more"


def all_damaged(household: Path) -> None:
    """Four kinds of damage in as many threads, with a run aside that leaves a message naming it."""
    ids = sorted(path.name for path in household.glob("thread_*"))
    edit_line(household / ids[0] / "messages.jsonl", 1, lambda _: b"?")
    (household / ids[1] / "meta.json").unlink()
    (household / STATUS).write_text("{")
    edit_line(household / LOG, 2, lambda line: line[:-1] + f',"run_id":"{RUN}"}}'.encode())
    leave(household / ".tmpAb12Cd")


def test_a_sound_store_has_no_findings(household: Path) -> None:
    assert succeeds(threadfs("fsck", household)) == ""


def test_findings_are_lines_of_path_severity_and_problem_and_the_status_is_1(household: Path) -> None:
    edit(household / META, created_at=None)
    result = threadfs("fsck", household)
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout == f"{META}: error: created_at: missing\n"


def test_json_findings_have_path_severity_and_problem(household: Path) -> None:
    edit(household / META, created_at=None)
    result = threadfs("fsck", household, "--json")
    assert result.returncode == 1
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"path": META, "severity": "error", "problem": "created_at: missing"}
    ]


def test_a_message_whose_id_is_taken_is_a_warning_that_a_repair_leaves_alone(household: Path) -> None:
    log = household / LOG
    first = log.read_bytes().splitlines()[0]
    with log.open("ab") as appending:
        appending.write(first + b"\n")
    number = log.read_bytes().count(b"\n")
    warning = f"{LOG}: warning: line {number}: id: there is a message {json.loads(first)['id']!r} before"
    for options, outcome in (([], ""), (["--repair"], " (cannot be repaired)")):
        before = every_file(household)
        result = threadfs("fsck", household, *options)
        assert (result.returncode, result.stdout) == (1, f"{warning}{outcome}\n")
        assert every_file(household) == before


def test_ids_of_more_messages_than_memory_is_for_are_not_compared(
    household: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = household / LOG
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines, lines[0], lines[1]]))
    monkeypatch.setattr("store.checking.MAX_COMPARED", 1)
    assert len(found_in(household)) == 1


def test_without_repair_the_store_stays_as_it_is(household: Path) -> None:
    all_damaged(household)
    before = every_file(household)
    assert threadfs("fsck", household).returncode == 1
    assert every_file(household) == before


def test_repair_says_what_it_did_and_exits_like_the_fsck_after_it(household: Path) -> None:
    all_damaged(household)
    repair = threadfs("fsck", household, "--repair")
    assert (repair.returncode, repair.stderr) == (0, "")
    notes = [line for line in repair.stdout.splitlines() if ": note: " in line]
    repairs = [line for line in repair.stdout.splitlines() if line not in notes]
    assert len(repairs) == 4
    assert all(line.endswith(")") for line in repairs)
    assert succeeds(threadfs("fsck", household)).splitlines() == notes == [NOTE_OF_RUN]
    assert (household / ASIDE / OSLO / "runs" / RUN / "status.json").read_text() == "{"


def test_what_cannot_be_repaired_is_said_and_remains(
    household: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(repair: Repair, finding: Finding) -> str:
        raise StorageFailed(errno.EROFS, finding.path)

    monkeypatch.setattr(Repair, "mend", failing)
    (household / META).write_text("{")
    assert main(["fsck", "--repair", str(household)]) == 1
    said, complained = capsys.readouterr()
    assert said.startswith(f"{META}: error: not JSON")
    assert said.endswith("(cannot be repaired)\n")
    assert complained == f"threadfs: {META}: Read-only file system, so {META} cannot be repaired\n"


def test_a_damaged_thread_keeps_its_messages_when_it_gets_a_new_document(household: Path) -> None:
    (household / META).write_text("{")
    messages = [message.text for message in ThreadStore(household).iter_messages(OSLO)]
    repaired(household)
    store = ThreadStore(household)
    assert store.get_thread(OSLO).created_at == 1766995220  # that of its first message
    assert [message.text for message in store.iter_messages(OSLO)] == messages


def test_what_of_a_damaged_document_can_be_kept_is_kept(household: Path) -> None:
    edit(household / META, created_at="yesterday", metadata={"a": 1}, color="red")
    repaired(household)
    assert json.loads((household / META).read_bytes())["metadata"] == {"a": 1}
    assert json.loads((household / META).read_bytes())["color"] == "red"


def test_a_whole_message_that_lacks_only_its_newline_is_a_message_again(household: Path) -> None:
    before = (household / LOG).read_bytes()
    (household / LOG).write_bytes(before[:-1])
    repaired(household)
    assert (household / LOG).read_bytes() == before


def test_a_repaired_log_is_the_same_file_so_that_nobody_appends_to_another(household: Path) -> None:
    edit_line(household / LOG, 2, lambda _: b"?")
    with (household / LOG).open("ab") as program:
        repaired(household)
        program.write(b'{"id":"m","created_at":1,"role":"user","content":[]}\n')
    assert [message.id for message in ThreadStore(household).iter_messages(OSLO)][-1] == "m"


def test_a_temporary_file_of_a_program_that_may_live_is_left(household: Path) -> None:
    (household / OSLO / ".tmpAb12Cd").write_text("half")
    assert succeeds(threadfs("fsck", household, "--repair")) == ""


def test_foreign_files_are_neither_found_nor_touched(household: Path) -> None:
    (household / "notes.txt").write_text("mine")
    (household / "empty").mkdir()
    (household / OSLO / "notes").mkdir()
    (household / OSLO / "runs" / "notes.txt").write_text("mine")
    (household / "link").symlink_to(household / OSLO)
    assert succeeds(threadfs("fsck", household, "--repair")) == ""


def test_a_step_in_progress_may_name_a_message_that_is_yet_to_come(household: Path) -> None:
    thread_id, run_id = RUNNING
    step = next((household / thread_id / "runs" / run_id / "steps").iterdir())
    edit(step, status="in_progress", completed_at=None, step_details={"message_id": "msg_soon"})
    assert succeeds(threadfs("fsck", household)) == ""


@pytest.mark.parametrize("status", ["in_progress", "cancelled", "failed", "expired"])
def test_a_step_that_has_not_completed_may_name_a_message_that_never_came(
    household: Path, status: str
) -> None:
    edit(household / STEP_FILE, status=status, step_details={"message_id": "msg_never"})
    assert succeeds(threadfs("fsck", household)) == ""


def test_a_step_that_names_no_message_refers_to_none(household: Path) -> None:
    details = {"type": "message_creation", "message_creation": {"message_id": ""}}
    edit(household / STEP_FILE, step_details=details)
    assert succeeds(threadfs("fsck", household)) == ""


def test_a_missing_store_is_said_and_not_made(tmp_path: Path) -> None:
    result = threadfs("fsck", tmp_path / "none")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"threadfs: {tmp_path}/none: {os.strerror(errno.ENOENT)}\n"
    assert not (tmp_path / "none").exists()


def test_a_repair_shows_in_a_mount_of_the_store(mounted: Mount) -> None:
    edit_line(mounted.store / LOG, 2, lambda _: b"?")
    succeeds(threadfs("fsck", mounted.store, "--repair"))
    wait_until(lambda: b"\n?\n" not in mounted.path("threads", OSLO, "messages.jsonl").read_bytes())


def test_a_store_in_use_is_sound_all_the_time(household: Path) -> None:
    """A writer that makes, changes and deletes whatever it can, while fsck looks again and again."""
    script = f"""
import itertools, sys
from store import *
store = ThreadStore({str(household)!r})
for n in itertools.count():
    store.create_thread(Thread(id="T"))
    store.create_run("T", Run(id="R"))
    store.append_message("T", ThreadMessage(role="assistant", content=[], run_id="R"))
    made = {{"message_id": store.list_messages("T")[0].id}}
    store.append_step("T", "R", RunStep(status="completed", step_details=made))
    store.update_run_status("T", "R", RunStatus.completed)
    store.delete_thread("T")
"""
    writer = subprocess.Popen([command()[0], "-c", script], cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            assert found_in(household) == []
            assert writer.poll() is None
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()


def test_an_interrupted_repair_can_be_run_again(household: Path) -> None:
    all_damaged(household)
    process = subprocess.Popen(command("fsck", household, "--repair"), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    result: Result = threadfs("fsck", household, "--repair")
    assert result.returncode == 0
    assert succeeds(threadfs("fsck", household)).splitlines() == [NOTE_OF_RUN]


# ── Damage that nobody thought of ───────────────────────────────────────────────────────────────────────


def damage_at_random(store: Path, random: Random) -> None:
    """Does to some file or directory what no program would do."""
    path = random.choice(sorted(store.rglob("*")))
    names = [
        "a@b",
        "x.json",
        ".tmpAb12Cd",
        "z\n",
        "runs",
        "steps",
        "meta.json",
        "messages.jsonl",
        "status.json",
    ]
    what = random.randrange(6)
    with contextlib.suppress(OSError):
        if what == 0:
            path.rename(path.with_name(random.choice(names)))
        elif what == 1:
            path.rename(path.with_name("moved"))
            if random.randrange(2):
                os.mkfifo(path)
            else:
                path.symlink_to("/")
        elif path.is_file():
            data = path.read_bytes()
            at = random.randrange(len(data) + 1)
            damaged = [data[:at], data[:at] + random.randbytes(9) + data[at:], data[:at] + bytes(9), data * 2]
            path.write_bytes(damaged[what - 2])


@pytest.mark.parametrize("seed", range(40))
def test_damage_at_random_is_repaired_without_loss(
    household: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(checking, "MOMENT_S", 0.0)
    random = Random(seed)
    for _ in range(4):
        damage_at_random(household, random)
    before = every_file(household)
    repaired(household)
    # A log that was doubled stays so.
    assert [what for _, _, what in found_in(household) if "there is a message" not in what] == []
    kept = b"\0".join(every_file(household).values())
    for path, content in before.items():
        for piece in content.split(b"\n") if path.endswith(".jsonl") else [content]:
            assert piece in kept
