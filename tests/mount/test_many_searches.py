"""Many programs search at once, and each search takes long: all else goes on."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from tests.mount.conftest import ANSWERS_S, checked_mount, wait_until
from tests.mount.scripts import stats

# More than the 99 requests that pyfuse3 has in hand by default.
PROGRAMS = 120


def test_searches_that_wait_take_no_place_of_other_requests(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    found: dict[int, list[str]] = {}
    with checked_mount(tmp_path, module=("tests.mount.slow_searches", str(gate))) as mount:
        run = mount.run("in_progress")

        def search(number: int) -> None:
            found[number] = os.listdir(mount.path("search", f"oslo -x{number}"))

        def look() -> None:
            # One request for each search at least, and those of this look.
            wait_until(lambda: stats(mount)["operations"] > 2 * PROGRAMS)
            (run / "status").read_text()
            os.listdir(mount.path("runs", "queued"))

        programs = [threading.Thread(target=search, args=(number,)) for number in range(PROGRAMS)]
        looking = threading.Thread(target=look)
        for thread in (*programs, looking):
            thread.start()
        looking.join(ANSWERS_S)
        was_answered, had_found = not looking.is_alive(), len(found)
        gate.touch()
        for thread in (*programs, looking):
            thread.join(ANSWERS_S)
    assert (was_answered, had_found, len(found)) == (True, 0, PROGRAMS)
    assert {tuple(names) for names in found.values()} == {("Trip to Oslo", "hits.txt")}
