"""Exports of Open WebUI, LibreChat and LM Studio, with what breaks converters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from store import ThreadStore
from tests.importing.conftest import Fields, imported, said, written
from tests.importing.test_sources import Imported


def calls(made: Imported) -> list[Fields]:
    """The calls of all steps."""
    return [call for step in made.steps for call in step["step_details"].get("tool_calls", ())]


def reasoning(made: Imported) -> list[str]:
    return [thought for step in made.steps for thought in step.get("reasoning", ())]


# ── Open WebUI ──────────────────────────────────────────────────────────────────────────────────────────


def webui(*messages: Fields, **chat: Any) -> Fields:
    """A chat; each message follows the one before it, unless it says otherwise."""
    nodes: dict[str, Fields] = {}
    for number, given in enumerate(messages):
        before = messages[number - 1]["id"] if number else None
        role = "assistant" if number % 2 else "user"
        nodes[given["id"]] = {"parentId": before, "role": role, "timestamp": 1_750_000_000 + number, **given}
    history = {"messages": nodes, "currentId": messages[-1]["id"]}
    return {"id": "W", "title": "Title", "chat": {"history": history, **chat}}


def test_parents_in_a_circle_and_missing_ones_begin_the_path(tmp_path: Path) -> None:
    circle = webui({"id": "a", "parentId": "c", "content": "1"}, {"id": "b", "content": "2"})
    circle["chat"]["history"]["messages"]["a"]["parentId"] = "b"
    assert Imported(tmp_path, [circle]).said == [["user", "1"], ["assistant", "2"]]
    missing = webui({"id": "c", "parentId": "lost", "content": "3"}, {"id": "d", "content": "4"})
    imported(tmp_path / "store", written(tmp_path / "e.json", {**missing, "id": "X"})).has(imported=1)
    assert said(ThreadStore(tmp_path / "store"), "openwebui-X") == [["user", "3"], ["assistant", "4"]]


FOLDED = """<details type="reasoning" done="true" duration="1">
<summary>Thought for 1 second</summary>
&gt; Is it &lt;warm&gt;?
&gt; Yes.
</details>
Let me see.
<details type="tool_calls" done="true" id="t1" name="weather" arguments="&quot;{\\&quot;d\\&quot;: 1}&quot;" \
result="&quot;sunny&quot;" files="" embeds="">
<summary>Tool Executed</summary>
</details>
<details type="code_interpreter" done="true" output="{&quot;stdout&quot;: &quot;4&quot;}">
<summary>Analyzed</summary>
```python
print(2 + 2)
```
</details>
It is four."""


def test_what_is_folded_up_in_an_answer_is_thought_and_called_and_not_said(tmp_path: Path) -> None:
    made = Imported(tmp_path, [webui({"id": "a", "content": "q"}, {"id": "b", "content": FOLDED})])
    assert made.said == [["user", "q"], ["assistant", "Let me see.\nIt is four."]]
    assert reasoning(made) == ["Is it <warm>?\nYes."]
    function, program = calls(made)
    assert function["id"] == "t1"
    assert function["function"] == {"name": "weather", "arguments": '{"d": 1}', "output": "sunny"}
    assert program["code_interpreter"]["input"] == "print(2 + 2)"
    assert program["code_interpreter"]["outputs"] == [{"type": "logs", "logs": '{"stdout": "4"}'}]


def test_details_that_the_answer_itself_has_are_said(tmp_path: Path) -> None:
    text = "<details><summary>More</summary>Much more.</details>"
    made = Imported(tmp_path, [webui({"id": "a", "content": "q"}, {"id": "b", "content": text})])
    assert made.said[1] == ["assistant", text]


def test_the_structured_output_of_an_answer_is_taken_and_its_text_is_not_there_twice(tmp_path: Path) -> None:
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}], "content": []},
        {"type": "message", "content": [{"type": "output_text", "text": "Four."}]},
    ]
    answer = {"id": "b", "content": FOLDED, "output": output}
    made = Imported(tmp_path, [webui({"id": "a", "content": "q"}, answer)])
    assert made.said == [["user", "q"], ["assistant", "Four."]]
    assert (reasoning(made), calls(made)) == (["Hm."], [])


def test_a_system_message_and_the_system_prompt_are_instructions(tmp_path: Path) -> None:
    given = webui(
        {"id": "s", "role": "system", "content": "Be nice."},
        {"id": "a", "role": "user", "content": "q"},
        params={"system": "Be brief."},
    )
    made = Imported(tmp_path, [given])
    assert made.said == [["user", "q"]]
    assert made.metadata["instructions"] == "Be brief.\nBe nice."


def test_other_answers_of_a_model_are_branches(tmp_path: Path) -> None:
    given = webui(
        {"id": "a", "content": "q"},
        {"id": "b", "content": "old"},
        {"id": "c", "role": "assistant", "parentId": "a", "content": "new", "model": "m2"},
    )
    made = Imported(tmp_path, [given], "--branches")
    made.result.has(imported=1, branch=1)
    assert made.said == [["user", "q"], ["assistant", "new"]]


def test_an_address_of_a_picture_has_the_id_of_its_file(tmp_path: Path) -> None:
    files = [{"type": "image", "url": "/api/v1/files/f-7/content"}]
    made = Imported(tmp_path, [webui({"id": "a", "content": "", "files": files})])
    assert made.line(0)["content"] == [{"type": "image_file", "image_file": {"file_id": "f-7"}}]


# ── LibreChat ───────────────────────────────────────────────────────────────────────────────────────────


def libre(message_id: str, text: str, parent: str | None = None, **given: Any) -> Fields:
    made = {"messageId": message_id, "parentMessageId": parent, "isCreatedByUser": message_id[0] == "u"}
    return {**made, "text": text, "createdAt": "2025-05-05T05:05:05Z", **given}


def test_a_list_of_messages_that_holds_branches_is_read_as_a_tree(tmp_path: Path) -> None:
    messages = [
        libre("u1", "q", createdAt="2025-05-05T05:05:01Z"),
        libre("a1", "old", "u1", createdAt="2025-05-05T05:05:02Z"),
        libre("a2", "new", "u1", createdAt="2025-05-05T05:05:03Z"),
    ]
    made = Imported(tmp_path, {"conversationId": "L", "messages": messages}, "--branches")
    made.result.has(imported=1, branch=1)
    assert made.said == [["user", "q"], ["assistant", "new"]]


def test_messages_that_lie_in_one_another_400_deep_are_read(tmp_path: Path) -> None:
    # As text: what writes JSON goes deep, too.
    turns = [
        f'{{"messageId": "{number}", "isCreatedByUser": {str(number % 2 == 0).lower()}, "text": "{number}",'
        ' "createdAt": "2025-05-05T05:05:05Z", "children": ['
        for number in range(400)
    ]
    text = f'{{"conversationId": "L", "messagesTree": [{"".join(turns)}{"]}" * len(turns)}]}}'
    (tmp_path / "e.json").write_text(text)
    imported(tmp_path / "s", tmp_path / "e.json").has(imported=1)
    texts = [text for _, text in said(ThreadStore(tmp_path / "s"), "librechat-L")]
    assert texts == [str(number) for number in range(400)]


def test_thoughts_calls_and_texts_of_an_answer_are_in_their_order(tmp_path: Path) -> None:
    content = [
        {"type": "think", "think": "Hm."},
        {"type": "tool_call", "tool_call": {"id": "t", "name": "f", "args": {"q": 1}, "output": "out"}},
        {"type": "text", "text": {"value": "Done."}},
        {"type": "hologram", "text": "Shown."},
    ]
    messages = [libre("u1", "q"), libre("a1", "", "u1", content=content, model="m")]
    made = Imported(tmp_path, {"conversationId": "L", "messages": messages})
    assert made.said[1] == ["assistant", "Done.\nShown."]
    assert reasoning(made) == ["Hm."]
    assert [call["function"] for call in calls(made)] == [
        {"name": "f", "arguments": '{"q": 1}', "output": "out"}
    ]
    assert made.result.stdout.endswith(", 1 unknown contents\n")


def test_files_of_librechat_are_named(tmp_path: Path) -> None:
    files = [
        {"file_id": "f1", "filename": "a.png", "type": "image/png"},
        {"file_id": "f2", "filename": "b.pdf", "type": "application/pdf"},
    ]
    made = Imported(tmp_path, {"conversationId": "L", "messages": [libre("u1", "q", files=files)]})
    assert [block["type"] for block in made.line(0)["content"]] == ["image_file", "text"]
    assert made.line(0)["attachments"] == [{"file_id": "f2"}]
    assert made.line(0)["metadata"] == {"files": "a.png\nb.pdf"}


# ── LM Studio ───────────────────────────────────────────────────────────────────────────────────────────


def block(*content: Fields, **given: Any) -> Fields:
    return {"type": "contentBlock", "content": list(content), **given}


def words(text: str) -> Fields:
    return {"type": "text", "text": text}


def lm(*versions: Fields, selected: int = 0) -> Fields:
    """A conversation with a question, and an answer in these versions."""
    asked = {"type": "singleStep", "role": "user", "content": [words("q")]}
    answer = {"versions": list(versions), "currentlySelected": selected}
    messages = [{"versions": [asked], "currentlySelected": 0}, answer]
    return {"name": "Name", "createdAt": 1_760_000_000_000, "messages": messages}


def steps(*given: Fields) -> Fields:
    return {"type": "multiStep", "role": "assistant", "steps": list(given)}


def test_the_version_that_was_selected_is_what_was_seen(tmp_path: Path) -> None:
    versions = [steps(block(words(text))) for text in ("one", "two", "three")]
    assert Imported(tmp_path, lm(*versions, selected=1)).said == [["user", "q"], ["assistant", "two"]]


def test_calls_of_lm_studio_have_their_results(tmp_path: Path) -> None:
    request = {"type": "toolCallRequest", "callId": 7, "name": "f", "parameters": {"q": 1}}
    content = json.dumps([{"type": "text", "text": "out"}])
    outcome = {"type": "toolCallResult", "callId": 7, "content": content}
    version = steps(
        block(words("Hm."), style={"type": "thinking"}),
        block(request),
        {"type": "toolStatus", "callId": 7},
        block(outcome, roleOverride="tool"),
        block(words("Done.")),
    )
    made = Imported(tmp_path, lm(version))
    assert made.said == [["user", "q"], ["assistant", "Done."]]
    assert [call["function"] for call in calls(made)] == [
        {"name": "f", "arguments": '{"q": 1}', "output": "out"}
    ]
    assert reasoning(made) == ["Hm."]


@pytest.mark.parametrize(
    ("member", "project"),
    [("conversations/Bees/Wax/1.json", "Bees/Wax"), ("conversations/1.json", None), ("Bees/1.json", "Bees")],
)
def test_a_folder_is_the_project(member: str, project: str | None, tmp_path: Path) -> None:
    path = tmp_path / "lmstudio" / member
    path.parent.mkdir(parents=True)
    written(path, lm(steps(block(words("a")))))
    imported(tmp_path / "s", tmp_path / "lmstudio").has(imported=1)
    (thread_id,) = ThreadStore(tmp_path / "s").list_thread_ids()
    assert ThreadStore(tmp_path / "s").get_thread(thread_id).metadata.get("project") == project


def test_a_conversation_of_lm_studio_in_which_nothing_was_said_is_empty(tmp_path: Path) -> None:
    given = {"name": "", "createdAt": 1_760_000_000_000, "systemPrompt": "", "messages": []}
    imported(tmp_path / "s", written(tmp_path / "e.json", given)).has(empty=1)


# ── All of them ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "W", "chat": {"history": []}},
        {"id": "W", "chat": {"history": {"messages": {"a": 1}}}},
        {"id": "W", "chat": {"history": {"messages": {"a": {"role": "ghost", "content": "x"}}}}},
        {"conversationId": "L", "messages": [1, {"text": "x"}]},
        {"conversationId": None, "messages": []},
        {"createdAt": [], "messages": [{"versions": []}]},
        {"createdAt": 1, "messages": [{"versions": [{"role": {}}]}]},
        {"type": "user", "uuid": "u", "sessionId": None, "isSidechain": False, "message": []},
        {"type": "response_item", "payload": {"type": "message", "role": "user", "content": [7]}},
        {"id": None, "timestamp": {}, "instructions": 3},
    ],
)
def test_what_is_not_as_it_should_be_costs_itself(wrong: Fields, tmp_path: Path) -> None:
    result = imported(tmp_path / "s", written(tmp_path / "e.json", wrong))
    assert result.counts["imported"] == 0
    assert result.counts["skipped"] + result.counts["empty"] == 1
