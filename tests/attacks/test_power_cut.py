"""A real power cut under a working mount, on ext4 on a loop device."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

from tests.attacks.conftest import Effort, attacked
from tests.attacks.writers import writers
from tests.mount.conftest import start, stop
from tests.store.test_crash import Ext4, ext4, sync_directory

__all__ = ["ext4"]  # The fixture.


def test_what_was_acknowledged_before_a_power_cut_is_there(
    ext4: Ext4,
    tmp_path: Path,
    effort: Effort,
) -> None:
    for number in range(effort(4, 100)):
        store = ext4.path / f"store {number}"
        store.mkdir()
        sync_directory(ext4.path)
        place = tmp_path / str(number)
        place.mkdir()
        with attacked(place, store=store) as mount:
            working = writers(mount.root, 3)
            try:
                for writer in working:
                    writer.wait_for(3 + number % 9)
                for writer in working:
                    writer.look()
                # What is acknowledged while the power goes proves nothing.
                acknowledged = [copy.deepcopy(writer.acknowledged) for writer in working]
                ext4.cut_power()
                for writer in working:
                    writer.wait_until_it_fails()
            finally:
                for writer in working:
                    writer.end()
        ext4.unmount()
        ext4.mount()
        again = start(store, place / "mnt", place / "log")
        try:
            assert len(list(again.path("threads").iterdir())) >= len(working)
        finally:
            stop(again)
        for writer, sure in zip(working, acknowledged, strict=True):
            writer.judge(store, sure)
        shutil.rmtree(store)  # The disk is small.
