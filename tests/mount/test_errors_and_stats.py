"""What the mount tells about itself: each refusal in words, and counters."""

from __future__ import annotations

import errno
import os
import re
from datetime import UTC, datetime

import pytest

from tests.mount.conftest import Mount
from tests.mount.scripts import new_run, new_thread, run, stats, succeeds

LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\t([^\t]+)\t(E[A-Z]+)\t([^\t]+)")


def last_error(mount: Mount) -> tuple[str, str, str]:
    """(path, errno name, reason) of the last refusal."""
    found = LINE.fullmatch(mount.errors().splitlines()[-1])
    assert found is not None, mount.errors()
    age_s = (datetime.now(UTC) - datetime.strptime(found[1], "%Y-%m-%dT%H:%M:%S%z")).total_seconds()
    assert -1 <= age_s < 60
    return found[2], found[3], found[4]


REFUSALS = [
    # script, path, errno, words of the reason
    (
        "echo complete > runs/R/status",
        "runs/R/status",
        "EINVAL",
        ["complete", "queued, in_progress", "completed"],
    ),
    ("echo '[1]' > runs/R/status", "runs/R/status", "EINVAL", ["JSON object"]),
    ("echo completed > runs/E/status", "runs/E/status", "EPERM", ["already ended", "failed"]),
    ("echo 1 > runs/E/cancel", "runs/E/cancel", "EPERM", ["already ended", "failed"]),
    ("printf '{' | tee meta.json", "meta.json", "EINVAL", ["JSON"]),
    ('echo \'{"object":"x"}\' | tee meta.json', "meta.json", "EINVAL", ["object", "cannot be patched"]),
    ("printf '\\377' | tee say > /dev/null", "say", "EINVAL", ["UTF-8"]),
    ("echo '[]' > start", "start", "EINVAL", []),
    (
        'echo \'{"role":"me","content":"x"}\' >> messages.jsonl',
        "messages.jsonl",
        "EINVAL",
        ["role", "user", "assistant"],
    ),
    ("truncate -s 5 messages.jsonl", "messages.jsonl", "EPERM", ["append only"]),
    ('rmdir ../"${PWD##*/}"', "", "EBUSY", ["in_progress"]),
    ("rmdir runs/P", "runs/P", "EBUSY", ["in_progress"]),
    ("rmdir runs/R/steps", "runs/R/steps", "ENOTEMPTY", ["rm -r"]),
    ("mkdir 'runs/a@b'", "runs/a@b", "EINVAL", ["@"]),
    ("mkdir sub", "sub", "EACCES", ["directory"]),
    ("mv runs/R runs/Q", "runs/Q", "EACCES", ["identity"]),
    ("ln meta.json hard", "hard", "EPERM", ["hard link", "cp"]),
    ("mkfifo fifo", "fifo", "EPERM", ["pipes"]),
    ("chown 12345 meta.json", "meta.json", "EPERM", ["mounted"]),
    ("mkdir .Trash-0", ".Trash-0", "EACCES", []),
]


@pytest.mark.parametrize(("script", "path", "code", "words"), REFUSALS, ids=[each[0] for each in REFUSALS])
def test_each_refusal_is_told_with_its_path_and_what_is_wrong(
    mount: Mount, script: str, path: str, code: str, words: list[str]
) -> None:
    thread = new_thread(mount)
    (thread / "say").write_text("hi")
    for name, status in (("R", "queued"), ("E", "failed"), ("P", "in_progress")):
        (thread / "runs" / name).mkdir()
        (thread / "runs" / name / "steps" / "S.json").write_text('{"step_type":"tool_calls"}')
        (thread / "runs" / name / "status").write_text(status)
    before = stats(mount)["refusals"]
    result = run(script, thread)
    assert result.returncode != 0
    told, name, reason = last_error(mount)
    assert (told, name) == (os.path.normpath(f"threads/{thread.name}/{path}"), code)
    for word in words:
        assert word in reason
    assert stats(mount)["refusals"] == before + 1


def test_a_refusal_that_echo_does_not_report_is_told_there(mount: Mount) -> None:
    thread = new_thread(mount)
    run("printf '{\"metadata\":' > meta.json", thread)
    assert last_error(mount)[:2] == (f"threads/{thread.name}/meta.json", "EINVAL")


def test_failed_lookups_are_not_told(mount: Mount) -> None:
    before = mount.errors()
    for path in ("threads/none", "threads/none/meta.json", "nothing", "runs/queued/a@b", ".Trash"):
        assert not mount.path(path).exists()
    assert mount.errors() == before


def test_what_succeeds_is_not_told(mount: Mount) -> None:
    before = mount.errors()
    thread = new_thread(mount)
    succeeds("echo hi > say && echo m > start && rm -r runs/* && cat messages.jsonl", thread)
    assert mount.errors() == before


def test_the_last_thousand_refusals_are_kept(mount: Mount) -> None:
    cancel = new_run(new_thread(mount), "completed") / "cancel"
    file = os.open(cancel, os.O_WRONLY)
    for _ in range(1010):
        with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
            os.write(file, b"1")
    os.close(file)
    lines = mount.errors().splitlines()
    assert len(lines) == 1000
    assert all(str(cancel.relative_to(mount.root)) in line for line in lines)


def test_a_name_with_control_characters_cannot_forge_a_line(mount: Mount) -> None:
    before = len(mount.errors().splitlines())
    with pytest.raises(OSError, match="Invalid argument"):
        mount.path("threads", "a\n2026-01-01T00:00:00Z\tx\tEIO\t\x1b[2J").mkdir()
    assert len(mount.errors().splitlines()) == min(1000, before + 1)
    assert "\x1b" not in mount.errors()


def test_the_list_of_refusals_has_its_exact_size_and_the_time_of_the_last(mount: Mount) -> None:
    shown = mount.path(".threadfs", "errors")
    before = shown.stat().st_mtime_ns
    run("mkdir threads/.x", mount.root)
    assert shown.stat().st_size == len(shown.read_bytes())
    assert shown.stat().st_mtime_ns > before


def test_counters_count(mount: Mount) -> None:
    thread = new_thread(mount)
    before = stats(mount)
    (thread / "say").write_text("hello")
    assert (thread / "messages.jsonl").read_text() == (thread / "messages.jsonl").read_text()
    run("echo no > meta.json", thread)
    after = stats(mount)
    grown = {name: after[name] - before[name] for name in before}
    assert grown["commits"] == grown["refusals"] == 1
    assert grown["written_bytes"] == len("hello")
    assert grown["operations"] >= 6
    assert grown["read_bytes"] >= (thread / "messages.jsonl").stat().st_size
    assert grown["cache_hits"] >= 1
    assert 0 <= after["uptime_seconds"] < 600
