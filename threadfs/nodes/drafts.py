"""``drafts/``: ordinary files and directories, until one is moved into ``threads/`` and becomes a thread."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import NoReturn

from store import DocumentKey, InvalidDocument, RunContents, StoreError, names, transitions
from store.documents import MAX_DOCUMENT_BYTES, MAX_LINE_BYTES
from threadfs.nodes.base import Refused, Tree
from threadfs.nodes.loose import LooseNode
from threadfs.nodes.loose_directories import LooseDirectory
from threadfs.nodes.loose_files import LooseFile
from threadfs.nodes.quota import Quota
from threadfs.nodes.scratch import refuse_trash
from threadfs.nodes.tools import TOOLS

MAX_FILES = 200_000
MAX_BYTES = 8 * 1024 * 1024 * 1024

# Empty control files hold no data of a thread. Nor do the tools of a run, which are a view of its steps, and
# in a copy of the store's own directory an answer that grows, or what is left of one.
_CONTROLS = ("say", "start", "ask", "cancel")
_ANSWER = ".threadfs-answer-"


class DraftsDirectory(LooseDirectory):
    """``drafts/`` itself. One for each mount."""

    keeps_permissions = False

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree, Quota(MAX_FILES, MAX_BYTES), "", "drafts")

    def set_permissions(self, mode: int) -> None:
        """Does nothing: the directory is part of the tree."""

    def make_directory(self, name: str) -> LooseNode:
        refuse_trash(name)
        return super().make_directory(name)


def make_thread(draft: LooseDirectory, name: str, source: LooseDirectory, thread_id: str) -> None:
    """Makes a thread from the directory *draft*, the child *name* of *source*, in one step.

    Raises:
        InvalidDocument: something in it is wrong; the message has the path.
        AlreadyExists: the id is taken.
        Refused: a file in it is open for writing.
    """
    names.checked(thread_id)
    source.take(name)  # So that no program opens a file in it while we read.
    try:
        _refuse_open(draft)
        _import(draft, thread_id)
    except BaseException:
        source.put(name, draft)
        raise
    _keep_times(draft, thread_id)
    draft.removed()


def _keep_times(draft: LooseDirectory, thread_id: str) -> None:
    """Gives the stored files the times that were set in the draft, as by a restore."""
    store = draft.tree.store

    def keep(node: LooseNode | None, set_modified: Callable[[int], None]) -> None:
        if node is not None and node.has_given_time:
            set_modified(node.attributes().modified_ns)

    def documents() -> Iterator[tuple[LooseNode | None, DocumentKey]]:
        yield draft.children.get("meta.json"), DocumentKey(thread_id)
        for run_id, run in _children(draft.children.get("runs")).items():
            parts = _children(run)
            yield parts.get("status") or parts["status.json"], DocumentKey(thread_id, run_id)
            for name, step in _children(parts.get("steps")).items():
                yield step, DocumentKey(thread_id, run_id, name.removesuffix(".json"))

    with suppress(StoreError):  # It may have been deleted again.
        for node, key in documents():
            keep(node, partial(store.set_document_modified, key))
        keep(draft.children.get("messages.jsonl"), partial(store.set_log_modified, thread_id))
        keep(draft, partial(store.set_thread_modified, thread_id))


def _children(node: LooseNode | None) -> dict[str, LooseNode]:
    return node.children if isinstance(node, LooseDirectory) else {}


def _refuse_open(directory: LooseDirectory) -> None:
    for node in directory.below():
        if isinstance(node, LooseFile) and node.writers:
            raise Refused(errno.EBUSY, f"{node.path} is still being written")


def _import(draft: LooseDirectory, thread_id: str) -> None:
    key = DocumentKey(thread_id)
    document = transitions.laid_out_new(key, b"{}")
    messages: Iterator[bytes] = iter(())
    runs: dict[str, RunContents] = {}
    for name, child in draft.children.items():
        if name == "meta.json":
            document = _document(key, child)
        elif name == "messages.jsonl":
            messages = _lines(child)
        elif name == "runs" and isinstance(child, LooseDirectory):
            runs = {
                run_id: _run(DocumentKey(thread_id, run_id), run) for run_id, run in child.children.items()
            }
        else:
            _refuse_misplaced(name, child)
    draft.tree.store.import_thread(thread_id, document, messages, runs)


def _run(key: DocumentKey, run: LooseNode) -> RunContents:
    if not isinstance(run, LooseDirectory):
        _misplaced(run)
    document: bytes | None = None
    steps: dict[str, bytes] = {}
    for name, child in run.children.items():
        if name in ("status", "status.json") and document is None:
            document = _document(key, child)
        elif name == "steps" and isinstance(child, LooseDirectory):
            steps = dict(_steps(key, child))
        else:
            _refuse_misplaced(name, child)
    if document is None:
        raise InvalidDocument(f"{run.path}: there is no status in it, which every run has")
    return RunContents(document, steps)


def _steps(key: DocumentKey, directory: LooseDirectory) -> Iterator[tuple[str, bytes]]:
    for name, child in directory.children.items():
        step_id = name.removesuffix(".json")
        if step_id != name and names.is_id(step_id):
            yield step_id, _document(key._replace(step_id=step_id), child)
        else:
            _refuse_misplaced(name, child)


def _document(key: DocumentKey, node: LooseNode) -> bytes:
    """The whole document: fields that can be filled in may be missing from the file."""
    if not isinstance(node, LooseFile):
        _misplaced(node)
    try:
        return transitions.laid_out_new(key, node.whole(MAX_DOCUMENT_BYTES))
    except InvalidDocument as error:
        raise InvalidDocument(f"{node.path}: {error}") from None


def _lines(node: LooseNode) -> Iterator[bytes]:
    if not isinstance(node, LooseFile):
        _misplaced(node)
    return (line for line in node.lines(MAX_LINE_BYTES) if line.strip())


def _refuse_misplaced(name: str, node: LooseNode) -> None:
    """Accepts only files that hold no data of a thread."""
    is_empty_control = name in _CONTROLS and isinstance(node, LooseFile) and node.size() == 0
    is_tools = name == TOOLS and isinstance(node, LooseDirectory)
    if not (is_empty_control or is_tools or name.startswith(_ANSWER)):
        _misplaced(node)


def _misplaced(node: LooseNode) -> NoReturn:
    raise InvalidDocument(f"{node.path}: this has no place in a thread; remove it from the draft")
