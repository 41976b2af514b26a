"""`by-title/`, `by-date/` and `search/` on a real mount, as shells and other programs use them."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.catalogue.names import full_name
from tests.mount.conftest import Mount, start, stop, wait_until
from tests.mount.scripts import new_thread, run, stats, succeeds
from tests.nodes.driving import outcome

_words = itertools.count(1)

SAME = 1000


@pytest.fixture
def word() -> str:
    """A word that no message has."""
    return f"needle{next(_words)}x"


@pytest.fixture
def thread(mount: Mount, word: str) -> Path:
    """A thread with a title of its own, and the word in a message."""
    made = new_thread(mount)
    (made / "meta.json").write_text(json.dumps({"metadata": {"title": f"About {word}"}}))
    (made / "say").write_text(f"Where is {word}?")
    return made


def write_thread(place: Path, title: str, text: str = "", created_at: int = 1) -> None:
    """As another program does, into the store."""
    place.mkdir()
    document = {"id": place.name, "object": "thread", "created_at": created_at, "metadata": {"title": title}}
    (place / "meta.json").write_text(json.dumps(document))
    (place / "messages.jsonl").write_text(
        json.dumps(
            {
                "id": f"msg_{place.name}",
                "object": "thread.message",
                "created_at": created_at,
                "thread_id": place.name,
                "role": "user",
                "content": [{"type": "text", "text": {"value": text, "annotations": []}}],
            }
        )
        + "\n"
    )


# ── Shells ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_shell_finds_a_thread_by_title_day_and_word(
    mount: Mount, thread: Path, word: str, shell: str
) -> None:
    script = f"""
        cat by-title/'About {word}'/messages.jsonl | wc -l
        readlink by-title/'About {word}' search/{word}/'About {word}'
        cat search/'role:user {word}'/hits.txt
        ls search/{word}
        cd by-title/'About {word}' && echo more{word} > say && cd ../.. && wc -l < search/more{word}/hits.txt
        date=$(date -u -d @$(jq .created_at by-title/'About {word}'/meta.json) +%Y/%m/%d)
        readlink by-date/$date/'About {word}'
    """
    assert succeeds(script, mount.root, shell).splitlines() == [
        "1",
        f"../threads/{thread.name}",
        f"../../threads/{thread.name}",
        f"threads/{thread.name}/messages.jsonl:1: user: Where is {word}?",
        f"About {word}",
        "hits.txt",
        "1",
        f"../../../../threads/{thread.name}",
    ]
    shutil.rmtree(thread)


def test_a_shell_pins_a_query_and_takes_it_away(mount: Mount, thread: Path, word: str, shell: str) -> None:
    query = f"search/'{word} x*'"
    script = f"touch {query}; ls search; rmdir {query}; ls search; ls {query}; touch {query}; rmdir {query}"
    assert succeeds(script, mount.root, shell) == f"{word} x*\nhits.txt\n"
    assert thread.is_dir()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("mkdir search/x", "File exists"),
        ("mkdir search/.x", "Permission denied"),
        ("rmdir search/x", "No such file or directory"),
        ("rmdir search", "Permission denied"),
        ("touch search/.x", "Permission denied"),
        ("(echo x > search/x)", "irectory"),
        ("mv search/x search/y", "Permission denied"),
        ("mv README.md search/", "overwrite directory"),
        ("ln -s x search/x", "Permission denied"),
        ("touch search/x; rm -r search/x; s=$?; rmdir search/x; exit $s", "Permission denied"),
        ("rm search/x/hits.txt", "Permission denied"),
        ("echo x > search/x/hits.txt", "ermission denied"),
        ("rm by-title/'Soup for eight'", "Permission denied"),
        ("mv by-title/'Soup for eight' by-title/x", "Permission denied"),
        ("mkdir by-title/x", "Permission denied"),
        ("ln -s ../threads/x by-title/x", "Permission denied"),
        ("rm -r by-date/2025", "Permission denied"),
        ("mkdir by-date/2027", "Permission denied"),
        ("ls by-date/2026/02/30", "No such file or directory"),
        ("ls by-date/2026/13", "No such file or directory"),
        ("cat by-title/nobody", "No such file or directory"),
        ("ls 'search/\"'", "Invalid argument"),
        ('ls \'search/"" ""\'', "Invalid argument"),
        ("ls search/-x", "Invalid argument"),
        ("ls search/on:2026-13-01", "Invalid argument"),
        ("ls search/.git", "No such file or directory"),
        (f"ls search/{'x' * 256}", "File name too long"),
    ],
)
def test_a_shell_is_told_what_is_refused(mount: Mount, shell: str, script: str, reason: str) -> None:
    before = sorted(os.listdir(mount.path("by-title")))
    result = run(script, mount.root, shell)
    assert result.returncode != 0
    assert reason in result.stderr
    assert sorted(os.listdir(mount.path("by-title"))) == before
    assert os.listdir(mount.path("search")) == []


def test_the_reason_is_among_the_errors(mount: Mount) -> None:
    assert outcome(lambda: os.stat(mount.path("search", '"honey'))) == "EINVAL"
    place, name, reason = mount.errors().splitlines()[-1].split("\t")[1:]
    assert (place, name) == ('search/"honey', "EINVAL")
    assert 'a "' in reason


def test_a_query_of_255_bytes_is_a_query(mount: Mount) -> None:
    query = ("word " * 60)[:255]
    assert os.listdir(mount.path("search", query)) == ["hits.txt"]


def test_a_name_that_is_no_text_is_no_query_and_no_title(mount: Mount) -> None:
    assert outcome(lambda: os.stat(os.fsencode(mount.path("search")) + b"/\xff")) == "EINVAL"
    assert outcome(lambda: os.stat(os.fsencode(mount.path("by-title")) + b"/\xff")) == "ENOENT"


# ── Changes ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_title_shows_at_once_and_whoever_is_inside_stays(mount: Mount, thread: Path, word: str) -> None:
    inside = os.open(mount.path("by-title", f"About {word}"), os.O_RDONLY | os.O_DIRECTORY)
    try:
        (thread / "meta.json").write_text(json.dumps({"metadata": {"title": f"Found {word}"}}))
        assert f"Found {word}" in os.listdir(mount.path("by-title"))
        assert not os.path.lexists(mount.path("by-title", f"About {word}"))
        assert os.listdir(mount.path("search", word)) == [f"Found {word}", "hits.txt"]
        assert "say" in os.listdir(inside)
    finally:
        os.close(inside)


def test_what_is_said_is_found_at_once_and_what_is_deleted_is_not(
    mount: Mount, thread: Path, word: str
) -> None:
    hits = mount.path("search", word, "hits.txt")
    before = hits.read_text().splitlines()
    (thread / "say").write_text(f"Here is {word}.")
    assert len(hits.read_text().splitlines()) == len(before) + 1
    assert hits.stat().st_size == len(hits.read_bytes())
    shutil.rmtree(thread)
    assert hits.read_bytes() == b""
    assert os.listdir(mount.path("search", word)) == ["hits.txt"]


def test_what_other_programs_do_shows_soon(mount: Mount, word: str) -> None:
    stored = mount.store / f"of another {word}"
    title, search = mount.path("by-title", f"On {word}"), mount.path("search", f"{word}other")
    day = mount.path("by-date", "1970", "01", "01")
    write_thread(stored, f"On {word}", f"{word}other")
    wait_until(lambda: os.path.lexists(title))
    wait_until(lambda: f"On {word}" in os.listdir(search))
    wait_until(lambda: os.path.lexists(day / f"On {word}"))
    new_title = mount.path("by-title", f"About {word}")
    (stored / "meta.json").write_text((stored / "meta.json").read_text().replace("On ", "About "))
    wait_until(lambda: os.path.lexists(new_title) and not os.path.lexists(title))
    with open(stored / "messages.jsonl", "a") as log:
        log.write((stored / "messages.jsonl").read_text())
    wait_until(lambda: len((search / "hits.txt").read_text().splitlines()) == 2)
    shutil.rmtree(stored)
    wait_until(lambda: not os.path.lexists(new_title) and os.listdir(search) == ["hits.txt"])
    wait_until(lambda: not os.path.lexists(day))


def test_a_list_of_times_has_the_newest_thread_first(mount: Mount, word: str) -> None:
    names = [f"{word} {number}" for number in range(3)]
    for number, name in enumerate(names):
        place = new_thread(mount)
        (place / "say").write_text(word)
        (place / "meta.json").write_text(json.dumps({"metadata": {"title": name}}))
        for document in ("messages.jsonl", "meta.json"):
            os.utime(place / document, (1_700_000_000 + number, 1_700_000_000 + number))
    for directory in ("by-title", f"search/{word}"):
        shown = succeeds(f"ls -t {directory}", mount.root).splitlines()
        assert [name for name in shown if name in names] == names[::-1]


# ── Walks ───────────────────────────────────────────────────────────────────────────────────────────────


def test_programs_that_walk_through_the_mount_meet_the_contents_of_a_thread_once(
    mount: Mount, thread: Path, word: str, tmp_path: Path
) -> None:
    os.listdir(mount.path("search", word))
    searched = succeeds(f"grep -rl 'Where is {word}' . | sort", mount.root).splitlines()
    assert searched == [f"./threads/{thread.name}/messages.jsonl", f"./transcripts/{thread.name}.md"]
    assert succeeds("find by-title by-date search ! -type d ! -type l", mount.root) == ""
    copy = tmp_path / "copy"
    for program in (["cp", "-a", f"{mount.root}/.", str(copy)], ["rsync", "-a", f"{mount.root}/", str(copy)]):
        result = subprocess.run(program, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, "")
        assert (copy / "by-title" / f"About {word}").is_symlink()
        assert (copy / "by-title" / f"About {word}" / "meta.json").exists()
        assert os.listdir(copy / "search") == []
        shutil.rmtree(copy)
    packed = subprocess.run(
        ["tar", "cf", "-", "by-title", "by-date", "search"], cwd=mount.root, capture_output=True
    )
    assert packed.returncode == 0
    assert word.encode() in packed.stdout
    assert b"Where is" not in packed.stdout


def test_a_walk_through_the_links_comes_to_an_end(mount: Mount, thread: Path, word: str) -> None:
    found = succeeds(f"find -L by-title search/{word} -name messages.jsonl -path '*{word}*'", mount.root)
    assert sorted(found.splitlines()) == [
        f"by-title/About {word}/messages.jsonl",
        f"search/{word}/About {word}/messages.jsonl",
    ]
    assert thread.is_dir()


def test_a_long_listing_of_the_top_and_of_what_is_pinned(mount: Mount, thread: Path, word: str) -> None:
    query = mount.path("search", word)
    os.utime(query)
    try:
        top = succeeds("ls -la", mount.root).splitlines()
        assert {line.split()[-1] for line in top if line.startswith("d")} >= {"by-title", "by-date", "search"}
        created_at = json.loads((thread / "messages.jsonl").read_text())["created_at"]
        assert int(query.stat().st_mtime) == created_at
        assert word in succeeds("ls -la search", mount.root)
    finally:
        query.rmdir()
    assert os.listdir(mount.path("search")) == []


def test_the_counters_tell_of_the_catalogue(mount: Mount) -> None:
    os.listdir(mount.path("search", "anything"))
    shown = stats(mount)
    assert shown["catalogue_threads"] == len(os.listdir(mount.path("threads")))
    assert shown["catalogue_words_behind"] >= 0
    assert shown["catalogue_bytes"] >= 0


# ── Names ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A thousand threads called "New chat", and one with a title of a forger."""
    place = tmp_path_factory.mktemp("many")
    store = place / "store"
    store.mkdir()
    for number in range(SAME):
        write_thread(store / f"t{number:04d}", "New chat", "honey bees" if number % 2 else "honey", number)
    write_thread(store / "evil", "../../../etc/passwd\n\x1b[2J\u202e" + "x" * 300, "honey", SAME)
    mounted = start(store, place / "mnt", place / "log")
    try:
        yield mounted
    finally:
        stop(mounted)
    assert "Traceback" not in mounted.log.read_text()


def test_of_a_thousand_threads_called_the_same_each_has_a_name_of_its_own(many: Mount) -> None:
    same = {full_name("New chat", f"t{number:04d}") for number in range(SAME)}
    shown = set(os.listdir(many.path("by-title")))
    assert len(shown) == SAME + 1
    assert shown > same
    assert set(os.listdir(many.path("by-date", "1970", "01", "01"))) == shown
    assert os.readlink(many.path("by-title", "New chat@t0500")) == "../threads/t0500"
    assert outcome(lambda: os.stat(many.path("by-title", "New chat"))) == "ENOENT"
    assert "1000 threads are called 'New chat'" in many.errors()


def test_a_search_shows_the_newest_thousand_and_says_how_many_are_left_out(many: Mount) -> None:
    shown = os.listdir(many.path("search", "honey"))
    assert len(shown) == SAME + 1
    assert "New chat@t0000" not in shown
    lines = many.path("search", "honey", "hits.txt").read_text().splitlines()
    assert len(lines) == SAME + 1
    assert lines[-1] == "… 1 older hits are left out, and 1 threads"
    assert len(os.listdir(many.path("search", "honey bees"))) == SAME // 2 + 1


def test_a_title_of_slashes_and_escapes_is_one_harmless_name(many: Mount) -> None:
    (name,) = [name for name in os.listdir(many.path("by-title")) if not name.startswith("New chat")]
    assert name.isprintable()
    assert not name.startswith(".")
    assert len(name.encode()) <= 120
    assert os.readlink(many.path("by-title", name)) == "../threads/evil"
    hits = many.path("search", "passwd", "hits.txt").read_text()
    assert hits.startswith("threads/evil/meta.json:1: title: ")
    assert all(character.isprintable() for character in hits.removesuffix("\n"))


def test_links_that_are_sorted_by_time_are_not_asked_for_one_by_one(many: Mount) -> None:
    def requests() -> int:
        before = stats(many)["operations"]
        succeeds("ls -t by-title", many.root)
        return stats(many)["operations"] - before

    wait_until(lambda: requests() < SAME // 2)  # As soon as the threads are followed.


def test_a_link_just_listed_with_its_time_changes_at_once_with_its_thread(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    for number in range(200):
        write_thread(store / f"t{number:03}", f"About {number:03}")
    mounted = start(store, tmp_path / "mnt", tmp_path / "log")
    links, threads = mounted.path("by-title"), mounted.path("threads")
    try:
        for number in range(180, 190):
            succeeds("ls -l by-title", mounted.root)
            (threads / f"t{number}" / "meta.json").write_text('{"metadata": {"title": "New"}}')
            assert outcome(lambda number=number: os.lstat(links / f"About {number}")) == "ENOENT"  # type: ignore[misc]
            assert os.readlink(links / "New") == f"../threads/t{number}"
            shutil.rmtree(threads / f"t{number}")
            assert outcome(lambda: os.lstat(links / "New")) == "ENOENT"
        for number in range(190, 200):
            succeeds("ls -l by-title", mounted.root)
            (threads / f"t{number}" / "say").write_text("hi")
            said_ns = (threads / f"t{number}").stat().st_mtime_ns
            assert os.lstat(links / f"About {number}").st_mtime_ns == said_ns
    finally:
        stop(mounted)


def test_every_link_of_a_search_can_be_followed(many: Mount) -> None:
    script = "cat search/'honey bees'/*/meta.json | grep -o 'New chat' | wc -l"
    assert succeeds(script, many.root) == f"{SAME // 2}\n"


def test_a_read_only_mount_searches_and_pins_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    write_thread(store / "a", "Wax", "honey")
    mounted = start(store, tmp_path / "mnt", tmp_path / "log", "--read-only")
    try:
        assert os.listdir(mounted.path("search", "honey")) == ["Wax", "hits.txt"]
        assert os.listdir(mounted.path("by-title")) == ["Wax"]
        with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
            os.utime(mounted.path("search", "honey"))
    finally:
        stop(mounted)
