"""``logs.db`` of llm: a table of responses, and since version 0.32 messages that know what they follow.

Both are in one database where an older version has written to it. A conversation that went on after that is
in both: then all of it is in the new tables, and what was in the old ones keeps the ids that it has there.
"""

from __future__ import annotations

import json
import posixpath
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from threadfs.importing.conversations import (
    Attached,
    Call,
    Conversation,
    Message,
    Outcome,
    Part,
    Skipped,
    Thought,
    image_block,
    messages_of,
    text_block,
)
from threadfs.importing.files import File
from threadfs.importing.pieces import Item
from threadfs.importing.values import Fields, as_text, fields, id_of, objects, text, time_s

_RESPONSES = ("id", "model", "prompt", "system", "response", "reasoning", "datetime_utc")
_ROLES = ("user", "assistant")


def is_mine(value: Any) -> bool:
    if not isinstance(value, sqlite3.Connection):
        return False
    try:
        columns = _columns(value)
    except sqlite3.Error:
        return False
    return {"conversation_id", "prompt", "response"} <= columns.get("responses", set()) or (
        "tip_message_hash" in columns.get("threads", ()) and {"messages", "parts", "turns"} <= columns.keys()
    )


def conversations(items: Iterable[Item], file: File) -> Iterator[Outcome]:
    for item in items:
        try:
            yield from _Logs(item.value).conversations()
        except sqlite3.Error as error:
            yield Skipped("", "", f"the database cannot be read to its end: {error}")


def _columns(database: sqlite3.Connection) -> dict[str, set[str]]:
    """The names of the columns of each table."""
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        table: {row[1] for row in database.execute(f"PRAGMA table_info({_quoted(table)})")}
        for table in tables
    }


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class _Logs:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.row_factory = sqlite3.Row
        self._columns = _columns(database)
        self._instructions: dict[str, None] = {}
        # The database is a copy: what is looked up for each response is found at once.
        for table in ("tool_calls", "tool_results", "prompt_fragments", "system_fragments"):
            if "response_id" in self._columns.get(table, ()):
                database.execute(f"CREATE INDEX threadfs_{table} ON {table}(response_id)")

    def _rows(self, query: str, *values: Any) -> Iterator[sqlite3.Row]:
        yield from self._database.execute(query, values)

    def conversations(self) -> Iterator[Conversation]:
        threads: set[str] = set()
        if "threads" in self._columns:
            for thread in self._rows("SELECT id, name, tip_message_hash AS tip FROM threads"):
                threads.add(thread["id"])
                yield self._of_thread(thread)
        named: dict[str, sqlite3.Row] = {}
        if "conversations" in self._columns:
            named = {row["id"]: row for row in self._rows("SELECT id, name, model FROM conversations")}
        for conversation_id, responses in self._all_responses():
            row = named.pop(conversation_id, None)
            if conversation_id not in threads:
                yield self._of_responses(conversation_id, row, responses)
        for conversation_id in named.keys() - threads:
            yield Conversation(conversation_id, [])

    # ── The table of responses ──────────────────────────────────────────────────────────────────────

    def _all_responses(self) -> Iterator[tuple[str, Iterator[sqlite3.Row]]]:
        """(conversation, its responses in order)"""
        if "responses" in self._columns:
            rows = self._rows(
                f"SELECT coalesce(conversation_id, id) AS conversation, {self._of_response()} FROM responses"
                " ORDER BY conversation, datetime_utc, id"
            )
            yield from groupby(rows, key=lambda row: str(row["conversation"]))

    def _of_response(self) -> str:
        there = self._columns["responses"]
        return ", ".join(name if name in there else f"NULL AS {name}" for name in _RESPONSES)

    def _of_responses(
        self, conversation_id: str, row: sqlite3.Row | None, responses: Iterable[sqlite3.Row]
    ) -> Conversation:
        self._instructions = {}
        parts = self._parts_of(responses)
        models = (part.model for part in parts if part.model)
        return self._conversation(
            conversation_id,
            text(row["name"]) if row else "",
            parts,
            (text(row["model"]) if row else "") or next(models, ""),
        )

    def _conversation(self, source_id: str, title: str, parts: list[Part], model: str) -> Conversation:
        instructions = "\n".join(filter(str.strip, self._instructions))
        return Conversation(
            source_id, parts, title=title, model=model, metadata={"instructions": instructions}
        )

    def _parts_of(self, responses: Iterable[sqlite3.Row]) -> list[Part]:
        parts: list[Part] = []
        calls = _Calls()
        for row in responses:
            response_id, model, at_s = id_of(row["id"]), text(row["model"]), time_s(row["datetime_utc"])
            self._instructions |= dict.fromkeys([*self._fragments("system", row), text(row["system"])])
            asked = Message(f"{response_id}-prompt", "user", at_s)
            for attached in self._attachments(row):
                _attach(asked, attached)
            texts = [*self._fragments("prompt", row), text(row["prompt"])]
            asked.blocks += [text_block(said) for said in texts if said.strip()]
            parts += [] if asked.is_empty else [asked]
            if thought := text(row["reasoning"]).strip():
                parts.append(Thought(f"{response_id}-reasoning", thought, at_s, model))
            for told in self._of("tool_calls", row, "name, arguments, tool_call_id, id"):
                call_id = id_of(told["tool_call_id"]) or f"{response_id}-call-{told['id']}"
                call = Call(call_id, text(told["name"]), text(told["arguments"]), at_s, model=model)
                parts.append(calls.add(call))
            exception = "exception" if "exception" in self._columns.get("tool_results", ()) else "NULL"
            for told in self._of(
                "tool_results", row, f"name, output, tool_call_id, {exception} AS exception"
            ):
                calls.answer(dict(told))
            if said := text(row["response"]).strip():
                parts.append(Message(response_id, "assistant", at_s, [text_block(said)], model=model))
        return parts

    def _of(self, table: str, row: sqlite3.Row, wanted: str) -> Iterator[sqlite3.Row]:
        if table in self._columns:
            yield from self._rows(
                f"SELECT {wanted} FROM {table} WHERE response_id = ? ORDER BY rowid", row["id"]
            )

    def _fragments(self, kind: str, row: sqlite3.Row) -> Iterator[str]:
        """The texts that are kept by themselves, as many prompts have them."""
        if f"{kind}_fragments" in self._columns:
            for (content,) in self._rows(
                f"SELECT content FROM {kind}_fragments JOIN fragments ON fragments.id = fragment_id"
                ' WHERE response_id = ? ORDER BY "order"',
                row["id"],
            ):
                yield text(content)

    def _attachments(self, row: sqlite3.Row) -> Iterator[sqlite3.Row]:
        if "prompt_attachments" in self._columns:
            yield from self._rows(
                "SELECT id, type, path, url FROM prompt_attachments JOIN attachments ON id = attachment_id"
                ' WHERE response_id = ? ORDER BY "order"',
                row["id"],
            )

    # ── Messages that know what they follow ─────────────────────────────────────────────────────────

    def _of_thread(self, thread: sqlite3.Row) -> Conversation:
        self._instructions = {}
        turns = {
            row["tip_message_hash"]: row
            for row in self._rows(
                "SELECT tip_message_hash, model, datetime_utc FROM turns WHERE thread_id = ?"
                " ORDER BY datetime_utc, id",
                thread["id"],
            )
        }
        parts: list[Part] = []
        calls = _Calls()
        chain = self._chain(thread["tip"] or next(reversed(turns), None))
        # A message is of the turn that ends with it, or with the next one that ends a turn.
        turn: sqlite3.Row | None = None
        of_messages = []
        for row in reversed(chain):
            turn = turns.get(row["hash"], turn)
            of_messages.append((row, turn))
        for row, turn in reversed(of_messages):
            at_s = time_s(turn["datetime_utc"]) if turn else None
            parts += self._message(row, at_s, text(turn["model"]) if turn else "", calls)
        self._name_as_before(thread["id"], parts)
        models = (part.model for part in parts if part.model)
        return self._conversation(str(thread["id"]), text(thread["name"]), parts, next(models, ""))

    def _chain(self, tip: Any) -> list[sqlite3.Row]:
        """The messages from the first one to that with the hash *tip*."""
        found: dict[Any, sqlite3.Row] = {}
        while tip is not None and tip not in found:
            for row in self._rows("SELECT hash, parent_hash, role FROM messages WHERE hash = ?", tip):
                found[tip] = row
            if tip not in found:
                break
            tip = found[tip]["parent_hash"]
        return list(reversed(found.values()))

    def _message(self, row: sqlite3.Row, at_s: int | None, model: str, calls: _Calls) -> Iterator[Part]:
        role = text(row["role"])
        made = Message(str(row["hash"]), role, at_s, model=model if role == "assistant" else "")
        for part in self._rows(
            "SELECT position, type, text, payload FROM parts WHERE message_hash = ? ORDER BY position",
            row["hash"],
        ):
            told = _parsed(part["payload"])
            said = text(part["text"]) or self._joined(told)
            part_id = f"{row['hash']}/{part['position']}"
            if part["type"] == "tool_result":
                calls.answer(told)
            elif part["type"] == "tool_call":
                call_id = id_of(told.get("tool_call_id")) or part_id
                yield calls.add(
                    Call(call_id, text(told.get("name")), as_text(told.get("arguments")), at_s, model=model)
                )
            elif part["type"] == "reasoning" and said.strip():
                yield Thought(part_id, said, at_s, model)
            elif role == "system":
                self._instructions[said] = None
            elif role in _ROLES:
                was_empty = made.is_empty
                if part["type"] == "attachment":
                    attachment_id = id_of(fields(told.get("attachment")).get("id"))
                    for attached in self._rows(
                        "SELECT id, type, path, url FROM attachments WHERE id = ?", attachment_id
                    ):
                        _attach(made, attached)
                elif said.strip():
                    made.blocks.append(text_block(said))
                if was_empty and not made.is_empty:
                    yield made

    def _joined(self, told: Fields) -> str:
        """A text that is in pieces, some of which are kept by themselves."""
        found = []
        for piece in objects(told.get("text_ref")):
            if "literal" in piece:
                found.append(text(piece["literal"]))
            for (content,) in self._rows("SELECT content FROM fragments WHERE id = ?", piece.get("fragment")):
                found.append(text(content))
        return "".join(found)

    def _name_as_before(self, conversation_id: Any, parts: list[Part]) -> None:
        """Gives the messages the ids, and the times, that they had in the table of responses."""
        if "responses" not in self._columns:
            return
        rows = self._rows(
            f"SELECT {self._of_response()} FROM responses WHERE conversation_id = ?"
            " ORDER BY datetime_utc, id",
            conversation_id,
        )
        instructions = self._instructions
        before = messages_of(self._parts_of(rows))
        self._instructions = instructions
        for message, old in zip(messages_of(parts), before, strict=False):
            if (message.role, message.text.strip()) != (old.role, old.text.strip()):
                break
            message.id, message.time_s = old.id, old.time_s


@dataclass(slots=True)
class _Calls:
    """The calls of a conversation, until they have their outputs."""

    _waiting: list[Call] = field(default_factory=list)

    def add(self, call: Call) -> Call:
        self._waiting.append(call)
        return call

    def answer(self, told: Fields) -> None:
        """*told*: ``tool_call_id``, or else ``name``; ``output``, ``exception``."""
        call_id, name = id_of(told.get("tool_call_id")), text(told.get("name"))
        for call in self._waiting:
            if call.id == call_id or (not call_id and call.name == name):
                call.outputs.append(as_text(told.get("output")))
                call.is_failed = bool(told.get("exception"))
                self._waiting.remove(call)
                return


def _attach(message: Message, row: sqlite3.Row) -> None:
    name = posixpath.basename(text(row["path"]) or text(row["url"]).partition("?")[0])
    made = Attached(str(row["id"]), name, is_image=text(row["type"]).startswith("image/"))
    message.files.append(made)
    message.blocks += [image_block(made.file_id)] if made.is_image else []


def _parsed(payload: Any) -> Fields:
    try:
        return fields(json.loads(text(payload) or "null"))
    except (ValueError, RecursionError):
        return {}
