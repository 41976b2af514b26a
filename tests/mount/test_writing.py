"""Making, saying, starting, steering: the same scripts in three shells."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

import pytest

from tests.mount.conftest import Mount
from tests.mount.scripts import contents, document, new_run, new_thread, run, succeeds, texts


@pytest.fixture
def thread(mount: Mount) -> Path:
    return new_thread(mount)


def test_a_whole_conversation_needs_nothing_but_a_shell(mount: Mount, shell: str) -> None:
    script = """
        mkdir "threads/Fahrt nach Ålesund" && cd "threads/Fahrt nach Ålesund" &&
        echo "Where to?" > say && echo llama3 > start &&
        for run in runs/*; do echo in_progress > "$run/status"; done &&
        echo '{"role":"assistant","content":"To the sea."}' >> messages.jsonl &&
        echo completed > "$run/status" && cat messages.jsonl | jq -r '.content[].text.value' &&
        jq -r .status "$run/status" && cd ../.. && rm -r "threads/Fahrt nach Ålesund" && ls threads
    """
    printed = succeeds(script, mount.root, shell).splitlines()
    assert printed[:3] == ["Where to?", "To the sea.", "completed"]
    assert "Fahrt nach Ålesund" not in printed
    assert not (mount.store / "Fahrt nach Ålesund").exists()


@pytest.mark.parametrize("name", ["Trip to Malmö", "-", "日本語", "a\\b", "'\"$HOME`", "x" * 127])
def test_mkdir_takes_any_name_that_can_be_an_id(mount: Mount, shell: str, name: str) -> None:
    quoted = shlex.quote(name)
    script = f"mkdir -- {quoted} && ls -N -d -- {quoted} && rmdir -- {quoted}"
    assert succeeds(script, mount.path("threads"), shell) == name + "\n"


def test_mkdir_p_makes_a_thread_and_its_run(mount: Mount, shell: str) -> None:
    succeeds(
        "mkdir -p 'neu an/runs/Lauf eins' && mkdir -p 'neu an/runs/Lauf eins'", mount.path("threads"), shell
    )
    assert document(mount.store / "neu an" / "runs" / "Lauf eins" / "status.json")["status"] == "queued"
    succeeds("rm -r 'neu an'", mount.path("threads"), shell)


@pytest.mark.parametrize("below", ["", "runs/first"])
def test_who_works_in_a_directory_that_was_just_made_keeps_it(mount: Mount, below: str) -> None:
    place = new_thread(mount) / below
    place.mkdir(exist_ok=True)
    before = os.getcwd()
    os.chdir(place)
    try:
        until_s = time.monotonic() + 0.5  # Within that the kernel is told to forget what others changed.
        while time.monotonic() < until_s:
            assert os.getcwd() == str(place)
    finally:
        os.chdir(before)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo hello > say", "hello"),
        ("printf hello > say", "hello"),
        ("echo hello >> say", "hello"),
        ("printf 'two\\nlines\\n\\n' > say", "two\nlines\n"),
        ("echo hello | tee say", "hello"),
        ("echo hello | cat > say", "hello"),
        ("{ echo one; echo two; } > say", "one\ntwo"),
        ("cat > say <<END\none\n two\nEND\n", "one\n two"),
        ("{ printf 'gr\\303'; printf '\\274n'; } > say", "grün"),
        ("seq 100000 > say", "\n".join(str(number) for number in range(1, 100_001))),
    ],
)
def test_what_is_said_in_one_open_is_one_message(thread: Path, shell: str, script: str, said: str) -> None:
    succeeds(script, thread, shell)
    assert texts(thread) == [said]


def test_say_in_two_opens_is_two_messages(thread: Path, shell: str) -> None:
    succeeds("echo one > say; echo two >> say", thread, shell)
    assert texts(thread) == ["one", "two"]


def test_start_takes_a_model_or_an_object(thread: Path, shell: str) -> None:
    succeeds("""echo llama3 > start; echo '{"id":"my run","model":"m","note":[1]}' > start""", thread, shell)
    (named,) = [path for path in (thread / "runs").iterdir() if path.name == "my run"]
    (other,) = [path for path in (thread / "runs").iterdir() if path.name != "my run"]
    assert document(other / "status")["model"] == "llama3"
    assert (document(named / "status")["model"], document(named / "status")["note"]) == ("m", [1])


def test_start_of_an_id_that_is_taken_fails_and_changes_nothing(
    mount: Mount, thread: Path, shell: str
) -> None:
    (thread / "runs" / "taken").mkdir()
    before = contents(mount.store)
    assert "File exists" in run("""echo '{"id":"taken","model":"m"}' | tee start""", thread, shell).stderr
    assert contents(mount.store) == before


def test_each_line_written_to_start_is_a_run(thread: Path, shell: str) -> None:
    succeeds("{ echo one; echo two; echo one; } > start", thread, shell)
    models = [document(made / "status")["model"] for made in (thread / "runs").iterdir()]
    assert sorted(models) == ["one", "one", "two"]


def test_a_run_goes_through_its_life_by_words(thread: Path, shell: str) -> None:
    made = new_run(thread)
    succeeds("echo in_progress > status && printf requires_action > status", made, shell)
    succeeds("echo in_progress >> status && echo completed > status", made, shell)
    assert list(document(made / "status"))[-2:] == ["started_at", "completed_at"]


@pytest.mark.parametrize("word", ["queued", "completed", "failed", "cancelled"])
def test_a_status_for_a_run_that_has_ended_is_refused_in_every_shell(
    mount: Mount, thread: Path, shell: str, word: str
) -> None:
    made = new_run(thread, "completed")
    before = contents(mount.store)
    assert run(f"echo {word} > status", made, shell).returncode != 0
    assert contents(mount.store) == before
    assert mount.errors().splitlines()[-1].split("\t")[2] == "EPERM"
