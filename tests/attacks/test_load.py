"""Many programs at once; `load` is the same for longer, on a large store."""

from __future__ import annotations

from tests.attacks import load
from tests.attacks.conftest import Effort
from tests.mount.conftest import Mount


def test_eighty_programs_doing_mixed_work_meet_no_error(mount: Mount, effort: Effort) -> None:
    load.fill(mount.store, threads=100, messages=1000)
    assert load.attack(mount, threads=100, clients=80, minutes=effort(3, 300) / 60) == 0
