"""A clock that is set back and forward while a store is mounted: by libfaketime, for the mount alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from store import Run, RunStatus, ThreadStore
from tests.attacks.conftest import attacked, told
from tests.mount.conftest import Mount, wait_until
from tests.mount.scripts import new_thread

HOUR_S = 3600


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


@pytest.fixture(scope="module")
def shifted_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mount, Clock]]:
    place = tmp_path_factory.mktemp("clock")
    clock = Clock(place / "offset")
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(place / "offset"),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }.items():
            environment.setenv(name, value)
        mounted = stack.enter_context(attacked(place))
        environment.undo()  # Only the mount was to be told another time.
        yield mounted, clock


@pytest.fixture
def mount(shifted_mount: tuple[Mount, Clock]) -> Mount:
    return shifted_mount[0]


@pytest.fixture
def clock(shifted_mount: tuple[Mount, Clock]) -> Clock:
    shifted_mount[1].set(0)
    return shifted_mount[1]


@pytest.fixture
def thread(mount: Mount, clock: Clock) -> Path:
    """One of its own, made while the clock was right."""
    return new_thread(mount)


def test_messages_keep_the_order_in_which_they_were_said(mount: Mount, clock: Clock, thread: Path) -> None:
    for offset_s, text in ((0, "one"), (-HOUR_S, "two"), (HOUR_S, "three"), (0, "four")):
        clock.set(offset_s)
        (thread / "say").write_text(text)
    assert told(mount.store, thread.name) == ["one", "two", "three", "four"]
    times = [message.created_at for message in ThreadStore(mount.store).list_messages(thread.name)]
    assert times[1] < times[0] < times[2], "the clock was another one"
    transcript = mount.path("transcripts", f"{thread.name}.md").read_text()
    places = [transcript.index(f"\n{text}\n") for text in ("one", "two", "three", "four")]
    assert places == sorted(places)


@pytest.mark.parametrize("offset_s", [-HOUR_S, HOUR_S])
def test_what_changes_after_the_clock_was_set_shows_at_once(
    mount: Mount, clock: Clock, thread: Path, offset_s: int
) -> None:
    run = thread / "runs" / "r"
    run.mkdir()
    assert '"queued"' in (run / "status").read_text()
    clock.set(offset_s)
    (run / "cancel").write_text("1")
    assert '"cancelled"' in (run / "status").read_text()
    (thread / "say").write_text("here")
    assert "here" in (thread / "messages.jsonl").read_text()
    ThreadStore(mount.store).create_run(thread.name, Run(id="s", status=RunStatus.failed))
    wait_until(lambda: mount.path("runs", "failed", f"s@{thread.name}").is_symlink(), 1)


@pytest.mark.parametrize("offset_s", [-HOUR_S, HOUR_S])
def test_what_is_kept_for_a_while_is_kept_as_long(clock: Clock, thread: Path, offset_s: int) -> None:
    name = thread / "meta.json"
    name.unlink()
    scratch = thread / ".meta.swp"
    scratch.write_text("kept")
    clock.set(offset_s)
    time.sleep(0.2)
    assert not name.exists(), "a staged removal is back within a minute, and this was none"
    assert scratch.read_text() == "kept"


def test_counters_and_errors_go_on(mount: Mount, clock: Clock, thread: Path) -> None:
    clock.set(-HOUR_S)
    with pytest.raises(OSError, match="Invalid argument"):
        (thread / "meta.json").write_text("nonsense\n")
    assert f"{thread.name}/meta.json\tEINVAL" in mount.errors()
    stats = dict(line.split() for line in mount.path(".threadfs", "stats").read_text().splitlines())
    assert int(stats["uptime_seconds"]) >= 0
