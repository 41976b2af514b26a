"""``messages.jsonl``, which behaves like a file with ``chattr +a``: the same scripts in three shells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.mount.scripts import commits, contents, messages, new_thread, run, stored, succeeds, texts


@pytest.fixture
def thread(mount: Mount) -> Path:
    made = new_thread(mount)
    lines = [json.dumps({"role": "user", "content": text}) for text in ("one", "zwölf")]
    (made / "messages.jsonl").write_text("".join(line + "\n" for line in lines))
    return made


def short(text: str) -> str:
    return json.dumps({"role": "assistant", "content": text}, ensure_ascii=False)


def test_a_short_line_becomes_a_whole_message(mount: Mount, thread: Path, shell: str) -> None:
    succeeds(f"echo '{short('dreizehn: 13')}' >> messages.jsonl", thread, shell)
    message = messages(thread)[-1]
    assert message.pop("id").startswith("msg_")
    assert message.pop("created_at") > 0
    assert message == {
        "object": "thread.message",
        "thread_id": thread.name,
        "role": "assistant",
        "content": [{"type": "text", "text": {"value": "dreizehn: 13", "annotations": []}}],
    }
    log = thread / "messages.jsonl"
    assert log.read_bytes() == stored(mount, log).read_bytes()


@pytest.mark.parametrize(
    "script",
    [
        "echo '%s' >> messages.jsonl",
        "printf '%%s' '%s' >> messages.jsonl",
        "echo '%s' | tee -a messages.jsonl",
        "echo '%s' | dd of=messages.jsonl oflag=append conv=notrunc bs=7 status=none",
        "printf '\\n\\n%%s\\n\\n' '%s' >> messages.jsonl",
        "printf '%%s\\r\\n' '%s' >> messages.jsonl",
    ],
)
def test_every_way_to_append_adds_one_message(mount: Mount, thread: Path, shell: str, script: str) -> None:
    before, commits_before = (thread / "messages.jsonl").read_bytes(), commits(mount)
    succeeds(script % short("grün"), thread, shell)
    assert (thread / "messages.jsonl").read_bytes().startswith(before)
    assert texts(thread) == ["one", "zwölf", "grün"]
    assert commits(mount) == commits_before + 1


def test_a_line_counts_as_soon_as_it_is_complete(thread: Path, shell: str) -> None:
    script = f"""
        exec 3>> messages.jsonl
        printf '%s\\n%s' '{short("three")}' '{{"role":"user",' >&3; wc -l < messages.jsonl
        printf '%s\\n' '"content":"four"}}' >&3; wc -l < messages.jsonl
    """
    assert succeeds(script, thread, shell).split() == ["3", "4"]
    assert texts(thread)[2:] == ["three", "four"]


@pytest.mark.parametrize(
    "script",
    [
        "cp messages.jsonl /tmp/$$ && echo '%s' >> /tmp/$$ && cp /tmp/$$ messages.jsonl; rm /tmp/$$",
        "cp messages.jsonl /tmp/$$ && echo '%s' >> /tmp/$$ && mv -f /tmp/$$ messages.jsonl",
        "cp messages.jsonl tmp.new && echo '%s' >> tmp.new && mv tmp.new messages.jsonl",
        "old=$(cat messages.jsonl); printf '%%s\\n' \"$old\" '%s' > messages.jsonl",
        "jq -c . messages.jsonl > tmp.a && echo '%s' >> tmp.a && cat tmp.a > messages.jsonl && rm tmp.a",
        "jq -c 'del(.id, .created_at)' messages.jsonl > tmp.a; echo '%s' >> tmp.a; mv tmp.a messages.jsonl",
        "sed -i '$a %s' messages.jsonl",
        "{ cat messages.jsonl; echo '%s'; } > tmp.new; rsync --inplace tmp.new messages.jsonl && rm tmp.new",
    ],
)
def test_a_rewrite_that_repeats_the_log_appends_what_follows(thread: Path, shell: str, script: str) -> None:
    before = (thread / "messages.jsonl").read_bytes()
    succeeds(script % short("drei"), thread, shell)
    assert (thread / "messages.jsonl").read_bytes().startswith(before)
    assert texts(thread) == ["one", "zwölf", "drei"]


@pytest.mark.parametrize(
    "script",
    [
        "cp messages.jsonl tmp.a; cat tmp.a > messages.jsonl",
        "cp messages.jsonl tmp.a && cp tmp.a messages.jsonl",
        "cp messages.jsonl tmp.a && mv tmp.a messages.jsonl",
        "sed -i 's/nothing/else/' messages.jsonl",
        "touch messages.jsonl",
        "truncate -s $(stat -c %s messages.jsonl) messages.jsonl",
    ],
)
def test_a_rewrite_of_the_same_changes_nothing(mount: Mount, thread: Path, shell: str, script: str) -> None:
    before, commits_before = contents(mount.store), commits(mount)
    succeeds(f"{script}; rm -f a", thread, shell)
    assert contents(mount.store) == before
    assert commits(mount) == commits_before


@pytest.mark.parametrize(
    "script",
    [
        "sed s/one/two/ messages.jsonl > tmp.a; cat tmp.a > messages.jsonl",
        "sed s/one/two/ messages.jsonl > tmp.a; mv tmp.a messages.jsonl",
        "sed s/one/two/ messages.jsonl > tmp.a; cp tmp.a messages.jsonl",
        "sed -i s/one/two/ messages.jsonl",
        "head -n 1 messages.jsonl > tmp.a; cp tmp.a messages.jsonl",
        "tail -n 1 messages.jsonl > tmp.a; cp tmp.a messages.jsonl",
        "truncate -s 10 messages.jsonl",
        "truncate -s 10M messages.jsonl",
        "truncate -s +1 messages.jsonl",
        "printf X | dd of=messages.jsonl conv=notrunc seek=3 bs=1 status=none",
    ],
)
def test_a_rewrite_that_changes_the_log_is_refused(
    mount: Mount, thread: Path, shell: str, script: str
) -> None:
    before = contents(mount.store)
    result = run(script, thread, shell)
    assert result.stderr.count("not permitted") == 1
    assert result.returncode != 0
    assert contents(mount.store) == before
    assert "messages.jsonl" in os.listdir(thread)


def test_a_rewrite_that_stops_short_changes_nothing_and_is_in_the_errors(
    mount: Mount, thread: Path, shell: str
) -> None:
    # dash has the file open while cat runs, and like any shell it ignores what its own close says.
    before = contents(mount.store)
    result = run("head -n 1 messages.jsonl > tmp.a; cat tmp.a > messages.jsonl", thread, shell)
    assert (result.returncode == 0) == (shell == "dash")
    assert contents(mount.store) == before
    assert mount.errors().splitlines()[-1].endswith("the rewrite leaves messages out")


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        '{"role":"robot","content":"x"}',
        '{"role":"user"}',
        '{"role":"user","content":1}',
    ],
)
def test_a_line_that_is_no_message_is_refused(mount: Mount, thread: Path, shell: str, line: str) -> None:
    before = contents(mount.store)
    result = run(f"echo '{line}' >> messages.jsonl", thread, shell)
    assert result.returncode != 0
    assert contents(mount.store) == before
    assert "\tEINVAL\t" in mount.errors().splitlines()[-1]


WRITER = """
import json, os, sys
log, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
out = os.open(log, os.O_WRONLY | os.O_APPEND)
for number in range(count):
    text = f"{name} {number} " + "ü" * number * 50
    data = json.dumps({"role": "user", "content": text}, ensure_ascii=False).encode() + b"\\n"
    middle = len(data) * (number + 1) // (count + 2)
    os.write(out, data[:middle])
    os.write(out, data[middle:])
"""


def test_lines_of_several_writers_never_mix(mount: Mount, thread: Path) -> None:
    names, count = ["a", "b", "c", "d"], 25
    command = [sys.executable, "-c", WRITER, str(thread / "messages.jsonl")]
    writers = [subprocess.Popen([*command, name, str(count)]) for name in names]
    assert [writer.wait(60) for writer in writers] == [0] * len(names)
    said = [text.split()[:2] for text in texts(thread)[2:]]
    assert len(said) == len(names) * count
    for name in names:
        assert [int(number) for who, number in said if who == name] == list(range(count))
