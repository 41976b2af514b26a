"""Editing documents in every way that programs do: one commit each, or none. In three shells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.mount import scripts
from tests.mount.conftest import Mount, wait_until
from tests.mount.scripts import commits, contents, document, new_run, new_thread, run, succeeds, texts


@pytest.fixture
def thread(mount: Mount) -> Path:
    return new_thread(mount)


@pytest.mark.parametrize(
    "script",
    [
        """echo '{"metadata":{"topic":"sea"}}' > meta.json""",
        """echo '{"metadata":{"topic":"sea"}}' | tee meta.json""",
        """echo '{"metadata":{"topic":"sea"}}' >> meta.json""",
        """{ printf '{"meta'; printf 'data":{"topic":"se'; printf 'a"}}'; } > meta.json""",
        """jq '.metadata.topic = "sea"' meta.json > meta.new && mv meta.new meta.json""",
        """changed=$(jq '.metadata.topic = "sea"' meta.json); printf %s "$changed" > meta.json""",
        """sed -i 's/"metadata": {}/"metadata": {"topic": "sea"}/' meta.json""",
        """jq '.metadata.topic = "sea"' meta.json > /tmp/$$ && cp /tmp/$$ meta.json; rm /tmp/$$""",
        """jq '.metadata.topic = "sea"' meta.json > /tmp/$$ && cp -f --remove-destination /tmp/$$ meta.json
           rm /tmp/$$""",
    ],
)
def test_every_way_to_edit_the_thread_document_is_one_commit(
    mount: Mount, thread: Path, shell: str, script: str
) -> None:
    before, commits_before = document(thread / "meta.json"), commits(mount)
    succeeds(script, thread, shell)
    assert document(scripts.stored(mount, thread / "meta.json")) == {**before, "metadata": {"topic": "sea"}}
    assert commits(mount) == commits_before + 1


def test_a_document_in_pieces_that_each_flush_is_one_commit(mount: Mount, thread: Path, shell: str) -> None:
    commits_before = commits(mount)
    succeeds("""{ /bin/echo '{"metadata":'; /bin/echo '{"topic":"sea"}}'; } > meta.json""", thread, shell)
    assert document(thread / "meta.json")["metadata"] == {"topic": "sea"}
    assert commits(mount) == commits_before + 1


def test_removing_the_metadata_leaves_an_empty_object(thread: Path, shell: str) -> None:
    succeeds(
        """echo '{"metadata":{"a":1}}' > meta.json; echo '{"metadata":null}' > meta.json""", thread, shell
    )
    assert document(thread / "meta.json")["metadata"] == {}


@pytest.mark.parametrize(
    "patch", ['{"object":"thread"}', '{"created_at":1}', '{"metadata":', "word", "[]", '""', "null"]
)
def test_what_the_thread_document_cannot_become_is_refused(
    mount: Mount, thread: Path, shell: str, patch: str
) -> None:
    before = contents(mount.store)
    assert "Invalid argument" in run(f"echo '{patch}' | tee meta.json", thread, shell).stderr
    assert contents(mount.store) == before


def test_a_step_is_made_edited_and_ended(thread: Path, shell: str) -> None:
    made = new_run(thread, "in_progress")
    succeeds("""echo '{"step_type":"tool_calls"}' > steps/eins.json""", made, shell)
    step = made / "steps" / "eins.json"
    assert document(step)["status"] == "in_progress"
    succeeds("""echo '{"note":"ä"}' > steps/eins.json && echo completed > steps/eins.json""", made, shell)
    assert (document(step)["note"], document(step)["status"]) == ("ä", "completed")
    assert "completed_at" in document(step)
    assert run("echo failed > steps/eins.json", made, shell).returncode != 0
    assert document(step)["status"] == "completed"


def test_a_step_in_pieces_is_there_when_it_is_whole(mount: Mount, thread: Path, shell: str) -> None:
    made = new_run(thread, "in_progress")
    commits_before = commits(mount)
    script = """{ printf '{"step_type":'; ls steps >&2; printf '"tool_calls"}'; } > steps/a.json; ls steps"""
    result = run(script, made, shell)
    assert (result.stderr, result.stdout) == ("", "a.json\n")
    assert document(scripts.stored(mount, made / "steps" / "a.json"))["step_type"] == "tool_calls"
    assert commits(mount) == commits_before + 1


def test_half_a_step_is_no_step(mount: Mount, thread: Path, shell: str) -> None:
    made = new_run(thread, "in_progress")
    before = contents(mount.store)
    assert run("""printf '{"step_type":' | tee steps/a.json""", made, shell).stderr != ""
    assert succeeds("ls steps", made, shell) == ""
    assert contents(mount.store) == before


def test_a_patch_of_the_run_with_status_and_fields_is_one_commit(
    mount: Mount, thread: Path, shell: str
) -> None:
    made = new_run(thread, "in_progress")
    commits_before = commits(mount)
    patch = json.dumps({"status": "failed", "last_error": {"code": "x", "message": "é"}, "note": 1})
    succeeds(f"echo '{patch}' > status", made, shell)
    after = document(made / "status")
    assert (after["status"], after["last_error"]["message"], after["note"]) == ("failed", "é", 1)
    assert commits(mount) == commits_before + 1


@pytest.mark.parametrize(
    ("file", "text", "is_accepted"),
    [
        ("say", "half a sentence", True),
        ("ask", "half a sentence", True),
        ("meta.json", '{"metadata":{"half"', False),
        ("start", '{"model":', False),
        ("messages.jsonl", '{"role":"user",', False),
    ],
)
def test_a_writer_that_is_killed_looks_like_one_that_closes(
    mount: Mount, thread: Path, shell: str, file: str, text: str, is_accepted: bool
) -> None:
    before = contents(mount.store)
    result = run(f"exec 3>> {file}; printf '%s' '{text}' >&3; kill -9 $$", thread, shell)
    assert result.returncode == -9
    if is_accepted:
        wait_until(lambda: texts(thread) == [text])
    else:
        wait_until(lambda: f"{thread.name}/{file}\tEINVAL" in mount.errors())
        assert contents(mount.store) == before


def test_a_document_is_edited_in_place_in_one_open(thread: Path) -> None:
    made = new_run(thread)
    with (made / "status").open("r+b") as file:
        text = file.read()
        file.seek(text.index(b'"queued"'))
        file.write(b'"failed"')
    assert document(made / "status")["status"] == "failed"
