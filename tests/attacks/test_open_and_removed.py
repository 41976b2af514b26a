"""What is open while its name goes, comes again, or is forgotten: found by random programs, kept in short."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.conftest import Mount

_TOUCH_AND_REPLACE = """
import os, sys, threading, time
from store import DocumentKey, ThreadStore
run, store, end = sys.argv[1], ThreadStore(sys.argv[2]), time.monotonic() + 2

def replace():
    while time.monotonic() < end:
        with open(f"{run}/status", "rb") as reader:
            reader.read(10)
            store.patch_document(DocumentKey("a", "r"), {"metadata": {"at": str(time.monotonic())}})
            time.sleep(0.01)

replacing = threading.Thread(target=replace)
replacing.start()
while time.monotonic() < end:
    os.utime(run)
replacing.join()
"""


@pytest.fixture
def run(mount: Mount) -> Path:
    mount.path("threads", "a").mkdir()
    made = mount.path("threads", "a", "runs", "r")
    made.mkdir()
    return made


def test_a_run_that_is_made_again_takes_files_while_one_of_the_old_is_open(run: Path) -> None:
    with (run / "status").open("rb"):
        run.rmdir()
        run.mkdir()
        (run / ".scratch").write_text("x")
        (run / "cancel").write_text("1")
    assert '"cancelled"' in (run / "status").read_text()


def test_a_thread_that_is_made_again_takes_files_while_one_of_the_old_is_open(
    mount: Mount, run: Path
) -> None:
    (run / "cancel").write_text("1")
    with (run / "status").open("rb"), mount.path("threads", "a", "meta.json").open("rb"):
        shutil.rmtree(mount.path("threads", "a"))
        mount.path("threads", "a").mkdir()
        mount.path("threads", "a", "say").write_text("Hello")
        run.mkdir()
        (run / "steps" / "s.json").write_text('{"step_type": "tool_calls"}')
    assert os.listdir(run / "steps") == ["s.json"]


def test_who_reads_a_run_reads_it_to_the_end_after_it_was_removed(run: Path) -> None:
    whole = (run / "status").read_bytes()
    with (run / "status").open("rb", buffering=0) as reader:
        begin = reader.read(10)
        run.rmdir()
        assert begin + reader.read() == whole
        assert os.fstat(reader.fileno()).st_size == len(whole)


def test_setting_the_time_of_a_directory_does_not_wait_for_the_names_in_it(mount: Mount, run: Path) -> None:
    program = subprocess.Popen([sys.executable, "-c", _TOUCH_AND_REPLACE, str(run), str(mount.store)])
    try:
        assert program.wait(20) == 0
    except subprocess.TimeoutExpired:
        mount.process.send_signal(signal.SIGKILL)  # Or nothing here would ever end.
        raise
