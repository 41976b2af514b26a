"""Search.

Times mean something, so that questions about them have answers: a thread's time is its last change, a run's
that of its last change of status.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.mount.conftest import Mount


class Search:
    """Runs a script in the mount and gives the lines it prints."""

    def __init__(self, mount: Mount, environment: Mapping[str, str]) -> None:
        self._mount = mount
        self._environment = environment

    def __call__(self, script: str) -> list[str]:
        result = subprocess.run(
            ["bash", "-c", script],
            cwd=self._mount.root,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.stderr == ""
        return sorted(result.stdout.splitlines())


@pytest.fixture
def search(mount: Mount, environment: Mapping[str, str]) -> Search:
    return Search(mount, environment)


def with_word(directory: Path, word: bytes) -> list[str]:
    """The files below that hold the word."""
    return sorted(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and word in path.read_bytes()
    )


@pytest.mark.program("grep")
def test_grep_finds_a_word_in_all_messages_and_documents(search: Search, mount: Mount) -> None:
    found = search("cd threads && grep -rl llama3.1")
    expected = [name.replace("status.json", "status") for name in with_word(mount.store, b"llama3.1")]
    assert found == sorted(expected)
    assert len(found) > 3


@pytest.mark.program("grep")
def test_grep_finds_a_word_in_the_transcripts_with_its_line(search: Search) -> None:
    (line,) = search("grep -n 'kids are 7 and 10' -r transcripts")
    assert line.startswith("transcripts/Trip to Oslo.md:7:We are four")


@pytest.mark.program("grep")
def test_grep_follows_the_links_of_runs_by_status(search: Search, mount: Mount) -> None:
    found = search("grep -Rl '\"in_progress\"' runs/in_progress")
    names = [path.name for path in mount.path("runs", "in_progress").iterdir()]
    assert {path.split("/")[2] for path in found} == set(names)


@pytest.mark.program("ripgrep")
def test_rg_finds_what_grep_finds(search: Search) -> None:
    assert search("rg -l llama3.1 threads") == search("grep -rl llama3.1 threads") != []


@pytest.mark.program("ripgrep")
def test_rg_searches_the_transcripts_by_their_type(search: Search) -> None:
    assert search("rg -l --type md 'kids are 7' .") == ["./transcripts/Trip to Oslo.md"]


@pytest.mark.program("find")
def test_find_newer_finds_what_changed_since(search: Search, mount: Mount) -> None:
    mark = mount.store.parent / "mark"
    search(f"touch -d 2025-01-01 threads/*/runs/*/status; touch -d 2025-01-02 '{mark}'")
    run = mount.run("in_progress")
    search(f"echo '{{\"note\": 1}}' > '{run}/status'")
    found = search(f"find threads -name status -newer '{mark}'")
    assert found == [str((run / "status").relative_to(mount.root))]


@pytest.mark.program("find")
def test_find_mmin_finds_runs_in_progress_for_over_an_hour(search: Search, mount: Mount) -> None:
    old = mount.run("in_progress")
    new = mount.run("queued")
    search(f"touch -d '2 hours ago' '{old}/status'; echo in_progress > '{new}/status'")
    found = search("find runs/in_progress -type l -mmin +60")
    assert f"runs/in_progress/{old.name}@{old.parent.parent.name}" in found
    assert f"runs/in_progress/{new.name}@{new.parent.parent.name}" not in found


@pytest.mark.program("find")
def test_find_size_and_empty_tell_files_with_contents_from_controls(search: Search) -> None:
    empty = {Path(path).name for path in search("find threads -type f -empty")}
    assert empty == {"say", "ask", "start", "cancel"}


@pytest.mark.program("coreutils")
def test_ls_sorts_threads_by_their_last_change(search: Search, mount: Mount) -> None:
    names = sorted(path.name for path in mount.path("threads").iterdir())
    for name in names:
        search(f"echo Hello > 'threads/{name}/say'")
        time.sleep(0.02)  # Within one tick of the disk's clock two changes have one time.
    result = subprocess.run(
        ["ls", "-tr", "threads"], cwd=mount.root, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines() == names


@pytest.mark.program("coreutils")
def test_du_counts_the_bytes_of_the_messages(search: Search, mount: Mount) -> None:
    logs = [path.stat().st_size for path in mount.store.glob("*/messages.jsonl")]
    (total,) = search("cat threads/*/messages.jsonl | wc -c")
    (apparent,) = search("du -cb threads/*/messages.jsonl | tail -n 1")
    assert int(total) == sum(logs) == int(apparent.split()[0])


@pytest.mark.program("jq")
def test_jq_asks_every_run_at_once(search: Search, mount: Mount) -> None:
    found = search("jq -r 'select(.status == \"failed\").id' threads/*/runs/*/status")
    stored = [json.loads(path.read_text()) for path in mount.store.glob("*/runs/*/status.json")]
    assert found == sorted(run["id"] for run in stored if run["status"] == "failed") != []
