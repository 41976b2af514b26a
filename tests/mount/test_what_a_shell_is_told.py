"""A shell ignores what ``close`` says: so ``write`` says what is refused, and one open is one text."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.mount.conftest import Mount, wait_until
from tests.mount.scripts import contents, document, new_thread, run, succeeds, texts


@pytest.fixture
def thread(mount: Mount) -> Path:
    """A thread with a message, a run ``q`` that is queued, and one ``done`` that is completed."""
    thread = new_thread(mount)
    for name in ("q", "done"):
        (thread / "runs" / name).mkdir()
    (thread / "runs" / "done" / "status").write_text("completed\n")
    (thread / "messages.jsonl").write_text('{"role":"user","content":"first"}\n')
    return thread


# Script, and the errno that is in .threadfs/errors then.
REFUSED = [
    ("""echo '{"status":"bogus"}' > runs/q/status""", "EINVAL"),
    ("""printf '{"status":"bogus"}' > runs/q/status""", "EINVAL"),
    ("""echo '{"status":"in_progress"}' > runs/done/status""", "EPERM"),
    ("""echo '{"model":7}' > runs/q/status""", "EINVAL"),
    ("""echo > runs/q/status""", "EINVAL"),
    ("""echo '{"created_at":7}' > meta.json""", "EINVAL"),
    ("""echo '{"metadata":{}} x' > meta.json""", "EINVAL"),
    ("""echo '{"metadata":{}} {"metadata":{}}' > meta.json""", "EINVAL"),
    ("""echo '{"metadata":{},}' >> meta.json""", "EINVAL"),
    ("""echo '{"step_type":7}' > runs/q/steps/s.json""", "EINVAL"),
    ("""echo '{"model":7}' > start""", "EINVAL"),
    ("""printf '{"model":"m","status":"completed"}' > start""", "EINVAL"),
    ("""printf '{"id":"q"}' > start""", "EEXIST"),
    ("""printf '{"model":"m"}{"model":"m"}' > start""", "EINVAL"),
    ("""printf '\\377\\376' > start""", "EINVAL"),
    ("""printf '\\377\\376' > say""", "EINVAL"),
    ("""printf '\\377\\376' > ask""", "EINVAL"),
    ("""printf '{"temperature":"hot"}' > start""", "EINVAL"),
    ("""printf '{"role":"robot","content":"x"}' >> messages.jsonl""", "EINVAL"),
    ("""printf '{"role":"user","content":"other"}' > messages.jsonl""", "EPERM"),
    ("""printf '{"role":"user","content":"first"}\\n{"role":5}' > messages.jsonl""", "EINVAL"),
]


@pytest.mark.parametrize(("script", "errno_name"), REFUSED, ids=[script for script, _ in REFUSED])
def test_a_builtin_fails_when_what_it_writes_is_refused_and_nothing_changes(
    mount: Mount, thread: Path, shell: str, script: str, errno_name: str
) -> None:
    before = contents(mount.store / thread.name)
    result = run(script, thread, shell)
    assert (result.returncode != 0, result.stderr != "") == (True, True)
    assert contents(mount.store / thread.name) == before
    assert mount.errors().splitlines()[-1].split("\t")[2] == errno_name


# What is said, in one open, by several programs or in pieces.
SAID = [
    ("{ cat a; cat b; echo c; } > say", "text of a\ntext of b\nc"),
    ("(cat a; cat b) > say", "text of a\ntext of b"),
    ("exec 5>say; cat a >&5; cat b >&5; exec 5>&-", "text of a\ntext of b"),
    ("exec 5>say; echo a >&5; echo b >&5; exec 5>&-", "a\nb"),
    ("$SHELL_UNDER_TEST ./talk > say", "text of a\nfrom a script\ntext of b"),
    ("cat a b | tee say > copy", "text of a\ntext of b"),
    ("{ printf 'gr\\303'; /usr/bin/printf '\\274n'; } > say", "grün"),
    ("exec 5>say; printf '\\377' >&5; cat b >&5; exec 5>&-", "text of b"),
    ("for word in one two; do /bin/echo $word; done > say", "one\ntwo"),
]


@pytest.fixture
def written(tmp_path: Path, shell: str) -> str:
    """A beginning of scripts: the files that they read, in a directory of their own."""
    (tmp_path / "a").write_text("text of a\n")
    (tmp_path / "b").write_text("text of b\n")
    (tmp_path / "talk").write_text(f"cat {tmp_path}/a\necho from a script\ncat {tmp_path}/b\n")
    return f"SHELL_UNDER_TEST={shell};"


@pytest.mark.parametrize(("script", "said"), SAID, ids=[script for script, _ in SAID])
def test_one_open_is_one_message_whoever_writes_to_it(
    thread: Path, tmp_path: Path, written: str, shell: str, script: str, said: str
) -> None:
    placed = script.replace("say", f"'{thread}/say'")
    result = run(written + placed, tmp_path, shell)
    assert result.returncode == 0, result
    assert texts(thread) == ["first", said]


def test_a_program_that_gives_its_open_file_to_children_says_one_message(thread: Path) -> None:
    with (thread / "say").open("w") as say:
        subprocess.run(["echo", "one"], stdout=say, check=True)
        assert texts(thread) == ["first"]
        subprocess.run(["echo", "two"], stdout=say, check=True)
    assert texts(thread) == ["first", "one\ntwo"]


def test_a_message_is_there_when_echo_has_returned(thread: Path, shell: str) -> None:
    assert '"hi"' in succeeds("echo hi > say; cat messages.jsonl", thread, shell)


def test_a_run_whose_object_is_written_by_several_programs_is_one(thread: Path, shell: str) -> None:
    script = """{ /bin/echo '{"id":"mine",'; /bin/echo '"model":"m"'; /bin/echo '}'; /bin/echo; } > start"""
    succeeds(script, thread, shell)
    assert sorted(made.name for made in (thread / "runs").iterdir()) == ["done", "mine", "q"]


def test_a_document_in_pieces_of_several_programs_gets_no_error_in_between(
    mount: Mount, thread: Path, shell: str
) -> None:
    errors = mount.errors()
    script = """{ /bin/echo '{"metadata":'; /bin/echo '{"b":"2"}'; /bin/echo '}'; /bin/echo; } > meta.json"""
    succeeds(script, thread, shell)
    assert document(thread / "meta.json")["metadata"] == {"b": "2"}
    assert mount.errors() == errors


def test_a_document_has_been_committed_when_its_object_closes(thread: Path) -> None:
    with (thread / "meta.json").open("wb", buffering=0) as file:
        file.write(b'{"metadata":{"a":')
        assert document(thread / "meta.json")["metadata"] == {}
        file.write(b'"1"}}')
        assert document(thread / "meta.json")["metadata"] == {"a": "1"}
        file.write(b"\n")
        file.write(b'{"metadata":{"b":"2"}}\n')
        assert document(thread / "meta.json")["metadata"] == {"a": "1", "b": "2"}


def test_what_is_asked_and_its_run_are_there_when_echo_has_returned(thread: Path, shell: str) -> None:
    succeeds("echo hi > ask; wc -l < messages.jsonl; ls runs", thread, shell)
    (made,) = {path.name for path in (thread / "runs").iterdir()} - {"done", "q"}
    asked = json.loads((thread / "messages.jsonl").read_text().splitlines()[-1])
    assert document(thread / "runs" / made / "status")["asked"] == asked["id"]
    assert texts(thread) == ["first", "hi"]


def test_what_several_programs_ask_in_one_open_is_one_question(thread: Path, shell: str) -> None:
    succeeds("{ /bin/echo one; cat runs/q/cancel; /bin/echo two; } > ask", thread, shell)
    assert texts(thread) == ["first", "one\ntwo"]
    assert len(list((thread / "runs").iterdir())) == 3


def test_nothing_is_asked_in_a_thread_that_is_damaged_or_has_gone(
    mount: Mount, thread: Path, shell: str
) -> None:
    gone = thread.parent / "gone"
    gone.mkdir()
    assert run("exec 5>ask; rm -r ../gone; echo hello >&5", gone, shell).returncode != 0
    assert mount.errors().splitlines()[-1].split("\t")[1:3] == ["threads/gone/ask", "ENOENT"]
    (mount.store / thread.name / "meta.json").write_text("{")
    before = contents(mount.store / thread.name)
    assert run("echo hello > ask", thread, shell).returncode != 0
    assert mount.errors().splitlines()[-1].split("\t")[2] == "EIO"
    assert contents(mount.store / thread.name) == before


@pytest.mark.parametrize("grows", [False, True])
def test_a_document_written_in_place_and_cut_to_its_size_is_that_document(thread: Path, grows: bool) -> None:
    path = thread / "meta.json"
    before = document(path)
    given = {**before, "metadata": {"long": "x" * 1000} if grows else {}}
    (thread / "meta.json").write_text(json.dumps({**before, "metadata": {"some": "y" * 100}}))
    data = json.dumps(given).encode()
    with path.open("r+b", buffering=0) as file:
        for start in range(0, len(data), 40):
            file.write(data[start : start + 40])
        file.truncate()
    assert document(path) == given


def test_half_a_document_is_told_of_at_the_close_and_in_the_errors_once(mount: Mount, thread: Path) -> None:
    before, count = contents(mount.store / thread.name), len(mount.errors().splitlines())
    result = run("""printf '{"metadata":' | dd of=meta.json status=none""", thread)
    assert (result.returncode, "Invalid argument" in result.stderr) == (1, True)
    assert contents(mount.store / thread.name) == before
    assert len(mount.errors().splitlines()) == count + 1


# Descriptor 7 is a second one of 6, so that closing 5 seems to leave the program what it needs for both.
_HIDDEN_END = "exec 5>{file} 6>{file} 7>&6; printf {text} >&6; printf {text} >&5; exec 5>&-; sleep 0.2"


def test_an_error_at_a_last_close_that_nobody_waits_for_is_in_the_errors(mount: Mount, thread: Path) -> None:
    succeeds(_HIDDEN_END.format(file="runs/q/status", text="'{\"model\":'"), thread)
    wait_until(lambda: "runs/q/status\tEINVAL" in mount.errors())


def test_a_message_whose_last_close_nobody_waits_for_is_said(thread: Path) -> None:
    succeeds(_HIDDEN_END.format(file="say", text="five"), thread)
    wait_until(lambda: texts(thread) == ["first", "five", "five"])


def test_of_two_opens_by_one_program_each_is_a_message_at_its_own_close(thread: Path, shell: str) -> None:
    script = "exec 5>say 6>say; cat {a} >&6; cat {a} >&5; exec 5>&-; wc -l < messages.jsonl; exec 6>&-"
    assert succeeds(script.format(a="meta.json"), thread, shell).split() == ["2"]
    assert len(texts(thread)) == 3


def test_of_a_text_whose_middle_is_refused_nothing_is_said(mount: Mount, thread: Path, shell: str) -> None:
    script = "{ head -c 200000 /dev/zero | tr '\\0' x; printf '\\377'; } | cat > say"
    assert "Invalid argument" in run(script, thread, shell).stderr
    assert texts(thread) == ["first"]
    assert "does not count unless more follows" in mount.errors().splitlines()[-1]


def test_what_follows_a_refused_piece_of_a_text_continues_it(thread: Path, shell: str) -> None:
    run("{ echo one; printf '\\377'; echo two; } > say", thread, shell)
    assert texts(thread) == ["first", "one\ntwo"]


def test_emptying_the_log_succeeds_and_changes_nothing(mount: Mount, thread: Path, shell: str) -> None:
    before = contents(mount.store / thread.name)
    succeeds(": > messages.jsonl; truncate -s 0 messages.jsonl", thread, shell)
    assert contents(mount.store / thread.name) == before


def test_a_message_to_a_thread_that_has_gone_is_refused_by_its_first_write(
    mount: Mount, thread: Path, shell: str
) -> None:
    script = "exec 5>say; rm -r ../gone; echo hello >&5"
    gone = thread.parent / "gone"
    gone.mkdir()
    result = run(script, gone, shell)
    assert result.returncode != 0
    assert mount.errors().splitlines()[-1].split("\t")[1:3] == ["threads/gone/say", "ENOENT"]
