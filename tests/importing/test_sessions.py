"""Sessions of coding agents, and what breaks converters: trees of lines, texts twice, files that grow."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from store import ThreadStore
from tests.importing.conftest import (
    FIXTURES,
    Fields,
    Result,
    everything,
    imported,
    lines_of,
    runs_of,
    said,
    steps_of,
)

CLAUDE = "claude-code-S"
CODEX = "codex-R"


def jsonl(path: Path, *values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


class Session:
    """A store into which one session was imported, over what was there before."""

    def __init__(self, root: Path, *lines: Fields, options: tuple[str, ...] = ()) -> None:
        self.result: Result = imported(root / "store", jsonl(root / "session.jsonl", *lines), *options)
        self.store = ThreadStore(root / "store")
        self.thread_ids = self.store.list_thread_ids()

    def texts(self, thread_id: str) -> list[str]:
        return [text for _, text in said(self.store, thread_id)]

    def calls(self, thread_id: str) -> list[Fields]:
        """The functions that were called, in the order of runs and steps."""
        steps = [
            step
            for run in runs_of(self.store, thread_id)
            for step in steps_of(self.store, thread_id, run["id"])
        ]
        return [call["function"] for step in steps for call in step["step_details"].get("tool_calls", ())]


# ── Claude Code ─────────────────────────────────────────────────────────────────────────────────────────


def line(uuid: str, parent: str | None, **given: Any) -> Fields:
    """A line of a session: of the user with *text*, of the assistant with *answer*; or whatever is given."""
    made: Fields = {
        "type": "user",
        "uuid": uuid,
        "parentUuid": parent,
        "isSidechain": False,
        "sessionId": "S",
        "cwd": "/home/ada",
        "timestamp": f"2026-01-05T08:00:{sum(map(ord, uuid)) % 60:02}Z",
    }
    if "text" in given:
        made["message"] = {"role": "user", "content": given.pop("text")}
    if "answer" in given:
        content = [{"type": "text", "text": given.pop("answer")}]
        made |= {"type": "assistant", "message": {"id": f"msg-{uuid}", "model": "m", "content": content}}
    return made | given


def call(uuid: str, parent: str, call_id: str, answer: str) -> Fields:
    """A line of *answer* in which a tool is called."""
    content = [{"type": "tool_use", "id": call_id, "name": "Bash", "input": {"command": call_id}}]
    return line(uuid, parent, type="assistant", message={"id": answer, "model": "m", "content": content})


def result(uuid: str, parent: str, call_id: str, output: Any = "done") -> Fields:
    content = [{"type": "tool_result", "tool_use_id": call_id, "content": output}]
    return line(uuid, parent, message={"role": "user", "content": content})


def in_order(*lines: Fields) -> list[Fields]:
    """The lines, a second apart."""
    return [
        {**given, "timestamp": f"2026-01-05T{8 + at // 60:02}:{at % 60:02}:00Z"}
        for at, given in enumerate(lines)
    ]


def test_calls_at_the_same_time_are_steps_though_their_lines_are_on_side_branches(tmp_path: Path) -> None:
    lines = in_order(
        line("u", None, text="Go."),
        call("c1", "u", "t1", "msg"),
        call("c2", "u", "t2", "msg"),
        call("c3", "u", "t3", "msg"),
        result("r1", "c1", "t1", "one"),
        result("r3", "c3", "t3", "three"),
        result("r2", "c2", "t2", "two"),
        line("a", "r2", answer="Done."),
    )
    session = Session(tmp_path, *lines)
    assert [function["output"] for function in session.calls(CLAUDE)] == ["one", "two", "three"]
    assert session.texts(CLAUDE) == ["Go.", "Done."]
    assert len(runs_of(session.store, CLAUDE)) == 1


def test_lines_that_are_there_twice_count_once(tmp_path: Path) -> None:
    lines = in_order(line("u", None, text="Go."), line("a", "u", answer="Gone."))
    assert Session(tmp_path, *lines, *lines).texts(CLAUDE) == ["Go.", "Gone."]


def test_what_was_said_before_a_compaction_stays_and_the_summary_is_no_message(tmp_path: Path) -> None:
    lines = in_order(
        line("u", None, text="One?"),
        line("a", "u", answer="One."),
        line("b", None, type="system", subtype="compact_boundary", logicalParentUuid="a"),
        line("s", "b", text="This session is being continued from …", isCompactSummary=True),
        line("u2", "s", text="Two?"),
        line("a2", "u2", answer="Two."),
        line("b2", None, type="system", subtype="compact_boundary"),
        line("u3", "b2", text="Three?"),
    )
    assert Session(tmp_path, *lines).texts(CLAUDE) == ["One?", "One.", "Two?", "Two.", "Three?"]


def test_a_parent_that_was_never_written_does_not_lose_what_was_before(tmp_path: Path) -> None:
    lines = in_order(
        line("u", None, text="One?"),
        line("a", "phantom", answer="One."),
        line("u2", "another-phantom", text="Two?"),
    )
    assert Session(tmp_path, *lines).texts(CLAUDE) == ["One?", "One.", "Two?"]


def test_lines_of_progress_do_not_lead_past_an_answer(tmp_path: Path) -> None:
    lines = in_order(
        line("u", None, text="Go."),
        call("c", "u", "t", "msg"),
        line("p1", "c", type="progress", data={}),
        result("r", "c", "t"),
        line("a", "r", answer="Done."),
        line("p2", "p1", type="progress", data={}),
        line("u2", "p2", text="More."),
        line("a2", "u2", answer="No."),
    )
    assert Session(tmp_path, *lines).texts(CLAUDE) == ["Go.", "Done.", "More.", "No."]


def test_a_question_that_was_edited_is_another_branch(tmp_path: Path) -> None:
    lines = in_order(
        line("u", None, text="One?"),
        line("a", "u", answer="One."),
        line("u2", "a", text="Old?"),
        line("a2", "u2", answer="Old."),
        line("p", "a", type="progress", data={}),
        line("u3", "p", text="New?"),
    )
    session = Session(tmp_path, *lines, options=("--branches",))
    session.result.has(imported=1, branch=1)
    assert session.texts(CLAUDE) == ["One?", "One.", "New?"]
    (branch,) = set(session.thread_ids) - {CLAUDE}
    assert session.texts(branch) == ["One?", "One.", "Old?", "Old."]


@pytest.mark.parametrize(
    "put_in",
    [
        "<command-name>/model</command-name>\n<command-args>x</command-args>",
        "<local-command-stdout>ok</local-command-stdout>",
        "<bash-stdout>ok</bash-stdout><bash-stderr></bash-stderr>",
        "<task-notification>done</task-notification>",
        "<system-reminder>Be careful.</system-reminder>",
        "[Request interrupted by user for tool use]",
    ],
)
def test_what_the_program_put_in_the_users_name_is_no_message(put_in: str, tmp_path: Path) -> None:
    lines = in_order(line("u", None, text="Go."), line("x", "u", text=put_in), line("a", "x", answer="Gone."))
    assert Session(tmp_path, *lines).texts(CLAUDE) == ["Go.", "Gone."]


def test_what_the_user_wrote_while_the_agent_worked_is_a_message(tmp_path: Path) -> None:
    queued = {"type": "queued_command", "prompt": "And this.", "commandMode": "prompt"}
    notice = {"type": "queued_command", "prompt": "A task has ended.", "commandMode": "task-notification"}
    lines = in_order(
        line("u", None, text="Go."),
        line("q", "u", type="attachment", attachment=queued),
        line("n", "q", type="attachment", attachment=notice),
        line("a", "n", answer="Both."),
    )
    assert Session(tmp_path, *lines).texts(CLAUDE) == ["Go.", "And this.", "Both."]


def test_a_file_of_a_sub_agent_is_no_conversation(tmp_path: Path) -> None:
    lines = [line("u", None, text="Search.", isSidechain=True, agentId="a1")]
    session = jsonl(tmp_path / "projects/-home-ada/S.jsonl", line("u", None, text="Go."))
    jsonl(tmp_path / "projects/-home-ada/S/subagents/agent-a1.jsonl", *lines)
    imported(tmp_path / "store", tmp_path / "projects").has(imported=1, empty=1)
    assert said(ThreadStore(tmp_path / "store"), CLAUDE) == [["user", "Go."]]
    assert session.exists()


def test_a_copy_that_was_made_to_go_on_is_a_session_of_its_own(tmp_path: Path) -> None:
    first = in_order(line("u", None, text="One?"), line("a", "u", answer="One."))
    more = in_order(*first, line("u2", "a", text="Two?", sessionId="T"))
    jsonl(tmp_path / "p/S.jsonl", *first)
    jsonl(tmp_path / "p/T.jsonl", *more)
    imported(tmp_path / "store", tmp_path / "p").has(imported=2)
    store = ThreadStore(tmp_path / "store")
    assert said(store, CLAUDE) == [["user", "One?"], ["assistant", "One."]]
    assert [text for _, text in said(store, "claude-code-T")] == ["One?", "One.", "Two?"]


def test_the_name_that_the_user_gave_is_the_title(tmp_path: Path) -> None:
    lines = [
        {"type": "custom-title", "customTitle": "Mine", "sessionId": "S"},
        {"type": "ai-title", "aiTitle": "Made up", "sessionId": "S"},
        line("u", None, text="Go."),
    ]
    assert Session(tmp_path, *lines).store.get_thread(CLAUDE).metadata["title"] == "Mine"


def test_a_summary_of_another_session_is_not_the_title(tmp_path: Path) -> None:
    others = {"type": "summary", "summary": "Another", "leafUuid": "of-another-file"}
    own = {"type": "summary", "summary": "This", "leafUuid": "u"}
    session = Session(tmp_path, others, line("u2", None, text="Go.", sessionId="T"))
    assert session.store.get_thread("claude-code-T").metadata["title"] == "Go."
    session = Session(tmp_path, own, line("u", None, text="Go.", sessionId="U"))
    assert session.store.get_thread("claude-code-U").metadata["title"] == "This"


def test_lines_that_stand_before_those_they_follow_are_in_their_order(tmp_path: Path) -> None:
    one, two, three, four = in_order(
        line("u", None, text="One?"),
        line("a", "u", answer="One."),
        line("h", "a", type="attachment", attachment={"type": "hook"}),
        line("u2", "h", text="Two?"),
    )
    assert Session(tmp_path, one, three, two, four).texts(CLAUDE) == ["One?", "One.", "Two?"]


def test_a_session_gives_the_same_bytes_as_a_file_in_a_directory_and_on_stdin(tmp_path: Path) -> None:
    (given,) = (FIXTURES / "claude-code").glob("session/-home*/*.jsonl")
    imported(tmp_path / "file", given)
    imported(tmp_path / "directory", given.parent.parent)
    imported(tmp_path / "stdin", stdin=given.read_bytes())
    assert everything(tmp_path / "file") == everything(tmp_path / "directory")
    assert everything(tmp_path / "file") == everything(tmp_path / "stdin")


def test_a_session_that_grows_line_by_line_is_the_same_in_the_end(tmp_path: Path) -> None:
    (given,) = (FIXTURES / "claude-code").glob("session/-home*/*.jsonl")
    lines = given.read_bytes().splitlines(keepends=True)
    path = tmp_path / "session.jsonl"
    for end in range(1, len(lines) + 1):
        # The next line is being written.
        path.write_bytes(b"".join(lines[:end]) + lines[end % len(lines)][:40])
        assert imported(tmp_path / "grown", path).stderr == ""
    imported(tmp_path / "whole", path).has(imported=1)
    (thread_id,) = ThreadStore(tmp_path / "grown").list_thread_ids()
    grown, whole = ThreadStore(tmp_path / "grown"), ThreadStore(tmp_path / "whole")
    assert said(grown, thread_id) == said(whole, thread_id)
    assert grown.list_run_ids(thread_id) == whole.list_run_ids(thread_id)
    for run_id in whole.list_run_ids(thread_id):
        assert steps_of(grown, thread_id, run_id) == steps_of(whole, thread_id, run_id)
    assert grown.get_thread(thread_id).metadata == whole.get_thread(thread_id).metadata


def test_a_call_comes_with_its_output(tmp_path: Path) -> None:
    lines = in_order(line("u", None, text="Go."), call("c", "u", "t", "msg"), result("r", "c", "t", ""))
    session = Session(tmp_path, *lines[:2])
    assert (session.calls(CLAUDE), runs_of(session.store, CLAUDE)) == ([], [])
    session = Session(tmp_path, *lines)
    session.result.has(extended=1)
    assert session.calls(CLAUDE) == [{"name": "Bash", "arguments": '{"command": "t"}', "output": ""}]


def test_a_broken_line_costs_itself(tmp_path: Path) -> None:
    lines = in_order(line("u", None, text="Go."), line("a", "u", answer="Gone."))
    path = jsonl(tmp_path / "s.jsonl", lines[0])
    path.write_text(path.read_text() + "{broken\n" + json.dumps(lines[1]) + "\n")
    result = imported(tmp_path / "store", path)
    result.has(imported=1, skipped=1)
    assert "s.jsonl:2: not JSON" in result.stderr
    assert said(ThreadStore(tmp_path / "store"), CLAUDE) == [["user", "Go."], ["assistant", "Gone."]]


def test_a_session_that_is_too_large_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadfs.importing.claude_code.MAX_CONVERSATION", 1 << 20)
    large = [line(f"u{number}", None, text="x" * 600_000) for number in range(2)]
    jsonl(tmp_path / "p/large.jsonl", *large)
    jsonl(tmp_path / "p/small.jsonl", line("u", None, text="Go.", toolUseResult="x" * 2_000_000))
    result = imported(tmp_path / "store", tmp_path / "p")
    result.has(imported=1, skipped=1)
    assert "large.jsonl: larger than 1 MiB" in result.stderr


# ── Codex ───────────────────────────────────────────────────────────────────────────────────────────────


def item(kind: str, /, **payload: Any) -> Fields:
    """A line of a rollout with an item."""
    payload = {"type": kind, **payload}
    return {"timestamp": "2026-03-04T05:06:07Z", "type": "response_item", "payload": payload}


def event(kind: str, /, **payload: Any) -> Fields:
    return {**item(kind, **payload), "type": "event_msg"}


def words(role: str, text: str) -> Fields:
    """An item that is a message, as it stood in a file before lines had a payload."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def message(role: str, text: str) -> Fields:
    given = words(role, text)
    return item(given.pop("type"), **given)


def typed(text: str) -> list[Fields]:
    """What the user typed, as it is in a rollout: twice."""
    return [message("user", text), event("user_message", message=text)]


def meta(**payload: Any) -> Fields:
    return {**item("", **{"id": "R", "cwd": "/home/ada", **payload}), "type": "session_meta"}


CONTEXT = "<environment_context>\n<cwd>/</cwd>\n</environment_context>"


def test_the_format_of_bare_lines_is_read(tmp_path: Path) -> None:
    first = {"id": "R", "timestamp": "2025-07-01T00:00:00.000Z", "instructions": "Use spaces.", "git": {}}
    call = {"type": "function_call", "name": "shell", "arguments": "{}", "call_id": "c"}
    output = json.dumps({"output": "failed", "metadata": {"exit_code": 1}})
    session = Session(
        tmp_path,
        first,
        {"record_type": "state"},
        words("user", CONTEXT),
        words("user", "Go."),
        call,
        {"type": "function_call_output", "call_id": "c", "output": output},
        words("assistant", "Gone."),
    )
    assert session.texts(CODEX) == ["Go.", "Gone."]
    assert session.calls(CODEX) == [{"name": "shell", "arguments": "{}", "output": "failed"}]
    thread = session.store.get_thread(CODEX)
    assert (thread.created_at, thread.metadata["instructions"]) == (1_751_328_000, "Use spaces.")
    (run,) = runs_of(session.store, CODEX)
    assert [step["status"] for step in steps_of(session.store, CODEX, run["id"])] == ["failed", "completed"]


def test_the_format_of_one_object_is_read(tmp_path: Path) -> None:
    items = [words("user", "Go."), words("assistant", "Gone.")]
    value = {"session": {"id": "R", "timestamp": "2025-05-01T00:00:00Z", "instructions": ""}, "items": items}
    (tmp_path / "rollout.json").write_text(json.dumps(value, indent=2))
    imported(tmp_path / "store", tmp_path / "rollout.json").has(imported=1)
    assert said(ThreadStore(tmp_path / "store"), CODEX) == [["user", "Go."], ["assistant", "Gone."]]


@pytest.mark.parametrize(
    "context", [CONTEXT, "# A new kind of context\n", "<skill>\n<name>x</name>\n</skill>", "Plain words."]
)
def test_what_the_user_did_not_type_is_no_message_and_what_he_typed_is_one_once(
    context: str, tmp_path: Path
) -> None:
    session = Session(
        tmp_path,
        meta(),
        message("user", context),
        *typed("Go."),
        message("assistant", "Gone."),
        event("agent_message", message="Gone."),
    )
    assert session.texts(CODEX) == ["Go.", "Gone."]


def test_what_an_editor_puts_before_a_request_is_left_out(tmp_path: Path) -> None:
    given = "# Context from my IDE setup:\n\n## Open tabs:\n- a.py\n\n## My request for Codex:\nGo.\n"
    assert Session(tmp_path, meta(), *typed(given)).texts(CODEX) == ["Go."]


def test_what_was_taken_back_is_no_longer_there_and_stays_where_it_was_imported(tmp_path: Path) -> None:
    before = [meta(), *typed("One?"), message("assistant", "One."), *typed("Two?")]
    Session(tmp_path, *before, message("assistant", "Wrong.")).result.has(imported=1)
    back = event("thread_rolled_back", num_turns=1)
    more = [*before, message("assistant", "Wrong."), back, *typed("Three?"), message("assistant", "Three.")]
    session = Session(tmp_path, *more)
    session.result.has(branch=1)
    assert session.texts(CODEX) == ["One?", "One.", "Two?", "Wrong."]
    (branch,) = set(session.thread_ids) - {CODEX}
    assert session.texts(branch) == ["One?", "One.", "Three?", "Three."]


def test_a_session_of_a_sub_agent_is_no_conversation(tmp_path: Path) -> None:
    source = {"subagent": {"thread_spawn": {"parent_thread_id": "R"}}}
    Session(tmp_path, meta(id="A", source=source), *typed("Search.")).result.has(empty=1)


def test_a_fork_has_its_own_id_and_what_it_was_made_of(tmp_path: Path) -> None:
    copied = [meta(), *typed("One?"), message("assistant", "One.")]
    session = Session(tmp_path, meta(id="F", forked_from_id="R"), *copied, *typed("Two?"))
    assert session.thread_ids == ["codex-F"]
    assert session.texts("codex-F") == ["One?", "One.", "Two?"]


def test_calls_of_all_kinds_are_steps(tmp_path: Path) -> None:
    parts = [{"type": "input_text", "text": "seen"}]
    session = Session(
        tmp_path,
        meta(),
        *typed("Go."),
        item("local_shell_call", call_id="c1", action={"type": "exec", "command": ["ls"]}),
        item("function_call_output", call_id="c1", output="a.txt"),
        item("web_search_call", id="c2", action={"type": "search", "query": "bees"}),
        item("function_call", call_id="c3", name="view_image", arguments='{"path":"a"}'),
        item("function_call_output", call_id="c3", output=parts),
        item("function_call_output", call_id="nobody", output="lost"),
        message("assistant", "Done."),
    )
    assert session.calls(CODEX) == [
        {"name": "local_shell", "arguments": '{"type": "exec", "command": ["ls"]}', "output": "a.txt"},
        {"name": "web_search", "arguments": '{"type": "search", "query": "bees"}'},
        {"name": "view_image", "arguments": '{"path":"a"}', "output": "seen"},
    ]


def test_pictures_of_codex_are_blocks_and_written_on_demand(tmp_path: Path) -> None:
    address = "data:image/png;base64,iVBORw0KGgo="
    lines = [meta(), event("user_message", message="See.", images=[address], local_images=["/tmp/b.png"])]
    session = Session(tmp_path, *lines, options=("--files", str(tmp_path / "files")))
    (given,) = lines_of(session.store, CODEX)
    assert [block["type"] for block in given["content"]] == ["text", "image_file", "image_file"]
    (picture,) = (tmp_path / "files").iterdir()
    assert picture.name == given["content"][1]["image_file"]["file_id"] + ".png"
    assert given["metadata"] == {"files": "b.png"}


def test_a_rollout_that_grows_line_by_line_is_the_same_in_the_end(tmp_path: Path) -> None:
    (given,) = (FIXTURES / "codex").glob("rollout/**/*.jsonl")
    lines = given.read_bytes().splitlines(keepends=True)
    for end in range(1, len(lines) + 1):
        (tmp_path / "r.jsonl").write_bytes(b"".join(lines[:end]))
        assert imported(tmp_path / "grown", tmp_path / "r.jsonl").counts["branch"] == 0
    imported(tmp_path / "whole", given)
    (thread_id,) = ThreadStore(tmp_path / "whole").list_thread_ids()
    for root in ("grown", "whole"):
        store = ThreadStore(tmp_path / root)
        (run,) = runs_of(store, thread_id)
        assert len(steps_of(store, thread_id, run["id"])) == 3
        assert said(store, thread_id) == [["user", "Melt the wax."], ["assistant", "It is melted."]]


# ── zstd ────────────────────────────────────────────────────────────────────────────────────────────────


def packed(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.compress(data[:50]) + zstandard.compress(data[50:]))
    return path


def test_a_rollout_that_is_packed_gives_the_same_bytes(tmp_path: Path) -> None:
    (given,) = (FIXTURES / "codex").glob("rollout/**/*.jsonl")
    packed(tmp_path / "sessions/2026/r.jsonl.zst", given.read_bytes())
    imported(tmp_path / "one", given)
    imported(tmp_path / "other", tmp_path / "sessions").has(imported=1)
    assert everything(tmp_path / "one") == everything(tmp_path / "other")
    imported(tmp_path / "other", given).has(left=1)


def test_what_is_packed_and_cannot_be_read_is_named_and_the_others_come_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (given,) = (FIXTURES / "codex").glob("rollout/**/*.jsonl")
    packed(tmp_path / "s/r.jsonl.zst", given.read_bytes())
    (tmp_path / "s/plain.jsonl").write_bytes(given.read_bytes())
    monkeypatch.setitem(sys.modules, "zstandard", None)
    result = imported(tmp_path / "store", tmp_path / "s")
    result.has(imported=1, skipped=1)
    assert "r.jsonl.zst: is packed with zstd" in result.stderr
    assert "zstandard" in result.stderr


def test_a_packed_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = packed(tmp_path / "r.jsonl.zst", b"x" * 1000)
    path.write_bytes(path.read_bytes()[:12] + b"\xff" * 20)
    result = imported(tmp_path / "store", path)
    assert result.status == 1
    assert "r.jsonl.zst: cannot be unpacked" in result.stderr
