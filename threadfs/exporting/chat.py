"""A thread as a line of chat-completions, as programs for fine-tuning read it: ``{"messages": […]}``.

    {"messages":[{"role":"system","content":"…"},           metadata.instructions of the thread
                 {"role":"user","content":"…"},             or a list of parts, when there are pictures
                 {"role":"assistant","content":null,"tool_calls":[
                     {"id":"…","type":"function","function":{"name":"…","arguments":"…"}}]},
                 {"role":"tool","tool_call_id":"…","content":"…"},     for each call, also without an output
                 {"role":"assistant","content":"…"}]}

Calls that follow a message of the assistant are part of it: for fine-tuning no two such messages may stand
in a row. Pictures that only have the id of a file are left out: nobody else has that file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from store import MessageRole, TextContent, Thread, ThreadMessage
from threadfs.exporting.turns import Calls, Fields, Turn, instructions_of, json_line


def line(thread: Thread, turns: Iterable[Turn]) -> bytes | None:
    """``None`` for a thread in which nothing was said or called."""
    messages: list[Fields] = []
    for turn in turns:
        if isinstance(turn, Calls):
            _add_calls(messages, turn)
        elif said := _message(turn):
            messages.append(said)
    if not messages:
        return None
    if instructions := instructions_of(thread):
        messages.insert(0, {"role": "system", "content": instructions})
    return json_line({"messages": messages})


def _add_calls(messages: list[Fields], turn: Calls) -> None:
    is_continued = bool(messages) and messages[-1]["role"] == "assistant"
    if not is_continued:
        messages.append({"role": "assistant", "content": None})
    messages[-1]["tool_calls"] = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in turn.calls
    ]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": call.output} for call in turn.calls]


def _message(message: ThreadMessage) -> Fields | None:
    """``None`` when nothing of it can be told."""
    parts: list[Fields] = []
    refusals: list[str] = []
    for block in message.content:
        fields: Any = block.fields()
        if isinstance(block.text, TextContent):
            parts.append({"type": "text", "text": block.text.value})
        elif block.type == "image_url" and isinstance(fields.get("image_url"), dict):
            parts.append({"type": "image_url", "image_url": fields["image_url"]})
        elif block.type == "refusal" and isinstance(fields.get("refusal"), str):
            refusals.append(fields["refusal"])
    content: Any = parts
    if all(part["type"] == "text" for part in parts):
        content = "\n".join(part["text"] for part in parts)
    made: Fields = {"role": message.role.value, "content": content}
    if message.role is MessageRole.assistant and refusals:
        made |= {"content": content or None, "refusal": "\n".join(refusals)}
    elif isinstance(content, str) and not content.strip():
        return None
    return made
