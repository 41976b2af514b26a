"""Options of all tests."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

# A shell has its background ignore it, and programs that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.postgres.fixtures"]  # Of one server, which the tests of several directories use.


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="attack for about two hours, as docs/reliability.md reports it"
    )


def pytest_report_header(config: pytest.Config) -> str:
    return "attacks: long" if config.getoption("long") else "attacks: short (--long: for about two hours)"


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("long"):
        items[:] = [item for item in items if item.get_closest_marker("long") is None]
    items.sort(key=_is_alone)  # Last: the others then wait for each other once, not for each of these.


def seeds(count: int) -> list[ParameterSet]:
    """For a test of something at random: the first one always, the others with ``--long``."""
    return [pytest.param(seed, marks=pytest.mark.long if seed else ()) for seed in range(count)]


# Two locks, for nothing is written to either: every test passes the door, and they share the room. They are
# the machine's, as the limits are: tests of another checkout may run meanwhile.
_DOOR = Path("/proc/sys/fs/inotify/max_user_watches")
_ROOM = Path("/proc/sys/fs/inotify")


@contextmanager
def _locked(place: Path, how: int) -> Iterator[None]:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # Also for a process that a test has forked.
    finally:
        os.close(descriptor)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # Waiting does not count to the test's own time.
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Several processes may run tests at once; one marked ``alone`` has the machine to itself.

    It waits at the door, so that no other test enters before it.
    """
    with ExitStack() as room:
        with _locked(_DOOR, fcntl.LOCK_EX):
            room.enter_context(_locked(_ROOM, fcntl.LOCK_EX if _is_alone(item) else fcntl.LOCK_SH))
        return (yield)


def open_files(process: int | str = "self") -> list[str]:
    """What each descriptor of a process leads to, by default of this one."""
    found = []
    for descriptor in os.listdir(f"/proc/{process}/fd"):
        with suppress(FileNotFoundError):  # The one that read the listing, or closed since.
            found.append(os.readlink(f"/proc/{process}/fd/{descriptor}"))
    return found


@contextmanager
def inotify_limit(name: str, value: int) -> Iterator[None]:
    """The system's limit, for what begins in the block. For tests that run ``alone``."""
    limit = Path("/proc/sys/fs/inotify", name)
    before = limit.read_text()
    try:
        limit.write_text(str(value))
    except OSError as error:
        pytest.skip(f"needs root: {error}")
    try:
        yield
    finally:
        limit.write_text(before)


@pytest.fixture(scope="session", autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test leaves a catalogue in the cache of whoever runs it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", os.fspath(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture
def fuse_for_all() -> Iterator[None]:
    """Where udev runs, everybody may use FUSE; some containers and virtual machines have none."""
    device = Path("/dev/fuse")
    before = stat.S_IMODE(device.stat().st_mode)
    device.chmod(0o666)
    try:
        yield
    finally:
        device.chmod(before)
