"""A conversation as the documents that are stored: a thread, lines of its log, runs with their steps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from store import RunContents
from threadfs.importing.conversations import Call, Conversation, Message, Part, Thought
from threadfs.importing.values import Fields, digest


@dataclass(frozen=True, slots=True)
class LaidOutRun:
    """A run, and the number of messages in the log at its end."""

    run_id: str
    contents: RunContents
    messages_then: int


@dataclass(frozen=True, slots=True)
class LaidOut:
    """One path of a conversation. *modified_ns* is the time of its last message, in ns since 1970."""

    document: bytes
    lines: list[bytes]
    runs: list[LaidOutRun]
    modified_ns: int


def iso(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def metadata_of(source: str, conversation: Conversation, branch_of: str | None = None) -> dict[str, str]:
    title = conversation.shown_title
    found = {"title": title, "source": source, "source_id": conversation.source_id, "source_title": title}
    if conversation.updated_s is not None:
        found["source_updated_at"] = iso(conversation.updated_s)
    if conversation.model:
        found["model"] = conversation.model
    found |= {name: value for name, value in conversation.metadata.items() if value}
    if branch_of is not None:
        found["branch_of"] = branch_of
    return found


def laid_out(
    thread_id: str, conversation: Conversation, parts: list[Part], metadata: dict[str, str], now_s: int
) -> LaidOut:
    """The documents of one path, for the thread *thread_id*. *now_s* is their time if nothing has one."""
    created_s = conversation.created_s
    if created_s is None:
        created_s = next((part.time_s for part in parts if part.time_s is not None), now_s)
    _set_times(parts, created_s)
    lines: list[bytes] = []
    runs: list[LaidOutRun] = []
    seen: set[str] = set()
    for answer in _answers(parts):
        run_id = _run_id(answer, seen)
        for part in answer:
            if isinstance(part, Message):
                lines.append(_line(thread_id, part, run_id, conversation.model))
        if run_id:
            runs.append(LaidOutRun(run_id, _run(thread_id, run_id, answer), len(lines)))
    thread: Fields = {"id": thread_id, "object": "thread", "created_at": created_s, "metadata": metadata}
    last_s = next((part.time_s for part in reversed(parts) if isinstance(part, Message)), created_s)
    return LaidOut(_document(thread), lines, runs, (last_s or created_s) * 1_000_000_000)


def _set_times(parts: list[Part], time_s: int) -> None:
    """Each part without a time gets that of the message before."""
    for part in parts:
        if part.time_s is None:
            part.time_s = time_s
        if isinstance(part, Message):
            time_s = part.time_s


def _answers(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """The parts, each message of the user by itself, and what stands between two of them together."""
    answer: list[Part] = []
    for part in parts:
        if isinstance(part, Message) and part.role == "user":
            yield answer
            yield [part]
            answer = []
        else:
            answer.append(part)
    yield answer


def _run_id(answer: list[Part], seen: set[str]) -> str:
    """Another one than those *seen*; none for an answer that only spoke, or only thought."""
    speaks = any(isinstance(part, (Message, Call)) for part in answer)
    if not speaks or all(isinstance(part, Message) for part in answer):
        return ""
    run_id = f"run_{digest(answer[0].id)}"
    while run_id in seen:
        # Sources number the calls of each answer from the first on.
        run_id = f"run_{digest(run_id)}"
    seen.add(run_id)
    return run_id


def _line(thread_id: str, message: Message, run_id: str, model: str) -> bytes:
    made: Fields = {
        "id": message.id,
        "object": "thread.message",
        "created_at": message.time_s,
        "thread_id": thread_id,
        "role": message.role,
        "content": message.blocks,
    }
    if run_id:
        made["run_id"] = run_id
    shown = {block["image_file"]["file_id"] for block in message.blocks if block["type"] == "image_file"}
    if attachments := [{"file_id": file.file_id} for file in message.files if file.file_id not in shown]:
        made["attachments"] = attachments
    metadata = {}
    if found := [*message.names, *(file.name for file in message.files if file.name)]:
        metadata["files"] = "\n".join(found)
    if message.model and message.model != model and not run_id:
        metadata["model"] = message.model
    if metadata:
        made["metadata"] = metadata
    return json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _run(thread_id: str, run_id: str, answer: list[Part]) -> RunContents:
    began_s, ended_s = answer[0].time_s, max(part.time_s or 0 for part in answer)
    run: Fields = {
        "id": run_id,
        "object": "thread.run",
        "created_at": began_s,
        "thread_id": thread_id,
        "status": "completed",
        "model": next((part.model for part in reversed(answer) if part.model), ""),
        "started_at": began_s,
        "completed_at": ended_s,
    }
    return RunContents(_document(run), dict(_steps(thread_id, run_id, answer)))


def _steps(thread_id: str, run_id: str, answer: list[Part]) -> Iterator[tuple[str, bytes]]:
    reasoning: list[str] = []
    time_s = position = 0
    for part in answer:
        # A store sorts steps by their times in seconds, and then by their ids.
        time_s = max(time_s, part.time_s or 0)
        if isinstance(part, Thought):
            reasoning.append(part.text)
            continue
        step_id = f"step-{position:08}{digest(part.id, 24)}"
        is_failed = isinstance(part, Call) and part.is_failed
        step: Fields = {
            "id": step_id,
            "object": "thread.run.step",
            "run_id": run_id,
            "thread_id": thread_id,
            "step_type": "tool_calls" if isinstance(part, Call) else "message_creation",
            "status": "failed" if is_failed else "completed",
            "created_at": time_s,
            "failed_at" if is_failed else "completed_at": time_s,
            "step_details": _call(part) if isinstance(part, Call) else {"message_id": part.id},
        }
        if reasoning:
            step["reasoning"] = reasoning
        yield step_id, _document(step)
        reasoning = []
        position += 1


def _call(call: Call) -> Fields:
    """The details of a step that is a call, in OpenAI's shape."""
    if call.is_code:
        outputs = [{"type": "logs", "logs": output} for output in call.outputs]
        interpreter = {"input": call.arguments, "outputs": outputs}
        made: Fields = {"id": call.id, "type": "code_interpreter", "code_interpreter": interpreter}
    else:
        function = {"name": call.name, "arguments": call.arguments}
        if call.outputs:
            function["output"] = "\n".join(call.outputs)
        made = {"id": call.id, "type": "function", "function": function}
    return {"type": "tool_calls", "tool_calls": [made]}


def _document(made: Fields) -> bytes:
    return json.dumps(made, ensure_ascii=False, indent=2).encode()
