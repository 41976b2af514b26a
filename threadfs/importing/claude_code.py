"""Sessions of Claude Code: a file each, in lines that are a tree.

An answer is many lines. Where tools are called at the same time, their results lie on side branches. Lines of
progress fork the tree where nobody chose another way, and parents may be missing that were never written. So
a line whose parent is missing follows the line before it in the file, what follows a line of progress follows
the end of its turn, and an answer is all lines with its id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from threadfs.importing.conversations import (
    MAX_CONVERSATION,
    Attached,
    Call,
    Conversation,
    Message,
    NotImported,
    Outcome,
    Part,
    Thought,
    image_block,
    of_lines,
    settled,
    text_block,
)
from threadfs.importing.files import File, Keep
from threadfs.importing.pieces import Item
from threadfs.importing.trees import Tree
from threadfs.importing.values import Fields, as_text, digest, entries, fields, id_of, objects, text, time_s

_SPEAKERS = ("user", "assistant")
# Lines that are not part of the tree, and the field by which they are known.
_OTHERS = {
    "summary": "leafUuid",
    "ai-title": "sessionId",
    "custom-title": "sessionId",
    "file-history-snapshot": "snapshot",
    "queue-operation": "operation",
}
# A text in the user's name that the program wrote: commands and their output, notices.
_PUT_IN = re.compile(
    r"\s*(?:<(?:command-(?:name|message|args|contents)|local-command-\w+|bash-(?:input|stdout|stderr)"
    r"|task-notification|user-memory-input)>"
    r"|Caveat: The messages below|\[Request interrupted by user|This session is being continued from)"
)
# What the program adds to texts of the user.
_REMINDER = re.compile(r"<(system-reminder|ide_\w+)>.*?</\1>\s*", re.DOTALL)


def is_mine(value: Any) -> bool:
    given = fields(value)
    kind = text(given.get("type"))
    if "uuid" in given and "sessionId" in given and "isSidechain" in given:
        return bool(kind)
    return kind in _OTHERS and _OTHERS[kind] in given


def conversations(items: Iterable[Item], file: File) -> Iterator[Outcome]:
    """The conversation that the file is. A broken line is skipped."""
    return of_lines(items, _Session(file.keep))


@dataclass(slots=True)
class _Line:
    """*answer*: the id that all lines of an answer have."""

    parent: str
    parts: list[Part]
    time_s: int | None
    answer: str = ""
    is_progress: bool = False

    @property
    def is_prompt(self) -> bool:
        return any(isinstance(part, Message) and part.role == "user" for part in self.parts)


@dataclass(slots=True)
class _Session:
    _keep: Keep
    _lines: dict[str, _Line] = field(default_factory=dict)
    _answers: dict[str, list[str]] = field(default_factory=dict)
    # The outputs of calls, and whether these failed, by their ids, wherever they are in the file.
    _results: dict[str, tuple[list[str], bool]] = field(default_factory=dict)
    _titles: dict[str, str] = field(default_factory=dict)
    # By the last line that they are about, which may be one of another session.
    _summaries: dict[str, str] = field(default_factory=dict)
    _id: str = ""
    _project: str = ""
    _branch: str = ""
    _updated_s: int | None = None
    _size: int = 0
    unknown: int = 0

    @property
    def title(self) -> str:
        """As the user named it, else as the program did."""
        named = [self._titles.get("custom-title", ""), self._titles.get("ai-title", "")]
        named += [said for leaf, said in reversed(self._summaries.items()) if leaf in self._lines]
        return next(filter(None, named), "")

    def add(self, given: Fields) -> None:
        """Raises NotImported: it is too large."""
        kind = text(given.get("type"))
        if kind in ("custom-title", "ai-title", "summary"):
            self._name(kind, given)
        uuid = id_of(given.get("uuid"))
        if not uuid or uuid in self._lines or given.get("isSidechain") is True:
            return
        message = fields(given.get("message"))
        parent = id_of(given.get("parentUuid")) or id_of(given.get("logicalParentUuid"))
        if not parent and given.get("subtype") == "compact_boundary":
            parent = next(reversed(self._lines), "")
        made = _Line(parent, [], None, is_progress=kind == "progress")
        at_s = time_s(given.get("timestamp"))
        if kind in _SPEAKERS:
            made.time_s = at_s
            self._id = id_of(given.get("sessionId")) or self._id
            self._project = self._project or text(given.get("cwd"))
            self._branch = self._branch or text(given.get("gitBranch"))
            self._updated_s = max(self._updated_s or 0, at_s or 0) or None
        if kind == "user":
            made.parts += self._user(uuid, given, message.get("content"), at_s)
        elif kind == "attachment":
            # What the user wrote while the program was at work.
            told = fields(given.get("attachment"))
            if told.get("type") == "queued_command" and told.get("commandMode", "prompt") == "prompt":
                made.parts += self._user(uuid, given, told.get("prompt"), at_s)
        elif kind == "assistant":
            made.answer = id_of(message.get("id"))
            made.parts += self._assistant(uuid, given, message, at_s)
        self._lines[uuid] = made
        self._answers.setdefault(made.answer or uuid, []).append(uuid)
        if self._size > MAX_CONVERSATION:
            raise NotImported(f"larger than {MAX_CONVERSATION >> 20} MiB")

    def _name(self, kind: str, given: Fields) -> None:
        before = self.title
        if kind == "summary":
            self._summaries[id_of(given.get("leafUuid"))] = text(given.get("summary"))
        else:
            self._titles[kind] = text(given.get("customTitle")) or text(given.get("aiTitle"))
        if self.title != before and self._updated_s is not None:
            # Lines with titles have no time, and are newer than those before them.
            self._updated_s += 1

    def _kept(self, said: str) -> str:
        self._size += len(said)
        return said

    def _user(self, uuid: str, given: Fields, content: Any, at_s: int | None) -> Iterator[Message]:
        made = Message(uuid, "user", at_s)
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else objects(content):
            kind = text(block.get("type"))
            if kind == "text":
                said = _REMINDER.sub("", text(block.get("text")))
                if said.strip() and not _PUT_IN.match(said):
                    made.blocks.append(text_block(self._kept(said)))
            elif kind == "tool_result":
                output = [self._kept(said) for said in _output(block.get("content"))]
                self._results[id_of(block.get("tool_use_id"))] = output, block.get("is_error") is True
            elif kind == "image":
                source = fields(block.get("source"))
                picture = f"image-{digest(as_text(source))}"
                if data := text(source.get("data")):
                    self._keep(picture, data)
                made.files.append(Attached(picture, is_image=True))
                made.blocks.append(image_block(picture))
            elif kind == "document":
                document = f"file-{digest(as_text(block.get('source')))}"
                made.files.append(Attached(document, text(block.get("title"))))
            else:
                self.unknown += 1
        hidden = ("isMeta", "isCompactSummary", "isVisibleInTranscriptOnly")
        if not made.is_empty and not any(given.get(name) is True for name in hidden):
            yield made

    def _assistant(self, uuid: str, given: Fields, message: Fields, at_s: int | None) -> Iterator[Part]:
        model = text(message.get("model"))
        if model == "<synthetic>" or given.get("isApiErrorMessage") is True:
            return
        content = message.get("content")
        made = Message(uuid, "assistant", at_s, model=model)
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else objects(content)
        for number, block in enumerate(blocks):
            kind = text(block.get("type"))
            if kind == "text" and text(block.get("text")).strip():
                made.blocks.append(text_block(self._kept(text(block.get("text")))))
            elif kind == "thinking" and text(block.get("thinking")).strip():
                yield Thought(f"{uuid}/{number}", self._kept(text(block.get("thinking"))), at_s, model)
            elif kind in ("tool_use", "server_tool_use"):
                call_id = id_of(block.get("id")) or f"{uuid}/{number}"
                arguments = self._kept(as_text(block.get("input")))
                yield Call(call_id, text(block.get("name")), arguments, at_s, model=model)
            elif "tool_use_id" in block:
                output = [self._kept(said) for said in _output(block.get("content"))]
                self._results[id_of(block.get("tool_use_id"))] = output, block.get("is_error") is True
            else:
                self.unknown += kind not in ("text", "thinking", "redacted_thinking")
        if not made.is_empty:
            yield made

    def conversation(self) -> Conversation:
        tree = self._tree()
        leaf = tree.visible_leaf("")
        parts = self._parts(tree.path(leaf)) if leaf is not None else []

        def others() -> Iterator[list[Part]]:
            return (self._parts(path) for path in tree.other_paths(leaf or ""))

        models = (part.model for part in parts if part.model)
        return Conversation(
            self._id,
            parts,
            title=self.title,
            updated_s=self._updated_s,
            model=next(models, ""),
            metadata={"project": self._project, "branch": self._branch},
            others=others,
            unknown=self.unknown,
        )

    def _tree(self) -> Tree:
        before = ""
        for uuid, line in self._lines.items():
            if line.parent and line.parent not in self._lines:
                line.parent = before
            before = uuid
        turns = self._turns()
        parents: dict[str, str | None] = {}
        ends: dict[str, str] = {}
        for uuid, line in self._lines.items():
            if line.is_progress:
                continue
            parent = line.parent
            if parent and self._lines[parent].is_progress:
                parent = ends.get(turns[parent], "")
            parents[uuid] = parent or None
            ends[turns[uuid]] = uuid
        return Tree(parents, {uuid: self._lines[uuid].time_s for uuid in parents})

    def _turns(self) -> dict[str, str]:
        """For each line the prompt that it follows from, or which it is; none before the first one."""
        turns: dict[str, str] = {}
        for uuid in self._lines:
            way: dict[str, None] = {}
            at = uuid
            while at and at not in turns and at not in way and not self._lines[at].is_prompt:
                way[at] = None
                at = self._lines[at].parent
            turn = turns.get(at, at if at and self._lines[at].is_prompt else "")
            turns |= dict.fromkeys([*way, uuid], turn)
        return turns

    def _parts(self, path: list[str]) -> list[Part]:
        parts: list[Part] = []
        seen: set[str] = set()
        for uuid in path:
            for of_answer in self._answers[self._lines[uuid].answer or uuid]:
                if of_answer in seen:
                    continue
                seen.add(of_answer)
                for part in self._lines[of_answer].parts:
                    if isinstance(part, Call):
                        if part.id in seen:
                            continue
                        seen.add(part.id)
                        if part.id in self._results:
                            part.outputs, part.is_failed = self._results[part.id]
                    parts.append(part)
        return settled(parts)


def _output(content: Any) -> list[str]:
    """The texts of a result: what it is, or those of its blocks; an empty one is one, too."""
    if isinstance(content, str):
        return [content]
    found = [said for block in entries(content) if (said := text(fields(block).get("text")))]
    return found or [""]
