"""Finding things in a store: `threadfs search` and `threadfs ls`."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store import DocumentKey, MessageRole, Run, RunStatus, Thread, ThreadMessage, ThreadStore
from store.models import ContentBlock
from tests import forking
from tests.cli.conftest import ENDS_S, OSLO, ROOT, command, fails, succeeds, threadfs
from tests.mount.conftest import Mount, stop, wait_until
from threadfs.commands import mounted_search
from threadfs.commands.widths import width
from threadfs.mounting import asking
from threadfs.mounting.mount_table import KIND
from threadfs.mounting.mount_table import Mount as MountEntry

DAY_S = 86400


@pytest.fixture
def store(tmp_path: Path) -> ThreadStore:
    return ThreadStore(tmp_path / "store")


def say(store: ThreadStore, thread_id: str, text: str, created_at: int, role: str = "user") -> None:
    content = [ContentBlock.of_text(text)]
    store.append_message(
        thread_id, ThreadMessage(role=MessageRole(role), content=content, created_at=created_at)
    )


def make_threads(store: ThreadStore) -> None:
    """Three: bees, of yesterday, whose run failed; wasps, with a queued run; and one without a title."""
    for at, (thread_id, title) in enumerate((("t1", "Bees"), ("t2", "Wasps and bees"), ("t3", "")), 1):
        metadata = {"title": title} if title else {}
        store.create_thread(Thread(id=thread_id, created_at=at, metadata=metadata))
        say(store, thread_id, f"Honey {at}", at)
    store.create_run("t1", Run(id="r1", status=RunStatus.failed, model="m"))
    store.create_run("t2", Run(id="r2", model="n"))
    then = time.time() - DAY_S
    for root, directories, files in os.walk(store.thread_dir("t1"), topdown=False):
        for name in [*directories, *files, "."]:
            os.utime(Path(root, name), (then, then))


def column(said: str, number: int = 0) -> list[str]:
    return [line.split("\t")[number] for line in said.splitlines()]


# ── search ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_search_names_the_line_of_each_hit_the_newest_first(store: ThreadStore) -> None:
    make_threads(store)
    say(store, "t1", "more hóney\nand bees", 9, "assistant")
    assert succeeds(threadfs("search", store.root, "HONEY")) == (
        "threads/t1/messages.jsonl:2: assistant: more hóney and bees\n"
        "threads/t3/messages.jsonl:1: user: Honey 3\n"
        "threads/t2/messages.jsonl:1: user: Honey 2\n"
        "threads/t1/messages.jsonl:1: user: Honey 1\n"
    )
    assert succeeds(threadfs("search", store.root, "honey", "bees")).count("\n") == 1
    assert succeeds(threadfs("search", store.root, "honey -bees role:user")).count("\n") == 3
    assert succeeds(threadfs("search", store.root, "honey", "--", "-bees")).count("\n") == 3
    assert succeeds(threadfs("search", store.root, "title:wasps")) == (
        "threads/t2/meta.json:6: title: Wasps and bees\n"
    )


def test_a_search_without_a_hit_says_nothing_and_exits_1(store: ThreadStore) -> None:
    make_threads(store)
    result = threadfs("search", store.root, "ants")
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (['"honey'], 'a "'),
        (["..."], "no word"),
        (["before:yesterday"], "no day"),
        (["--", "-honey"], "not to be found"),
        (["--grep", "("], "regular expression"),
        ([], "search for what?"),
        ([""], "search for what?"),
    ],
)
def test_what_is_no_query_is_refused_in_a_line(store: ThreadStore, words: list[str], why: str) -> None:
    fails(threadfs("search", store.root, *words), 2, why)


@pytest.mark.parametrize("words", [r"fetch_\w+", "a.*z", "[xyz]+", "^ants", "ants$", "ants|wasps", r"f\("])
def test_who_takes_words_for_a_regular_expression_is_told_how_to_search_for_one(
    store: ThreadStore, words: str
) -> None:
    make_threads(store)
    fails(threadfs("search", store.root, words), 1, "for a regular expression: --grep")
    assert threadfs("search", store.root, "--grep", words.replace("wasps", "ANTS")).stderr == ""


def test_hits_as_json(store: ThreadStore) -> None:
    make_threads(store)
    assert json.loads(succeeds(threadfs("search", store.root, "--json", "honey 2"))) == {
        "thread": "t2",
        "line": 1,
        "role": "user",
        "created_at": 2,
        "snippet": "Honey 2",
    }


def test_hits_that_are_left_out_are_counted_unless_their_number_was_given(store: ThreadStore) -> None:
    store.create_thread(Thread(id="t1"))
    store.append_lines("t1", [b'{"role": "user", "content": "honey"}'] * 1003)
    result = threadfs("search", store.root, "honey")
    assert (result.returncode, result.stdout.count("\n")) == (0, 1000)
    assert result.stderr == "threadfs: 3 further hits are left out: -n N shows more\n"
    assert succeeds(threadfs("search", store.root, "honey", "-n", "2")).count("\n") == 2
    assert succeeds(threadfs("search", store.root, "honey", "-n", "2000")).count("\n") == 1003
    fails(threadfs("search", store.root, "honey", "-n", "few"), 2, "no number")


def test_the_best_hits_come_first_when_asked_for(store: ThreadStore) -> None:
    store.create_thread(Thread(id="t1"))
    for at, text in enumerate(["honey honey", "honey", "honey " + "and much else " * 20], 1):
        say(store, "t1", text, at)
    said = succeeds(threadfs("search", store.root, "honey", "--sort", "relevance"))
    assert said.splitlines()[-1].startswith("threads/t1/messages.jsonl:3:")


def test_a_regular_expression_is_looked_for_in_the_text_of_messages(store: ThreadStore) -> None:
    store.create_thread(Thread(id="t1"))
    say(store, "t1", 'call "fetch_user_by_id"', 1)
    said = succeeds(threadfs("search", store.root, "--grep", '"fetch_\\w+"'))
    assert said == 'threads/t1/messages.jsonl:1: user: call "fetch_user_by_id"\n'


def test_words_are_kept_between_searches_and_forgotten_when_asked_for(store: ThreadStore) -> None:
    make_threads(store)
    caches = Path(os.environ["XDG_CACHE_HOME"], "threadfs")
    before = {*caches.glob("*")}
    succeeds(threadfs("search", store.root, "honey"))
    (made,) = {*caches.glob("*")} - before
    assert (made / "catalogue.sqlite").stat().st_size > 0
    assert succeeds(threadfs("search", store.root, "--rebuild")) == ""
    assert succeeds(threadfs("search", store.root, "--rebuild", "honey")).count("\n") == 3


def test_no_words_are_kept_when_that_is_asked_for(store: ThreadStore) -> None:
    make_threads(store)
    caches = Path(os.environ["XDG_CACHE_HOME"], "threadfs")
    before = {*caches.glob("*")}
    assert succeeds(threadfs("search", store.root, "--no-words", "honey")).count("\n") == 3
    (made,) = {*caches.glob("*")} - before
    assert not any(b"honey" in path.read_bytes() for path in made.iterdir())


# More than a mount has in its file: so none is asked.
WITHOUT_A_MOUNT = ("-n", "1001")


def test_a_mount_and_its_store_say_the_same(mounted: Mount, household: Path) -> None:
    found = succeeds(threadfs("search", mounted.root, "oslo"))
    assert found == succeeds(threadfs("search", household, "oslo", *WITHOUT_A_MOUNT))
    place, line = found.split(":")[:2]
    assert "Oslo" in (mounted.root / place).read_text().splitlines()[int(line) - 1]
    (mounted.root / "threads" / OSLO / "say").write_text("And now for zebras")
    assert "zebras" in succeeds(threadfs("search", mounted.root, "zebras"))
    assert sorted(column(succeeds(threadfs("ls", mounted.root)))) == sorted(
        column(succeeds(threadfs("ls", household)))
    )


def test_a_search_beside_a_mount_is_what_the_mount_finds(mounted: Mount, household: Path) -> None:
    for text in ("oslo", '"in Oslo"', "role:user kids", "status:failed", "zebra"):
        shown = mounted_search.asked(os.fspath(household), text)
        assert shown == mounted_search.asked(os.fspath(mounted.root), text)
        assert shown is not None
        beside = threadfs("search", household, text, "-n", "2")
        without = threadfs("search", household, text, *WITHOUT_A_MOUNT)
        assert "".join(f"{line}\n" for line in shown.lines) == without.stdout
        assert beside.stdout.splitlines() == without.stdout.splitlines()[:2]
        assert beside.returncode == without.returncode


def test_a_search_beside_a_mount_tells_of_the_hits_that_it_leaves_out(
    mounted: Mount, household: Path
) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": {"value": "zebra"}}]}
    with (mounted.root / "threads" / OSLO / "messages.jsonl").open("a") as log:
        log.write(f"{json.dumps(message)}\n" * 1005)
    found = threadfs("search", household, "zebra")
    assert found.stdout.count("\n") == 1000
    assert found.stderr == "threadfs: 5 further hits are left out: -n N shows more\n"


@pytest.mark.parametrize("text", ['"odd', ".hidden", "src/main.py", "bee" * 100, ""])
def test_what_a_mount_cannot_be_asked_is_found_without_it(mounted: Mount, household: Path, text: str) -> None:
    assert mounted_search.asked(os.fspath(household), text) is None


def test_where_nothing_is_mounted_nothing_is_asked(mounted: Mount, household: Path) -> None:
    assert mounted_search.asked(os.fspath(household), "oslo")
    stop(mounted)
    assert mounted_search.asked(os.fspath(household), "oslo") is None


@contextmanager
def waiting(mount: Mount, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A search that waits for a mount, which is stopped until it goes on, and what it has said of that."""
    said = tmp_path / "said"
    mount.process.send_signal(signal.SIGSTOP)
    try:
        with said.open("wb") as stderr:
            searching = subprocess.Popen(
                command("search", mount.store, "oslo"), stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        wait_until(lambda: said.read_bytes().endswith(b"\n"))
        yield searching, said.read_text()
    finally:
        mount.process.send_signal(signal.SIGCONT)
    searching.communicate(timeout=ENDS_S)


def test_a_search_says_which_process_it_waits_for(mounted: Mount, tmp_path: Path) -> None:
    with waiting(mounted, tmp_path) as (searching, said):
        pid = mounted.process.pid
        why = f"waiting for process {pid}, which is stopped (kill -CONT {pid} lets it go on)"
        assert said == f"threadfs: {mounted.root} does not answer: {why}\n"
        mounted.process.send_signal(signal.SIGCONT)
        found, _ = searching.communicate(timeout=ENDS_S)
    assert (tmp_path / "said").read_text() == said
    assert found == succeeds(threadfs("search", mounted.store, "oslo"))


def test_a_search_that_waits_for_a_process_can_be_interrupted(mounted: Mount, tmp_path: Path) -> None:
    with waiting(mounted, tmp_path) as (searching, _):
        searching.send_signal(signal.SIGINT)
        assert searching.wait(ENDS_S) == 130


@pytest.mark.parametrize("answers", [True, False])
def test_an_answer_that_takes_long_is_waited_for_with_a_word_where_nothing_answers(
    standing_in: MountEntry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answers: bool
) -> None:
    looked = threading.Semaphore(0)

    def is_answering(mount: MountEntry) -> bool:
        looked.release()
        return answers

    def slow() -> str:
        for _ in range(2 if answers else 1):
            assert looked.acquire(timeout=ENDS_S)
        return "found"

    monkeypatch.setattr(asking, "LOOKS_S", 0.01)
    monkeypatch.setattr(asking, "_answers", is_answering)
    assert asking.answer_of(standing_in, slow) == "found"
    said = f"{standing_in.mountpoint} does not answer: waiting for process {os.getpid()}, whose log says "
    assert caplog.messages == ([] if answers else [f"{said}what it waits for"])


@pytest.fixture
def standing_in(monkeypatch: pytest.MonkeyPatch) -> MountEntry:
    """A mount that this process seems to serve."""
    monkeypatch.setattr(asking, "server_of", lambda mount: os.getpid())
    return MountEntry("/mnt", KIND, "/store", "0:0", frozenset(), frozenset())


# ── ls ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_threads_are_listed_with_the_last_changed_first(store: ThreadStore) -> None:
    make_threads(store)
    store.patch_document(DocumentKey("t3"), {"metadata": {}})
    store.patch_document(DocumentKey("t2"), {"metadata": {"title": "Wasps"}})
    said = succeeds(threadfs("ls", store.root))
    assert [line.split("\t")[:2] for line in said.splitlines()] == [
        ["t2", "queued"],
        ["t3", ""],
        ["t1", "failed"],
    ]
    assert column(said, 2)[2] == "1d"
    assert column(said, 3) == ["Wasps", "Honey 3", "Bees"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--status", "failed", "queued"], ["t1", "t2"]),
        (["--older-than", "2h"], ["t1"]),
        (["--newer-than", "2h"], ["t2", "t3"]),
        (["--title", "bee*"], ["t1", "t2"]),
        (["--title", "BEES wasps"], ["t2"]),
        (["--title", "honey"], ["t3"]),
        (["--model", "n"], ["t2"]),
        (["--status", "expired"], []),
        (["--runs"], ["r1@t1", "r2@t2"]),
        (["--runs", "--model", "m", "--status", "failed"], ["r1@t1"]),
    ],
)
def test_threads_and_runs_are_listed_by_what_is_asked_for(
    store: ThreadStore, options: list[str], expected: list[str]
) -> None:
    make_threads(store)
    assert sorted(column(succeeds(threadfs("ls", store.root, *options)))) == expected


def test_they_are_sorted_and_cut_as_asked_for(store: ThreadStore) -> None:
    make_threads(store)
    assert column(succeeds(threadfs("ls", store.root, "--sort", "created"))) == ["t3", "t2", "t1"]
    assert column(succeeds(threadfs("ls", store.root, "--sort", "title"))) == ["t1", "t3", "t2"]
    assert column(succeeds(threadfs("ls", store.root, "--sort", "title", "-n", "1"))) == ["t1"]


def test_ids_alone_are_written_for_xargs(store: ThreadStore) -> None:
    make_threads(store)
    assert succeeds(threadfs("ls", store.root, "-0", "--sort", "created")) == "t3\0t2\0t1\0"


def test_threads_as_json(store: ThreadStore) -> None:
    make_threads(store)
    changed_at = store.thread_modified_ns("t1") // 1_000_000_000
    fields = json.loads(succeeds(threadfs("ls", store.root, "--json", "--title", "bees", "--model", "m")))
    assert DAY_S <= fields.pop("age_s") < DAY_S + 3600
    assert fields == {
        "id": "t1",
        "status": "failed",
        "title": "Bees",
        "created_at": 1,
        "changed_at": changed_at,
        "model": "m",
    }


def test_a_terminal_gets_a_table_that_fits(store: ThreadStore) -> None:
    store.create_thread(Thread(id="t1", metadata={"title": "Bees and " * 12}))
    store.create_run("t1", Run(id="r1", model="llama3.1:8b"))
    reading, terminal = pty.openpty()
    subprocess.run(
        command("ls", store.root),
        stdout=terminal,
        stderr=terminal,
        check=True,
        env={**os.environ, "COLUMNS": "60"},
    )
    os.close(terminal)
    shown = os.read(reading, 65536).decode().splitlines()
    os.close(reading)
    assert [line.split()[:2] for line in shown] == [["ID", "STATUS"], ["t1", "queued"]]
    assert [len(line) <= 60 for line in shown] == [True, True]
    assert shown[1].endswith("…")


def test_the_columns_of_a_table_are_in_line_whatever_the_script(store: ThreadStore) -> None:
    for thread_id, title in (("東京", "旅行 " * 40), ("oslo", "e\u0301t\u0301 " * 60), ("t1", "plain " * 40)):
        store.create_thread(Thread(id=thread_id, metadata={"title": title}))
        store.create_run(thread_id, Run(id="r"))
    reading, terminal = pty.openpty()
    subprocess.run(
        command("ls", store.root), stdout=terminal, check=True, env={**os.environ, "COLUMNS": "60"}
    )
    os.close(terminal)
    shown = os.read(reading, 65536).decode().splitlines()
    os.close(reading)
    assert len({width(line[: line.index("  queued")]) for line in shown[1:]}) == 1
    assert [59 <= width(line) <= 60 for line in shown[1:]] == [True] * 3


@pytest.mark.parametrize("words", ["", "...", '""'])
def test_a_title_without_a_word_is_refused(store: ThreadStore, words: str) -> None:
    make_threads(store)
    fails(threadfs("ls", store.root, "--title", words), 2, "no word in --title")


@pytest.mark.parametrize("words", [["ls"], ["search", "honey"]], ids=["ls", "search"])
def test_a_full_disk_of_the_cache_is_said_in_a_line_and_all_is_found(
    store: ThreadStore, words: list[str]
) -> None:
    make_threads(store)
    arguments = ["tests.cli.full_cache", words[0], store.root, *words[1:]]
    ended = forking.run(arguments, cwd=ROOT, environment=os.environ, given=b"", timeout_s=ENDS_S)
    assert (ended.returncode, ended.stdout.count(b"\n")) == (0, 3)
    assert ended.stderr == b"threadfs: the catalogue has failed: database or disk is full\n"


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    for words in (["ls", tmp_path / "none"], ["search", tmp_path / "none", "honey"]):
        fails(threadfs(*words), 1, "No such file or directory")
