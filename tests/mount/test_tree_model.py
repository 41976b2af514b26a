"""The real mount does what a plain model of its contract does, whatever the kernel remembers."""

from __future__ import annotations

import os
from contextlib import suppress

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.mount.conftest import Mount
from tests.nodes.driving import Programs
from tests.nodes.tree_machine import TreeMachine


class SystemCalls(Programs):
    """The same programs, on a mount."""

    def __init__(self, mount: Mount) -> None:
        self.top = f"{mount.root}/"

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(self.top + path)

    def names(self, path: str) -> list[str]:
        return os.listdir(self.top + path)

    def read(self, path: str) -> bytes:
        with open(self.top + path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read()
        assert len(data) == size
        return data

    def mkdir(self, path: str) -> None:
        os.mkdir(self.top + path)

    def rmdir(self, path: str) -> None:
        os.rmdir(self.top + path)

    def unlink(self, path: str) -> None:
        os.unlink(self.top + path)

    def rename(self, path: str, new_path: str) -> None:
        os.rename(self.top + path, self.top + new_path)

    def write(self, path: str, data: bytes, *, append: bool = False, pieces: int = 1) -> None:
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC)
        file = os.open(self.top + path, flags, 0o644)
        step = -(-len(data) // pieces) or 1
        try:
            for start in range(0, len(data), step):
                os.write(file, data[start : start + step])
            os.fsync(file)
        finally:
            with suppress(OSError):  # What was refused is refused again.
                os.close(file)


def test_the_mount_does_what_the_model_does(shared_mount: Mount) -> None:
    class MountMachine(TreeMachine):
        def begin(self) -> Programs:
            programs = SystemCalls(shared_mount)
            for status in ("in_progress", "requires_action", "cancelling"):
                with suppress(FileNotFoundError):
                    for link in programs.names(f"runs/{status}"):
                        programs.write(f"runs/{status}/{link}/cancel", b"1")
            for directory in ("threads", "drafts"):
                for name in programs.names(directory):
                    programs.remove_all(f"{directory}/{name}")
            return programs

    unhurried = settings(
        max_examples=15,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    run_state_machine_as_test(MountMachine, settings=unhurried)
