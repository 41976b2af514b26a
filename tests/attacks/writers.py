"""Programs that write to a mount and say what was acknowledged, and the judge of what the store holds then.

Each has a thread of its own, and numbers what it does. It says ``ok`` when the last call of a change
returned success, ``failed`` when one did not, and then waits to be told to go on.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path

# ── The program: needs nothing but a path ───────────────────────────────────────────────────────────────


def write(path: str, text: str, flags: int = os.O_TRUNC | os.O_CREAT) -> None:
    file = os.open(path, os.O_WRONLY | flags, 0o644)
    try:
        data = text.encode()
        while data:
            data = data[os.write(file, data) :]
    finally:
        os.close(file)


def say(root: str, name: str, number: int) -> None:
    write(f"{root}/threads/{name}/say", f"{number}\n")


def append(root: str, name: str, number: int) -> None:
    line = json.dumps({"role": "assistant", "content": str(number)}) + "\n"
    write(f"{root}/threads/{name}/messages.jsonl", line, os.O_APPEND)


def start(root: str, name: str, number: int) -> None:
    write(f"{root}/threads/{name}/start", json.dumps({"id": str(number)}))


def patch(root: str, name: str, number: int) -> None:
    write(f"{root}/threads/{name}/meta.json", json.dumps({"metadata": {str(number): "done"}}))


def add_step(root: str, name: str, number: int) -> None:
    place = f"{root}/threads/{name}/runs/first/steps/{number}.json"
    write(place, json.dumps({"step_type": "tool_calls"}))


def import_thread(root: str, name: str, number: int) -> None:
    draft = f"{root}/drafts/{name}-{number}"
    os.mkdir(draft)
    write(f"{draft}/meta.json", json.dumps({"id": "any", "object": "thread", "created_at": 1}))
    os.rename(draft, f"{root}/threads/{name}-{number}")


ACTIONS: dict[str, Callable[[str, str, int], None]] = {
    "say": say,
    "append": append,
    "start": start,
    "patch": patch,
    "step": add_step,
    "import": import_thread,
}


def main(root: str, name: str) -> None:
    asked_to_pause = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: asked_to_pause.set())
    for number in itertools.count(1):
        action = random.choice(list(ACTIONS))
        try:
            ACTIONS[action](root, name, number)
        except OSError as error:
            print("failed", action, number, error.strerror, flush=True)
        else:
            print("ok", action, number, flush=True)
            if not asked_to_pause.is_set():
                continue
            print("paused", flush=True)
        if not sys.stdin.readline():
            return
        asked_to_pause.clear()


# ── The judge ───────────────────────────────────────────────────────────────────────────────────────────


class Writer:
    """One such program at work on the mount *root*, on the thread *name*, which is there."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.acknowledged: defaultdict[str, set[int]] = defaultdict(set)
        self.tried: defaultdict[str, set[int]] = defaultdict(set)
        self.why = ""
        self._rest = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.attacks.writers", str(root), name],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def _read(self, *, blocking: bool) -> bool:
        """Takes what it said; whether it has stopped."""
        assert self._process.stdout is not None
        file = self._process.stdout.fileno()
        os.set_blocking(file, blocking)
        stopped = False
        try:
            data = os.read(file, 1 << 16)
            assert data, "the writer has ended"
        except BlockingIOError:
            data = b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            outcome, *rest = line.decode().split(" ")
            if outcome == "paused":
                stopped = True
                continue
            action, number, *why = rest
            self.tried[action].add(int(number))
            if outcome == "ok":
                self.acknowledged[action].add(int(number))
            else:
                stopped, self.why = True, " ".join(why)
        return stopped

    def look(self) -> int:
        """How many changes have been acknowledged by now."""
        self._read(blocking=False)
        return self.count()

    def count(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    def wait_for(self, count: int) -> None:
        while self.count() < count:
            assert not self._read(blocking=True), f"a write failed: {self.why}"

    def wait_until_it_fails(self) -> None:
        while not self._read(blocking=True):
            pass

    def pause(self) -> None:
        """Returns when it waits to be told to go on, as it may be doing already after a failure."""
        self._process.send_signal(signal.SIGUSR1)
        self.wait_until_it_fails()

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def judge(self, store: Path, acknowledged: dict[str, set[int]] | None = None) -> None:
        """What was acknowledged is there, once; nothing is that nobody wrote."""
        sure = self.acknowledged if acknowledged is None else acknowledged
        for actions, found in self._found(store):
            numbers = sorted(found)
            assert len(numbers) == len(set(numbers)), f"{actions}: something is there twice"
            expected = set().union(*(sure[action] for action in actions))
            possible = set().union(*(self.tried[action] for action in actions))
            assert not expected - set(numbers), f"{actions} of {self.name}: acknowledged, and lost"
            assert not set(numbers) - possible, f"{actions} of {self.name}: nobody wrote it"

    def _found(self, store: Path) -> list[tuple[tuple[str, ...], Collection[int]]]:
        from store import ThreadStore  # The program itself is to start quickly.

        opened = ThreadStore(store)
        messages = [int(message.text) for message in opened.list_messages(self.name)]
        runs = [int(run) for run in opened.list_run_ids(self.name) if run != "first"]
        metadata = opened.get_thread(self.name).metadata or {}
        steps = [int(step) for step in opened.list_step_ids(self.name, "first")]
        mine = f"{self.name}-"
        imported = [int(t.removeprefix(mine)) for t in opened.list_thread_ids() if t.startswith(mine)]
        return [
            (("say", "append"), messages),
            (("start",), runs),
            (("patch",), [int(number) for number in metadata]),
            (("step",), steps),
            (("import",), imported),
        ]


def writers(root: Path, count: int, first: int = 0) -> list[Writer]:
    """So many programs at work, numbered from *first*, each on a new thread of its own."""
    names = [f"writer {number}" for number in range(first, first + count)]
    for name in names:
        (root / "threads" / name).mkdir()
        (root / "threads" / name / "runs" / "first").mkdir()
    return [Writer(root, name) for name in names]


if __name__ == "__main__":
    main(*sys.argv[1:])
