"""`threadfs fsck`: lines of a log in which there is no room for what they lack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import succeeds, threadfs
from tests.cli.damage import LOG, STEP_FILE, edit_line
from tests.cli.test_fsck import found_in, repaired


def without_thread(line: bytes) -> bytes:
    message = json.loads(line)
    del message["thread_id"]
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def messages_in(household: Path) -> list[dict[str, Any]]:
    """What another program of this format would read."""
    return [json.loads(line) for line in (household / LOG).read_bytes().splitlines() if line.strip()]


@pytest.mark.parametrize("numbers", [(1,), (2, 3), (1, 2, 3, 4)])
def test_messages_that_a_repair_completes_stay_in_their_order(
    household: Path, numbers: tuple[int, ...]
) -> None:
    before = messages_in(household)
    for number in numbers:
        edit_line(household / LOG, number, without_thread)
    said = succeeds(threadfs("fsck", household, "--repair")).splitlines()
    assert [line.split(" (")[0] for line in said] == [
        f"{LOG}: error: line {number}: thread_id: missing" for number in numbers
    ]
    assert all("(set right " in line for line in said)
    assert messages_in(household) == before
    assert succeeds(threadfs("fsck", household)) == ""


def test_a_step_keeps_the_message_that_was_moved_behind_the_others(
    household: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that what is moved has gone from its place before it is read there.
    monkeypatch.setattr("store.lines._CHUNK_BYTES", 100)
    before = (household / STEP_FILE).read_bytes()
    edit_line(household / LOG, 1, without_thread)
    repaired(household)
    assert (household / STEP_FILE).read_bytes() == before
    assert found_in(household) == []


def test_a_log_without_an_end_whose_first_message_is_completed_keeps_them_all(household: Path) -> None:
    before = messages_in(household)
    edit_line(household / LOG, 1, without_thread)
    (household / LOG).write_bytes((household / LOG).read_bytes()[:-1])
    assert threadfs("fsck", household, "--repair").returncode == 0
    assert messages_in(household) == before


def test_a_log_of_which_every_message_lacks_its_thread_is_appended_once(household: Path) -> None:
    lines = [without_thread(line) for line in (household / LOG).read_bytes().splitlines()] * 200
    numbered = [line.replace(b'"id":"', b'"id":"%d_' % number, 1) for number, line in enumerate(lines)]
    (household / LOG).write_bytes(b"".join(line + b"\n" for line in numbered))
    size = (household / LOG).stat().st_size
    repaired(household)
    assert len(messages_in(household)) == len(lines)
    assert (household / LOG).stat().st_size < 3 * size
