"""A clock that is set back and forward while a store is mounted: by libfaketime, for the mount alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import Run, RunStatus, ThreadStore
from tests.attacks.conftest import attacked, told
from tests.mount.conftest import Mount, wait_until

HOUR_S = 3600

pytestmark = pytest.mark.alone


class Clock:
    """That of a mount; the one that timers go by runs on."""

    def __init__(self, offset: Path) -> None:
        self._offset = offset
        self.set(0)

    def set(self, seconds: int) -> None:
        """So much ahead of the machine's."""
        temporary = self._offset.with_suffix(".new")
        temporary.write_text(f"{seconds:+d}s\n")
        temporary.rename(self._offset)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    for name, value in {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "offset"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    return Clock(tmp_path / "offset")


@pytest.fixture
def mount(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    with attacked(tmp_path) as mounted:
        # Only the mount was to be told another time.
        monkeypatch.delenv("LD_PRELOAD")
        mounted.path("threads", "a").mkdir()
        yield mounted


def say(mount: Mount, text: str) -> None:
    mount.path("threads", "a", "say").write_text(text)


def test_messages_keep_the_order_in_which_they_were_said(mount: Mount, clock: Clock) -> None:
    for offset_s, text in ((0, "one"), (-HOUR_S, "two"), (HOUR_S, "three"), (0, "four")):
        clock.set(offset_s)
        say(mount, text)
    assert told(mount.store, "a") == ["one", "two", "three", "four"]
    times = [message.created_at for message in ThreadStore(mount.store).list_messages("a")]
    assert times[1] < times[0] < times[2], "the clock was another one"
    transcript = mount.path("transcripts", "a.md").read_text()
    places = [transcript.index(f"\n{text}\n") for text in ("one", "two", "three", "four")]
    assert places == sorted(places)


@pytest.mark.parametrize("offset_s", [-HOUR_S, HOUR_S])
def test_what_changes_after_the_clock_was_set_shows_at_once(
    mount: Mount, clock: Clock, offset_s: int
) -> None:
    run = mount.path("threads", "a", "runs", "r")
    run.mkdir()
    assert '"queued"' in (run / "status").read_text()
    clock.set(offset_s)
    (run / "cancel").write_text("1")
    assert '"cancelled"' in (run / "status").read_text()
    say(mount, "here")
    assert "here" in mount.path("threads", "a", "messages.jsonl").read_text()
    ThreadStore(mount.store).create_run("a", Run(id="s", status=RunStatus.failed))
    wait_until(lambda: mount.path("runs", "failed", "s@a").is_symlink(), 1)


@pytest.mark.parametrize("offset_s", [-HOUR_S, HOUR_S])
def test_what_is_kept_for_a_while_is_kept_as_long(mount: Mount, clock: Clock, offset_s: int) -> None:
    name = mount.path("threads", "a", "meta.json")
    name.unlink()
    scratch = mount.path("threads", "a", ".meta.swp")
    scratch.write_text("kept")
    clock.set(offset_s)
    time.sleep(0.2)
    assert not name.exists(), "a staged removal is back within a minute, and this was none"
    assert scratch.read_text() == "kept"


def test_counters_and_errors_go_on(mount: Mount, clock: Clock) -> None:
    clock.set(-HOUR_S)
    with pytest.raises(OSError, match="Invalid argument"):
        mount.path("threads", "a", "meta.json").write_text("nonsense\n")
    assert "meta.json\tEINVAL" in mount.errors()
    stats = dict(line.split() for line in mount.path(".threadfs", "stats").read_text().splitlines())
    assert int(stats["uptime_seconds"]) >= 0
