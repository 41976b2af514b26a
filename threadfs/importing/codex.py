"""Sessions of Codex: rollouts, a file each. There are three formats.

Since 2025-09 each line is ``{timestamp, type, payload}``; before, lines were bare items after one with the
session's id; and before that, a file was one object. What was said is in the items, which the model gets.
What the user typed is also in the events, which people see: items of the user may be context. A session that
was forked begins with its own id; what was copied follows, with that of the other one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from threadfs.importing.conversations import (
    MAX_CONVERSATION,
    Attached,
    Conversation,
    Message,
    NotImported,
    Outcome,
    Part,
    image_block,
    of_lines,
    settled,
    text_block,
)
from threadfs.importing.files import File, Keep
from threadfs.importing.pieces import Item
from threadfs.importing.reader import Reader
from threadfs.importing.values import (
    Fields,
    as_text,
    digest,
    embedded,
    entries,
    fields,
    id_of,
    objects,
    text,
    time_s,
)

_TYPES = ("session_meta", "response_item", "event_msg", "turn_context", "compacted", "world_state")
_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
# Items that are in the name of the user, and are not his, where no events say what he typed.
_CONTEXT = re.compile(r"\s*(?:<[a-z_]+(?: [a-z_ ]+)?>|# AGENTS\.md instructions for )")
# What an editor puts before it.
_REQUEST = "## My request for Codex:"


def is_mine(value: Any) -> bool:
    given = fields(value)
    if isinstance(given.get("payload"), dict):
        return given.get("type") in _TYPES
    session = given.get("session")
    if isinstance(session, dict) and isinstance(given.get("items"), list):
        return "id" in session
    return {"id", "timestamp", "instructions"} <= given.keys() and "messages" not in given


def conversations(items: Iterable[Item], file: File) -> Iterator[Outcome]:
    """The conversation that the file is. A broken line is skipped."""
    return of_lines(items, _Rollout(file.keep))


@dataclass(frozen=True, slots=True)
class _Entry:
    """What counts of a line. *kind*: ``typed`` (an event), ``user`` (an item), ``assistant``, ``thought``,
    ``call``, ``output``, or ``back``, with the number of turns as *said*."""

    kind: str
    at_s: int | None
    said: str = ""
    model: str = ""
    pictures: tuple[Attached, ...] = ()
    name: str = ""
    call_id: str = ""
    is_failed: bool = False


@dataclass(slots=True)
class _Rollout:
    _keep_picture: Keep
    _entries: list[_Entry] = field(default_factory=list)
    _id: str = ""
    _created_s: int | None = None
    _updated_s: int | None = None
    _instructions: str = ""
    _project: str = ""
    _branch: str = ""
    _model: str = ""
    _is_of_agent: bool = False
    _size: int = 0
    title: str = ""
    unknown: int = 0

    def add(self, given: Fields) -> None:
        """Raises NotImported: it is too large."""
        at_s = time_s(given.get("timestamp"))
        kind, payload = text(given.get("type")), given.get("payload")
        if isinstance(payload, dict):
            if kind == "session_meta":
                self._begin(payload)
            elif kind == "turn_context":
                self._model = text(payload.get("model")) or self._model
                self._project = self._project or text(payload.get("cwd"))
            elif kind == "response_item":
                self._item(payload, at_s)
            elif kind == "event_msg":
                self._event(payload, at_s)
        elif isinstance(given.get("items"), list):
            self._begin(fields(given.get("session")))
            for item in objects(given["items"]):
                self._item(item, None)
        elif kind:
            self._item(given, at_s)
        elif "record_type" not in given:
            self._begin(given)
        self._updated_s = max(self._updated_s or 0, at_s or 0) or None
        if self._size > MAX_CONVERSATION:
            raise NotImported(f"larger than {MAX_CONVERSATION >> 20} MiB")

    def _begin(self, meta: Fields) -> None:
        if self._id:
            return
        self._id = id_of(meta.get("id"))
        self._created_s = time_s(meta.get("timestamp"))
        base = fields(meta.get("base_instructions")).get("text")
        self._instructions = text(base) or text(meta.get("instructions"))
        self._project = text(meta.get("cwd"))
        self._branch = text(fields(meta.get("git")).get("branch"))
        self._is_of_agent = "subagent" in (meta.get("thread_source"), *fields(meta.get("source")))

    def _event(self, event: Fields, at_s: int | None) -> None:
        kind = text(event.get("type"))
        if kind == "user_message":
            pictures = [self._picture(url) for url in entries(event.get("images"))]
            pictures += [
                self._picture(path, text(path).rpartition("/")[2])
                for path in entries(event.get("local_images"))
            ]
            self._keep(_Entry("typed", at_s, text(event.get("message")), pictures=tuple(pictures)))
        elif kind == "thread_rolled_back":
            turns = event.get("num_turns")
            self._keep(_Entry("back", at_s, str(turns) if isinstance(turns, int) else "0"))
        elif kind == "thread_name_updated":
            self.title = text(event.get("thread_name"))

    def _item(self, item: Fields, at_s: int | None) -> None:
        kind = text(item.get("type"))
        call_id = id_of(item.get("call_id")) or id_of(item.get("id"))
        model = self._model
        if kind == "message":
            role, content = text(item.get("role")), list(objects(item.get("content")))
            if role in ("user", "assistant"):
                images = [part for part in content if part.get("type") == "input_image"]
                pictures = [self._picture(part.get("image_url")) for part in images]
                self.unknown += sum(part.get("type") not in (*_TEXTS, "input_image") for part in content)
                said = "\n".join(_texts(content))
                self._keep(_Entry(role, at_s, said, model, tuple(pictures)))
        elif kind == "reasoning":
            for said in [*_texts(item.get("summary")), *_texts(item.get("content"))]:
                self._keep(_Entry("thought", at_s, said, model))
        elif kind in ("function_call", "custom_tool_call"):
            arguments = as_text(item.get("arguments")) or as_text(item.get("input"))
            is_failed = item.get("status") in ("failed", "incomplete")
            name = text(item.get("name"))
            self._keep(_Entry("call", at_s, arguments, model, (), name, call_id, is_failed))
        elif kind.endswith("_call_output"):
            output, is_failed = _output(item.get("output"))
            self._keep(_Entry("output", at_s, output, call_id=call_id, is_failed=is_failed))
        elif kind.endswith("_call"):
            # Of the shell, of a search, of whatever will come: what is to be done is its argument.
            told = item.get("action") or item.get("arguments") or item.get("revised_prompt")
            is_failed = item.get("status") in ("failed", "incomplete")
            name = kind.removesuffix("_call")
            self._keep(_Entry("call", at_s, as_text(told), model, (), name, call_id, is_failed))

    def _picture(self, address: Any, name: str = "") -> Attached:
        """A picture at an address, which mostly holds it."""
        picture = f"image-{digest(as_text(address))}"
        if data := embedded(text(address)):
            self._keep_picture(picture, data)
        return Attached(picture, name, is_image=True)

    def _keep(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self._size += len(entry.said)

    def conversation(self) -> Conversation:
        """Without messages for a session of an agent's own helper."""
        read = Reader(self._id)
        read.unknown = self.unknown
        read.instruct(self._instructions)
        if not self._is_of_agent:
            self._replay(read)
        read.parts = settled(read.parts)
        return read.conversation(
            title=self.title,
            created_s=self._created_s,
            updated_s=self._updated_s,
            metadata={"project": self._project, "branch": self._branch},
        )

    def _replay(self, read: Reader) -> None:
        has_events = any(entry.kind == "typed" for entry in self._entries)
        called: set[str] = set()
        for entry in self._entries:
            if entry.kind == "typed" or (
                entry.kind == "user" and not has_events and not _CONTEXT.match(entry.said)
            ):
                _say(read, "user", entry)
            elif entry.kind == "assistant":
                _say(read, "assistant", entry)
            elif entry.kind == "thought":
                read.think(entry.said, entry.at_s, entry.model)
            elif entry.kind == "call":
                called.add(entry.call_id)
                read.call(
                    entry.call_id,
                    entry.name,
                    entry.said,
                    entry.at_s,
                    entry.model,
                    is_failed=entry.is_failed,
                )
            elif entry.kind == "output" and entry.call_id in called:
                read.output(entry.call_id, "", entry.said, is_failed=entry.is_failed)
            elif entry.kind == "back":
                _take_back(read.parts, int(entry.said))


def _say(read: Reader, role: str, entry: _Entry) -> None:
    said = entry.said
    if role == "user" and _REQUEST in said:
        said = said.partition(_REQUEST)[2].strip()
    blocks = [text_block(said)] + [image_block(picture.file_id) for picture in entry.pictures]
    read.say(role, blocks, entry.at_s, entry.model, entry.pictures)


def _take_back(parts: list[Part], turns: int) -> None:
    """Removes so many turns of the user, with what followed."""
    for at in range(len(parts) - 1, -1, -1):
        part = parts[at]
        if turns > 0 and isinstance(part, Message) and part.role == "user":
            del parts[at:]
            turns -= 1


def _texts(content: Any) -> list[str]:
    return [
        said for part in objects(content) if part.get("type") in _TEXTS and (said := text(part.get("text")))
    ]


def _output(output: Any) -> tuple[str, bool]:
    """The text of an output, and whether it says that the call failed."""
    told = output
    if isinstance(output, str) and output.startswith("{"):
        try:
            told = json.loads(output)
        except (ValueError, RecursionError):
            told = output
        if not ("output" in fields(told) and isinstance(fields(told).get("metadata"), dict)):
            return output, False
    if isinstance(told, dict):
        exit_code = fields(told.get("metadata")).get("exit_code")
        is_failed = told.get("success") is False or exit_code not in (None, 0)
        return as_text(told.get("output")) or as_text(told.get("content")), is_failed
    return ("\n".join(_texts(told)) if isinstance(told, list) else as_text(told)), False
