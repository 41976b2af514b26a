"""What breaks converters: each source with what it is known to hold beside plain conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from store import ThreadStore
from tests.importing.conftest import (
    Fields,
    Result,
    chatgpt,
    imported,
    lines_of,
    runs_of,
    said,
    steps_of,
    written,
    zipped,
)


class Imported:
    """A store into which one conversation was imported."""

    def __init__(self, root: Path, value: Any, *options: str) -> None:
        self.result: Result = imported(root / "store", written(root / "e.json", value), *options)
        self.store = ThreadStore(root / "store")
        thread_ids = [thread_id for thread_id in self.store.list_thread_ids() if "~" not in thread_id]
        self.thread_id = thread_ids[0] if thread_ids else ""

    @property
    def said(self) -> list[list[str]]:
        return said(self.store, self.thread_id)

    @property
    def metadata(self) -> Fields:
        found: Fields = self.store.get_thread(self.thread_id).metadata
        return found

    @property
    def steps(self) -> list[Fields]:
        (run,) = runs_of(self.store, self.thread_id)
        return steps_of(self.store, self.thread_id, run["id"])

    def line(self, number: int) -> Fields:
        return lines_of(self.store, self.thread_id)[number]


# ── ChatGPT ─────────────────────────────────────────────────────────────────────────────────────────────


def node(given: Fields, role: str, content: Fields, name: str = "n", **fields: Any) -> Fields:
    """The conversation with a further message."""
    message = {
        "id": name,
        "author": {"role": role, "name": fields.pop("author", None)},
        "create_time": 1_700_000_100,
        "content": content,
        "recipient": "all",
        **fields,
    }
    mapping = given["mapping"] | {name: {"id": name, "parent": given["current_node"], "message": message}}
    return {**given, "mapping": mapping, "current_node": name}


def words(*parts: Any) -> Fields:
    return {"content_type": "text", "parts": list(parts)}


def test_one_conversation_that_is_not_in_a_list_is_one(tmp_path: Path) -> None:
    assert Imported(tmp_path, chatgpt("a", "b")).said == [["user", "a"], ["assistant", "b"]]


def test_a_transcript_of_what_was_spoken_is_its_text_and_the_sound_a_file(tmp_path: Path) -> None:
    parts = [
        {"content_type": "audio_transcription", "text": "Spoken.", "direction": "in"},
        {"content_type": "audio_asset_pointer", "asset_pointer": "sediment://file_00ab?x=1"},
    ]
    content = {"content_type": "multimodal_text", "parts": parts}
    made = Imported(tmp_path, node(chatgpt(), "user", content))
    assert made.said == [["user", "Spoken."]]
    assert made.line(0)["attachments"] == [{"file_id": "file_00ab"}]
    assert "unknown" not in made.result.stdout


def test_files_of_a_message_are_attachments_with_their_names(tmp_path: Path) -> None:
    attachments = [{"id": "file-1", "name": "a.pdf"}, {"id": "file-2", "name": "b.txt"}]
    made = Imported(tmp_path, node(chatgpt(), "user", words("See."), metadata={"attachments": attachments}))
    assert made.line(0)["attachments"] == [{"file_id": "file-1"}, {"file_id": "file-2"}]
    assert made.line(0)["metadata"] == {"files": "a.pdf\nb.txt"}


def test_hidden_messages_are_none(tmp_path: Path) -> None:
    hidden = {"is_visually_hidden_from_conversation": True}
    given = node(chatgpt("a"), "assistant", words("context"), metadata=hidden)
    assert Imported(tmp_path, given).said == [["user", "a"]]


def test_an_unknown_kind_of_content_is_kept_if_it_has_a_text_and_counted(tmp_path: Path) -> None:
    given = node(chatgpt("a"), "assistant", {"content_type": "hologram", "text": "Look."})
    given = node(given, "assistant", {"content_type": "smell"}, "m")
    made = Imported(tmp_path, given)
    assert made.said == [["user", "a"], ["assistant", "Look."]]
    assert made.result.stdout.endswith(", 2 unknown contents\n")
    assert made.result.status == 0


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (chatgpt("a", conversation_id=""), "has no id"),
        (chatgpt("a") | {"mapping": []}, "mapping"),
        (node(chatgpt("a"), "critic", words("Bad.")), "critic"),
        ("text", "not a JSON object"),
        (7, "not a JSON object"),
    ],
)
def test_a_conversation_that_is_wrong_costs_itself(given: Any, reason: str, tmp_path: Path) -> None:
    good = [chatgpt("x", conversation_id="good"), given, chatgpt("y", conversation_id="also")]
    made = Imported(tmp_path, good)
    made.result.has(imported=2, skipped=1)
    assert "e.json, number 2" in made.result.stderr
    assert reason in made.result.stderr


@pytest.mark.parametrize(
    ("text", "references", "shown"),
    [
        ("a \ue200cite\ue202turn0\ue201 b", [], "a  b"),
        (
            "a \ue200cite\ue202turn0\ue201",
            [{"matched_text": "\ue200cite\ue202turn0\ue201", "alt": None}],
            "a ",
        ),
        ("a \ue200x\ue201", [{"matched_text": "\ue200x\ue201", "alt": "[b](c)"}], "a [b](c)"),
        ("a【3†source】b", [], "ab"),
        ("a b c", [{"matched_text": " ", "alt": ""}], "a b c"),
        ("a \ue203b\ue204 c", [], "a b c"),
        ("【no citation】", [], "【no citation】"),
    ],
)
def test_marks_of_citations_become_markdown_or_nothing(
    text: str, references: list[Fields], shown: str, tmp_path: Path
) -> None:
    given = node(chatgpt("a"), "assistant", words(text), metadata={"content_references": references})
    assert Imported(tmp_path, given).said[1] == ["assistant", shown]


def test_a_call_that_failed_is_a_failed_step(tmp_path: Path) -> None:
    given = node(chatgpt("a"), "assistant", {"content_type": "code", "text": "1/0"}, "c", recipient="python")
    given = node(given, "tool", {"content_type": "system_error", "text": "Timeout"}, "e", author="python")
    (step,) = Imported(tmp_path, given).steps
    assert (step["status"], "completed_at" in step, "failed_at" in step) == ("failed", False, True)
    assert step["step_details"]["tool_calls"][0]["code_interpreter"]["outputs"][0]["logs"] == "Timeout"


def test_what_was_thought_before_a_plain_answer_is_kept_with_it(tmp_path: Path) -> None:
    thoughts = [{"summary": "s", "content": "First."}, {"summary": "Only a summary.", "content": ""}]
    given = node(chatgpt("a"), "assistant", {"content_type": "thoughts", "thoughts": thoughts}, "t")
    made = Imported(tmp_path, node(given, "assistant", words("b"), "b"))
    (step,) = made.steps
    assert step["reasoning"] == ["First.", "Only a summary."]
    assert step["step_details"] == {"message_id": "b"}
    assert made.said == [["user", "a"], ["assistant", "b"]]


def test_calls_of_one_second_stay_in_their_order(tmp_path: Path) -> None:
    given = chatgpt("a")
    for number in range(12):
        content = {"content_type": "code", "text": str(number)}
        given = node(given, "assistant", content, f"call{number}", recipient="web")
    calls = [step["step_details"]["tool_calls"][0]["function"] for step in Imported(tmp_path, given).steps]
    assert [call["arguments"] for call in calls] == [str(number) for number in range(12)]


def test_a_canvas_is_a_call_with_its_text(tmp_path: Path) -> None:
    content = words('{"name":"poem","content":"Roses"}')
    given = node(chatgpt("a"), "assistant", content, recipient="canmore.create_textdoc")
    (step,) = Imported(tmp_path, given).steps
    assert step["step_details"]["tool_calls"][0]["function"] == {
        "name": "canmore.create_textdoc",
        "arguments": '{"name":"poem","content":"Roses"}',
    }


def test_what_is_known_of_a_conversation_is_in_its_metadata(tmp_path: Path) -> None:
    given = chatgpt("a", update_time=1.7e9 + 5, gizmo_id="g-p-1", is_archived=True, default_model_slug="m")
    assert Imported(tmp_path, given).metadata == {
        "title": "Title",
        "source": "chatgpt",
        "source_id": "c",
        "source_title": "Title",
        "source_updated_at": "2023-11-14T22:13:25Z",
        "model": "m",
        "project": "g-p-1",
        "archived": "true",
    }


def test_a_title_that_is_missing_is_the_first_line_of_80_characters_at_most(tmp_path: Path) -> None:
    made = Imported(tmp_path, chatgpt("\n  " + "word " * 40 + "\nmore", title=None))
    assert made.metadata["title"].startswith("word word")
    assert len(made.metadata["title"]) <= 80


# ── Claude.ai ───────────────────────────────────────────────────────────────────────────────────────────


def claude(*messages: Fields, **fields: Any) -> Fields:
    made = {"uuid": "u", "name": "Name", "created_at": "2025-01-01T00:00:00Z"}
    return {**made, "chat_messages": list(messages), **fields}


def turn(uuid: str, text: str, parent: str | None = None, **fields: Any) -> Fields:
    sender = "human" if uuid[0] == "h" else "assistant"
    made = {"uuid": uuid, "sender": sender, "text": text, "created_at": "2025-01-01T00:00:01Z"}
    return made | ({"parent_message_uuid": parent} if parent else {}) | fields


TREE = [
    turn("h1", "q", "00000000-0000-4000-8000-000000000000"),
    turn("a1", "old", "h1", created_at="2025-01-01T00:00:05Z"),
    turn("a2", "new", "h1", created_at="2025-01-01T00:00:03Z"),
    turn("h9", "another root", "00000000-0000-4000-8000-000000000000", created_at=None),
]


def test_the_visible_path_is_that_to_the_leaf_that_is_named(tmp_path: Path) -> None:
    made = Imported(tmp_path, [claude(*TREE, current_leaf_message_uuid="a2")])
    assert made.said == [["user", "q"], ["assistant", "new"]]


def test_without_a_leaf_the_visible_path_is_that_to_the_newest_message(tmp_path: Path) -> None:
    made = Imported(tmp_path, [claude(*TREE)], "--branches")
    assert made.said == [["user", "q"], ["assistant", "old"]]
    made.result.has(imported=1, branch=2)


def test_a_message_that_holds_only_a_file_is_one(tmp_path: Path) -> None:
    made = Imported(tmp_path, [claude(turn("h1", "", files=[{"file_uuid": "f", "file_name": "a.png"}]))])
    assert made.line(0)["content"] == []
    assert made.line(0)["attachments"] == [{"file_id": "f"}]
    assert made.line(0)["metadata"] == {"files": "a.png"}


def test_blocks_that_a_program_put_in_are_no_text_and_new_ones_are_counted(tmp_path: Path) -> None:
    content = [
        {"type": "injected_prompt_block", "text": "Be nice."},
        {"type": "voice_note", "title": "Note", "text": "Said aloud."},
        {"type": "hologram", "text": "Shown."},
    ]
    made = Imported(tmp_path, [claude(turn("h1", "", content=content))])
    assert made.said == [["user", "Said aloud.\nShown."]]
    assert made.result.stdout.endswith(", 1 unknown contents\n")


def test_a_result_is_found_by_its_call_wherever_it_is(tmp_path: Path) -> None:
    calls = [{"type": "tool_use", "id": f"t{number}", "name": "f", "input": number} for number in range(2)]
    results = [
        {"type": "tool_result", "tool_use_id": "t1", "content": "one", "is_error": True},
        {"type": "tool_result", "tool_use_id": "t0", "content": [{"type": "text", "text": "zero"}]},
    ]
    turns = [turn("h1", "q"), turn("a1", "", content=calls), turn("a2", "Done.", content=results)]
    made = Imported(tmp_path, [claude(*turns)])
    functions = [step["step_details"]["tool_calls"][0]["function"] for step in made.steps[:2]]
    assert [function["output"] for function in functions] == ["zero", "one"]
    assert [step["status"] for step in made.steps] == ["completed", "failed", "completed"]
    assert made.said == [["user", "q"], ["assistant", "Done."]]


def test_a_project_is_known_by_its_name_where_the_export_has_it(tmp_path: Path) -> None:
    members = {
        "conversations.json": json.dumps([claude(turn("h1", "q"), project_uuid="p")]).encode(),
        "projects.json": json.dumps([{"uuid": "p", "name": "Bees"}]).encode(),
    }
    imported(tmp_path / "s", zipped(tmp_path / "e.zip", members)).has(imported=1)
    assert ThreadStore(tmp_path / "s").get_thread("claude-u").metadata["project"] == "Bees"


def test_a_sender_that_nobody_knows_costs_the_conversation(tmp_path: Path) -> None:
    made = Imported(tmp_path, [claude(turn("h1", "q") | {"sender": "narrator"})])
    assert 'number 1 "Name": nobody knows the sender' in made.result.stderr


# ── Chat-completions and ShareGPT ───────────────────────────────────────────────────────────────────────


def test_results_of_parallel_calls_go_to_their_calls(tmp_path: Path) -> None:
    calls = [{"id": name, "function": {"name": "f", "arguments": f'"{name}"'}} for name in "ab"]
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "b", "content": "B"},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "A"}]},
        {"role": "assistant", "content": "Done."},
    ]
    steps = Imported(tmp_path, [{"messages": messages}]).steps
    found = [step["step_details"]["tool_calls"][0]["function"] for step in steps[:2]]
    assert [(call["arguments"], call["output"]) for call in found] == [('"a"', "A"), ('"b"', "B")]


def test_calls_that_are_numbered_anew_in_each_answer_are_all_kept(tmp_path: Path) -> None:
    def turn(name: str) -> list[Fields]:
        called = {"id": "call_0", "type": "function", "function": {"name": name, "arguments": "{}"}}
        return [
            {"role": "user", "content": name},
            {"role": "assistant", "content": None, "tool_calls": [called]},
            {"role": "tool", "tool_call_id": "call_0", "content": f"of {name}"},
            {"role": "assistant", "content": "Done."},
        ]

    made = Imported(tmp_path, {"id": "c", "messages": [*turn("one"), *turn("two")]})
    steps = [
        step
        for run in runs_of(made.store, made.thread_id)
        for step in steps_of(made.store, made.thread_id, run["id"])
    ]
    functions = [call["function"] for step in steps for call in step["step_details"].get("tool_calls", ())]
    assert sorted(function["output"] for function in functions) == ["of one", "of two"]
    longer = written(
        tmp_path / "e.json", {"id": "c", "messages": [*turn("one"), *turn("two"), *turn("three")]}
    )
    imported(tmp_path / "store", longer).has(extended=1)
    assert len(runs_of(made.store, made.thread_id)) == 3


def test_calls_as_they_were_once_written_and_refusals_are_read(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": [{"type": "image_url", "image_url": "https://example.org/a.png"}]},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "out"},
        {"role": "assistant", "content": None, "refusal": "No."},
    ]
    made = Imported(tmp_path, [{"messages": messages, "id": 7}])
    assert made.thread_id == "chat-7"
    assert made.line(0)["content"] == [
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    ]
    assert made.line(1)["content"] == [{"type": "refusal", "refusal": "No."}]
    assert made.steps[0]["step_details"]["tool_calls"][0]["function"]["output"] == "out"


def test_a_conversation_with_an_id_is_extended_by_what_was_said_since(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    Imported(tmp_path, [{"id": "x", "messages": messages[:1]}]).result.has(imported=1)
    made = Imported(tmp_path, [{"id": "x", "messages": messages}])
    made.result.has(extended=1)
    assert made.said == [["user", "a"], ["assistant", "b"]]


def test_calls_in_sharegpt_have_their_observations(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"at": "Oslo"}}'},
        {"from": "observation", "value": "Rain"},
        {"from": "gpt", "value": "It rains."},
    ]
    made = Imported(tmp_path, [{"conversations": turns}])
    assert made.steps[0]["step_details"]["tool_calls"][0]["function"] == {
        "name": "weather",
        "arguments": '{"at": "Oslo"}',
        "output": "Rain",
    }
