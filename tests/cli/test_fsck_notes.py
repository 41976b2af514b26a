"""`threadfs fsck`: what is no damage, and that nothing this program does is any."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from tests.cli.conftest import OSLO, succeeds, threadfs
from tests.cli.damage import LOG, LONG_AGO, META, RUN, edit, edit_line
from tests.cli.test_fsck import every_file
from tests.mount.conftest import Mount


def test_a_message_of_a_run_that_is_not_there_is_a_note_that_a_repair_leaves_alone(household: Path) -> None:
    edit_line(household / LOG, 1, lambda line: line[:-1] + b',"run_id":"run_9"}')
    note = f"{LOG}: note: line 1: run_id: there is no run 'run_9' any more"
    before = every_file(household)
    assert succeeds(threadfs("fsck", household)) == f"{note}\n"
    assert succeeds(threadfs("fsck", household, "--repair")) == f"{note}\n"
    assert every_file(household) == before
    assert [json.loads(line) for line in succeeds(threadfs("fsck", household, "--json")).splitlines()] == [
        {"path": LOG, "severity": "note", "problem": "line 1: run_id: there is no run 'run_9' any more"}
    ]


def test_a_note_beside_damage_hides_no_damage(household: Path) -> None:
    edit_line(household / LOG, 1, lambda line: line[:-1] + b',"run_id":"run_9"}')
    edit(household / META, id=None)
    result = threadfs("fsck", household)
    assert (result.returncode, len(result.stdout.splitlines())) == (1, 2)
    assert threadfs("fsck", household, "--repair").returncode == 0
    assert len(succeeds(threadfs("fsck", household)).splitlines()) == 1


def test_after_runs_are_pruned_and_expired_the_store_is_sound(household: Path) -> None:
    for path in household.rglob("*"):
        os.utime(path, LONG_AGO)
    succeeds(threadfs("prune", household, "--older-than", "1d", "--status", "completed"))
    succeeds(threadfs("expire", household, "--older-than", "1d"))
    notes = succeeds(threadfs("fsck", household)).splitlines()
    assert notes
    assert all(": note: line " in note and " any more" in note for note in notes)


def test_after_all_that_can_be_done_in_a_mount_the_store_is_sound(mounted: Mount) -> None:
    thread = mounted.path("threads", OSLO)
    run_id, step = RUN, thread / "runs" / RUN / "steps" / "S.json"
    step.write_text('{"step_type":"message_creation","step_details":{"message_id":"msg_soon"}}')
    with (thread / "messages.jsonl").open("ab") as log:
        log.write(f'{{"role":"assistant","content":"Hm.","run_id":"{run_id}"}}\n'.encode())
    (thread / "say").write_text("And?")
    (thread / "start").write_text("llama3\n")
    (new,) = [
        run
        for run in (thread / "runs").iterdir()
        if json.loads((run / "status").read_bytes())["status"] == "queued"
    ]
    (new / "steps" / "S.json").write_text('{"type":"message_creation","step_details":{"message_id":"never"}}')
    (new / "cancel").write_text("x")
    shutil.rmtree(thread / "runs" / run_id)
    mounted.path("threads", "new").mkdir()
    mounted.path("threads", "new", "meta.json").write_text('{"metadata":null}')
    assert all(": note: " in line for line in succeeds(threadfs("fsck", mounted.store)).splitlines())
