"""``runs/<run>/tools/``: the calls of tools that a run waits for, there while it ``requires_action``.

It is a view of the calls in the run's steps. Writing an ``output`` sets it; with the last one the run is
queued.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from store import Damaged, DocumentKey, InvalidDocument, RunStatus, RunStepStatus, Store, Times
from store.documents import MAX_LINE_BYTES
from store.errors import OutputIsSet
from store.printing import printable_json, printable_lines
from store.tools import ToolCall, calls_of
from threadfs.nodes.base import Attributes, BytesReader, Node, NoSuchName, PathNode, Refused, Writer, regular
from threadfs.nodes.canonical import CanonicalDirectory
from threadfs.nodes.lives import Life
from threadfs.nodes.writers import TextWriter, decoded

TOOLS = "tools"

_PLAIN_NAME = re.compile("[A-Za-z0-9_-]{1,64}")


def awaited_calls(store: Store, run: DocumentKey) -> list[ToolCall]:
    """The calls that a run waits for; none if it does not, or its document is damaged. Raises RunNotFound."""
    thread_id, run_id = run.thread_id, str(run.run_id)
    # Most runs wait for nothing: to see that is much less than to read the whole document.
    if RunStatus.requires_action.encode() not in store.read_document(run)[0]:
        return []
    with suppress(Damaged):
        if store.get_run(thread_id, run_id).status is RunStatus.requires_action:
            steps = store.list_steps(thread_id, run_id)
            return [
                call for step in steps if step.status is RunStepStatus.in_progress for call in calls_of(step)
            ]
    return []


class _View(CanonicalDirectory):
    """A directory of what the run waits for at this moment: a look into it tells which names there are."""

    __slots__ = ()

    def named_child(self, name: str) -> Node:
        for child_name, child in self.stored_entries():
            if child_name == name:
                return child
        raise NoSuchName(name)

    def check_stored(self, child: Node) -> None:
        """Nothing is left to check: `named_child` has asked the store."""


@dataclass(frozen=True, slots=True)
class ToolsDirectory(_View):
    """A directory for each call, ``<n>.<name>`` from 1 on; without the name if that is a strange one."""

    # Whether it is there says more than its attributes.
    has_cheap_attributes: ClassVar[bool] = False

    thread_id: str
    run_id: str

    @property
    def path(self) -> str:
        return f"threads/{self.thread_id}/runs/{self.run_id}/{TOOLS}"

    @property
    def run(self) -> DocumentKey:
        return DocumentKey(self.thread_id, self.run_id)

    @property
    def listed_in(self) -> DocumentKey:
        return self.run

    def times(self) -> Times:
        info = self.store.document_info(self.run)
        return Times(info.modified_ns, info.changed_ns)

    def stored_entries(self) -> Iterable[tuple[str, Node]]:
        for number, call in enumerate(awaited_calls(self.store, self.run), 1):
            name = f"{number}.{call.name}" if _PLAIN_NAME.fullmatch(call.name) else f"{number}"
            yield name, CallDirectory(self.tree, self, name, call.id)


@dataclass(frozen=True, slots=True)
class CallDirectory(_View):
    """One call: its ``arguments`` and its ``output``."""

    life = Life.UNREPORTED
    documents: ClassVar[tuple[str, ...]] = ("output",)

    tools: ToolsDirectory
    name: str
    call_id: str

    @property
    def path(self) -> str:
        return f"{self.tools.path}/{self.name}"

    def times(self) -> Times:
        return self.tools.times()

    def call(self) -> ToolCall:
        """Raises NoSuchName if the run does not wait for it (any more)."""
        for call in awaited_calls(self.store, self.tools.run):
            if call.id == self.call_id:
                return call
        raise NoSuchName(self.name)

    def stored_entries(self) -> Iterable[tuple[str, Node]]:
        self.call()
        yield "arguments", ArgumentsFile(self.tree, self)
        yield "output", OutputFile(self.tree, self)


@dataclass(frozen=True, slots=True)
class _CallFile(PathNode):
    """A text of a call, with a newline at its end; empty if there is none."""

    name: ClassVar[str]
    mode: ClassVar[int]

    of: CallDirectory

    @property
    def path(self) -> str:
        return f"{self.of.path}/{self.name}"

    def text(self) -> str:
        raise NotImplementedError

    def open_for_reading(self) -> BytesReader:
        text = self.text()
        data = (text if text.endswith("\n") or not text else text + "\n").encode(errors="replace")
        modified_ns, changed_ns = self.of.times()
        return BytesReader(data, regular(self.mode, len(data), modified_ns, changed_ns=changed_ns))

    def attributes(self) -> Attributes:
        return self.open_for_reading().attributes()


@dataclass(frozen=True, slots=True)
class ArgumentsFile(_CallFile):
    """What the model gives the tool: JSON, in most cases."""

    name: ClassVar[str] = "arguments"
    mode: ClassVar[int] = 0o444

    def text(self) -> str:
        return printable_json(self.of.call().arguments.replace("\r\n", "\n"))


@dataclass(frozen=True, slots=True)
class OutputFile(_CallFile):
    """Text written here, from open to close, is what the tool gives; one newline at its end is dropped."""

    name: ClassVar[str] = "output"
    mode: ClassVar[int] = 0o644

    def text(self) -> str:
        return printable_lines(self.of.call().output or "")

    def open_for_writing(self, *, truncate: bool, append: bool) -> Writer:
        self._check(0)
        self.store.check_writable(self.of.tools.thread_id)
        return TextWriter(self._commit, limit_bytes=MAX_LINE_BYTES, check=self._check)

    def _check(self, size_bytes: int) -> None:
        if self.of.call().output is not None:
            raise OutputIsSet(self.of.call_id)
        self.store.check_appendable(self.of.tools.thread_id, size_bytes)

    def _commit(self, data: bytes) -> None:
        output, key = decoded(data).removesuffix("\n"), self.of.tools.run
        try:
            self.store.set_tool_output(key.thread_id, str(key.run_id), self.of.call_id, output)
        except InvalidDocument as error:
            raise Refused(errno.EFBIG, str(error)) from None
