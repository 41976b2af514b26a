"""The parts of a conversation whose messages have no ids: these follow from their place and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from threadfs.importing.conversations import Attached, Call, Conversation, Message, Part, Thought
from threadfs.importing.values import Fields, canonical, digest


class Reader:
    """Collects parts in their order. *unknown* counts contents of unknown kinds."""

    def __init__(self, source_id: str) -> None:
        self.source_id = source_id
        self.parts: list[Part] = []
        self.unknown = 0
        self._instructions: list[str] = []
        self._calls: dict[str, Call] = {}

    def _id(self, kind: str, value: Any) -> str:
        return f"{kind}_{digest(canonical([self.source_id, len(self.parts), value]))}"

    def instruct(self, said: str) -> None:
        if said.strip() and said not in self._instructions:
            self._instructions.append(said)

    def say(
        self,
        role: str,
        blocks: list[Fields],
        at_s: int | None = None,
        model: str = "",
        files: Sequence[Attached] = (),
    ) -> None:
        """Adds a message, if there is anything in it."""
        kept = [block for block in blocks if block["type"] != "text" or block["text"]["value"].strip()]
        if kept or files:
            message_id = self._id("msg", [role, kept])
            self.parts.append(Message(message_id, role, at_s, kept, list(files), model=model))

    def think(self, said: str, at_s: int | None = None, model: str = "") -> None:
        if said.strip():
            self.parts.append(Thought(self._id("thought", said), said, at_s, model))

    def call(
        self,
        call_id: str,
        name: str,
        arguments: str,
        at_s: int | None = None,
        model: str = "",
        *,
        is_failed: bool = False,
    ) -> None:
        made_id = call_id or self._id("call", [name, arguments])
        made = Call(made_id, name, arguments, at_s, is_failed=is_failed, model=model)
        self.parts.append(made)
        self._calls[made.id] = made

    def output(self, call_id: str, name: str, said: str, *, is_failed: bool = False) -> None:
        """The output of the call with that id, or else of the first of that name that has none."""
        waiting = (
            part
            for part in self.parts
            if isinstance(part, Call) and not part.outputs and name in ("", part.name)
        )
        call = self._calls.get(call_id) or next(waiting, None)
        if call is not None:
            call.outputs.append(said)
            call.is_failed |= is_failed

    def conversation(
        self,
        *,
        title: str = "",
        created_s: int | None = None,
        updated_s: int | None = None,
        model: str = "",
        metadata: dict[str, str] | None = None,
    ) -> Conversation:
        """*model*: without one, that of the first answer."""
        models = (part.model for part in self.parts if part.model)
        return Conversation(
            self.source_id,
            self.parts,
            title=title,
            created_s=created_s,
            updated_s=updated_s,
            model=model or next(models, ""),
            metadata={"instructions": "\n".join(self._instructions), **(metadata or {})},
            unknown=self.unknown,
        )
