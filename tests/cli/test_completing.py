"""What shells offer for the arguments THREAD and RUN."""

from __future__ import annotations

import os
import pty
import select
import shutil
import sqlite3
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from store import Run, RunStatus, Thread, ThreadStore
from store.catalogue import place
from store.disk import offers
from tests.cli.conftest import ENDS_S, ROOT, RUNNING, succeeds, threadfs
from tests.mount.conftest import Mount, wait_until
from threadfs.commands.completing import typed_in, typed_on

# To a shell with a command line: to show its words instead.
SHOW = "\x01printf '<%s>\\n' \n"
# So wide that nothing is wrapped.
_LINES, _COLUMNS = 50, 1000

# What shells and terminals might take for something else; and what is shown of it.
ODD = 'A "b": it\'s $HOME `id` \\ \n\x1b[31m'
SHOWN = 'A "b": it\'s $HOME `id` \\ [31m'


def make(store: ThreadStore, *thread_ids: str, title: str = "Bees") -> None:
    """Threads, each an hour older than the one before."""
    for age_h, thread_id in enumerate(thread_ids):
        store.create_thread(Thread(id=thread_id, metadata={"title": title} if title else {}))
        then = time.time() - 3600 * age_h
        for name in ("meta.json", "."):
            os.utime(store.thread_dir(thread_id) / name, (then, then))


def offered(*words: str | Path) -> list[str]:
    """What zsh and fish are told."""
    return succeeds(threadfs("--complete", "zsh", *words)).splitlines()


def known(store: ThreadStore) -> None:
    """Has the catalogue take over everything."""
    store.catalogue().refresh(words=False)


# ── What is offered ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("with_catalogue", [True, False])
def test_threads_are_offered_with_their_titles_the_newest_first(
    store: ThreadStore, with_catalogue: bool
) -> None:
    make(store, "two", "three", "one")
    make(store, "odd", title=ODD)
    make(store, "bare", title="")
    if with_catalogue:
        known(store)
    expected = {"two\tBees", f"odd\t{SHOWN}", "bare\t", "three\tBees", "one\tBees"}
    found = offered("ask", store.root, "")
    assert ({*found}, found[-2:]) == (expected, ["three\tBees", "one\tBees"])
    assert offered("follow", store.root, "t") == ["two\tBees", "three\tBees"]
    assert offered("export", "--to", "chat", store.root, "two", "t") == ["three\tBees"]
    assert len(offered("ask", store.root, "TWO")) == 5  # The shell may find more in it than the beginning.


def test_threads_that_came_or_went_since_the_catalogue_was_made_are_offered_or_not(
    store: ThreadStore, tmp_path: Path
) -> None:
    make(store, "stays", "goes")
    known(store)
    with closing(ThreadStore(store.root)) as other:
        other.delete_thread("goes")
        make(other, "comes", title="Wasps")
    (Path(store.root) / "no thread").mkdir()
    (Path(store.root) / "link").symlink_to(store.thread_dir("stays"))
    assert offered("ask", store.root, "") == ["comes\tWasps", "stays\tBees"]


def test_runs_are_offered_with_status_and_title_those_that_go_on_first(store: ThreadStore) -> None:
    make(store, "T")
    for run_id, status in (("a", RunStatus.queued), ("b", RunStatus.failed)):
        store.create_run("T", Run(id=run_id, status=status))
    known(store)
    with closing(ThreadStore(store.root)) as other:
        other.create_run("T", Run(id="c"))
        other.cancel_run("T", "a")
    found = offered("wait", store.root, "")
    assert (found[0], sorted(found)) == (
        "c@T\tqueued · Bees",
        ["a@T\tcancelled · Bees", "b@T\tfailed · Bees", "c@T\tqueued · Bees"],
    )
    assert offered("wait", store.root, "a@") == ["a@T\tcancelled · Bees"]
    assert offered("wait", store.root, "T", "b") == ["b\tfailed"]
    assert offered("wait", store.root, "T", "b", "") == offered("wait", store.root, "none", "") == []


def test_a_mount_point_stands_for_its_store(mounted: Mount, household: Path) -> None:
    wait_until(lambda: f"{RUNNING[0]}\tElectricity bill" in offered("ask", mounted.root, ""))
    # The mount takes over one title after the other.
    wait_until(lambda: offered("ask", mounted.root, "") == offered("ask", household, ""))
    thread_id, run_id = RUNNING
    assert offered("wait", mounted.root, f"{run_id}@")[0].startswith(f"{run_id}@{thread_id}\tin_progress")


def test_no_more_are_offered_than_a_person_reads(store: ThreadStore, monkeypatch: pytest.MonkeyPatch) -> None:
    make(store, *(f"t{number}" for number in range(9)))
    store.create_run("t8", Run(id="r"))
    for path in (store.thread_dir("t8"), *store.thread_dir("t8").rglob("*")):
        os.utime(path, (0, 0))
    monkeypatch.setattr(offers, "MOST", 3)
    monkeypatch.setattr(offers, "_MOST_READ", 2)
    for _ in range(2):
        found = offers.threads(store.root, os.environ, "t")
        assert [one.word for one in found] == ["t0", "t1", "t2"]
        known(store)
    # A run that goes on is offered however old its thread is.
    assert [one.word for one in offers.runs(store.root, os.environ, "")] == ["r@t8"]


def test_threads_of_a_large_store_are_those_that_the_catalogue_knows(
    store: ThreadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(store, "a", "b", "c")
    known(store)
    with closing(ThreadStore(store.root)) as other:
        make(other, "d")
    monkeypatch.setattr(offers, "_MOST_LISTED", 2)
    assert [one.word for one in offers.threads(store.root, os.environ, "")] == ["a", "b", "c"]


@pytest.mark.parametrize("damage", ["nothing", "rubbish", "no table", "others may write", "link", "version"])
def test_a_catalogue_that_cannot_be_used_is_done_without(
    store: ThreadStore, caches: Path, tmp_path: Path, damage: str
) -> None:
    make(store, "T")
    known(store)
    store.close()
    path = caches / "threadfs" / place.digest_of(place.identity_of(store.root)) / "catalogue.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE threads SET name = 'Wasps'")
        if damage == "no table":
            connection.execute("DROP TABLE threads")
        if damage == "version":
            connection.execute("PRAGMA user_version = 99")
    if damage == "rubbish":
        path.write_bytes(os.urandom(9999))
    if damage == "others may write":
        path.parent.chmod(0o777)
    if damage == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    assert offered("ask", store.root, "") == ["T\tWasps" if damage == "nothing" else "T\tBees"]


def test_nothing_is_made_or_changed_by_offering(store: ThreadStore, caches: Path) -> None:
    make(store, "T")
    assert offered("ask", store.root, "") == ["T\tBees"]
    assert not caches.exists()
    assert os.listdir(store.root) == ["T"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["zsh"],
        ["zsh", "ask"],
        ["zsh", "ask", ""],
        ["zsh", "nonsense", "{store}", ""],
        ["zsh", "ask", "{store}/none", ""],
        ["zsh", "ask", "{store}/T/meta.json", ""],
        ["zsh", "ask", "postgresql://127.0.0.1:1/none", ""],
        ["zsh", "ask", "--nonsense", "\udcff", ""],
        ["bash", "@:", "threadfs ask 'a"],
        ["bash"],
    ],
)
def test_an_error_is_silence(store: ThreadStore, words: list[str]) -> None:
    make(store, "T")
    assert succeeds(threadfs("--complete", *(word.format(store=store.root) for word in words))) == ""


def test_nothing_is_imported_that_takes_long(store: ThreadStore) -> None:
    make(store, "T")
    store.create_run("T", Run(id="r"))
    known(store)
    code = "import sys; from threadfs.cli import main; main(['--complete', 'zsh', *sys.argv[1:]]); "
    code += (
        "print([name for name in ('pydantic', 'trio', 'pyfuse3', 'psycopg', 'shtab') if name in sys.modules])"
    )
    for command in ("ask", "wait"):
        said = subprocess.run(
            [sys.executable, "-c", code, command, store.root, ""],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout.splitlines()[0].startswith(("T\t", "r@T\t"))
        assert said.stdout.splitlines()[1:] == ["[]"]


# ── bash ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "word", "expected"),
    [
        ("t ", "a b", r"a\ b"),
        ("t a", "a$(id)", r"a\$\(id\)"),
        ("t ~", "~a", r"\~a"),
        (r"t a\ ", "a b", r"a\ b"),
        ('t "a', 'a "$b" `c`', r"a \"\$b\" \`c\`"),
        ("t 'a", "a $b", "a $b"),
        ("t 'a", "a'b", ""),
        ("t 'a'", "ab", ""),
        ("t r@", "r@t u", r"@t\ u"),
        ("t r@t", "r@t:u", "t:u"),
        (r"t r@t\ ", "r@t u", ""),
        ("t a:b:", "a:b:c", "c"),
        ('t "r@', "r@t u", "r@t u"),
        ("t é", "éa", "éa"),
    ],
)
def test_a_word_is_typed_on_with_the_quotes_that_bash_needs(line: str, word: str, expected: str) -> None:
    assert typed_on(word, typed_in(line), " \t\n\"'@><=;|&(:") == expected


def test_what_bash_does_not_break_at_is_typed_on_as_a_whole() -> None:
    assert typed_on("r@t u", typed_in("t r@"), " \t\n") == r"r@t\ u"


def test_the_words_of_a_line_are_those_that_bash_sees() -> None:
    assert typed_in(r"""t  a\ b 'c "d' "e 'f" "" g""").words == ["t", "a b", 'c "d', "e 'f", "", "g"]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program ``threadfs``."""
    program = tmp_path / "bin" / "threadfs"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m threadfs.cli "$@"\n')
    program.chmod(0o755)
    return program


class Shell:
    """An interactive shell, at its prompt."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal

    def type(self, text: str, until: str) -> str:
        """What the terminal got from then on until it got *until*."""
        os.write(self._terminal, text.encode())
        said = ""
        while until not in said:
            assert select.select([self._terminal], [], [], ENDS_S)[0], repr(said)
            said += os.read(self._terminal, 65536).decode(errors="replace")
        return said


@contextmanager
def shell(program: Path, setup: str, *command: str) -> Iterator[Shell]:
    ours, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (_LINES, _COLUMNS))
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "TERM": "xterm"}
    process = subprocess.Popen(
        command,
        cwd=program.parent,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        started = Shell(ours)
        started.type(f"{setup}; PS1='rea''dy> '\n", "ready> ")
        yield started
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def script(program: Path, name: str) -> Path:
    path = program.with_name(name)
    path.write_text(
        succeeds(threadfs("--print-completion", name.removeprefix("_").partition(".")[2] or "zsh"))
    )
    return path


def test_bash_types_ids_on_also_beyond_an_at_sign(store: ThreadStore, program: Path) -> None:
    make(store, "a $(touch pwned)")
    store.create_thread(Thread(id="b"))
    store.create_run("b", Run(id="run_1"))
    source = f"source {script(program, 'completion.bash')}"
    with shell(program, source, "bash", "--noprofile", "--norc", "-i") as bash:
        bash.type(f"threadfs follow {store.root} a\t{SHOW}", "<a $(touch pwned)>\r\n")
        bash.type(f"~/../{program} wait {store.root} run_1@\t{SHOW}", "<run_1@b>\r\n")
        bash.type(f"threadfs wait {store.root} b r\t{SHOW}", "<b>\r\n<run_1>\r\n")
    assert not (program.parent / "pwned").exists()


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")
def test_zsh_shows_titles_as_they_are(store: ThreadStore, program: Path) -> None:
    make(store, "a:1 $(touch pwned)", title=ODD)
    make(store, "a:2")
    store.create_run("a:2", Run(id="run_1"))
    script(program, "_threadfs")
    setup = f"fpath=({program.parent} $fpath); autoload -U compinit; compinit -D -u"
    with shell(program, setup, "zsh", "-f", "-i") as zsh:
        zsh.type(f"threadfs ask {store.root} a:\t", SHOWN)
        zsh.type(f"1\t{SHOW}", "<a:1 $(touch pwned)>\r\n")
        zsh.type(f"threadfs wait {store.root} ru\t{SHOW}", "<run_1@a:2>\r\n")
        zsh.type(f"threadfs wait {store.root} a:2 \t{SHOW}", "<a:2>\r\n<run_1>\r\n")
        zsh.type(f"threadfs export {store.root} a:2 a:1\t{SHOW}", "<a:2>\r\n<a:1 $(touch pwned)>\r\n")
    assert not (program.parent / "pwned").exists()


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish here")
def test_fish_shows_titles_as_they_are(store: ThreadStore, program: Path) -> None:
    make(store, "a 1 $(touch pwned)", title=ODD)
    store.create_run("a 1 $(touch pwned)", Run(id="run_1"))

    def complete(words: str) -> list[str]:
        said = subprocess.run(
            [
                "fish",
                "--no-config",
                "-c",
                f"source {script(program, 'completion.fish')}; complete -C $argv",
                words,
            ],
            env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(program.parent)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stderr == ""
        return said.stdout.splitlines()

    assert complete(f"threadfs ask {store.root} a") == [f"a 1 $(touch pwned)\t{SHOWN}"]
    assert complete(f"threadfs wait {store.root} run") == [f"run_1@a 1 $(touch pwned)\tqueued · {SHOWN}"]
    assert complete("threadfs ask postgresql://127.0.0.1:1/none ") == []
    assert not (program.parent / "pwned").exists()
