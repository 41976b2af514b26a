"""``drafts/``: ordinary files and directories, until one is moved into ``threads/`` and becomes a thread."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import NoReturn

from store import DocumentKey, InvalidDocument, RunContents, StoreError, names
from store.documents import MAX_DOCUMENT_BYTES, MAX_LINE_BYTES
from threadfs.nodes.base import Refused, Tree
from threadfs.nodes.loose import LooseDirectory, LooseFile, LooseNode, Quota
from threadfs.nodes.scratch import refuse_trash

MAX_FILES = 200_000
MAX_BYTES = 8 * 1024 * 1024 * 1024

_CONTROLS = ("say", "start")


class DraftsDirectory(LooseDirectory):
    """``drafts/`` itself. One for each mount."""

    keeps_permissions = False

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree, Quota(MAX_FILES, MAX_BYTES), "", "drafts")

    @property
    def path(self) -> str:
        return "drafts"

    def set_permissions(self, mode: int) -> None:
        """It is part of the tree, and stays as it is."""

    def make_directory(self, name: str) -> LooseNode:
        refuse_trash(name)
        return super().make_directory(name)


def make_thread(draft: LooseDirectory, name: str, source: LooseDirectory, thread_id: str) -> None:
    """Makes a thread of the directory *draft*, the child *name* of *source*, in one step.

    Raises:
        InvalidDocument: something in it is wrong; with its place.
        AlreadyExists: the id is taken.
        Refused: a file in it is open for writing.
    """
    names.checked(thread_id)
    source.take(name)  # Nobody can open what is in it while we read it.
    try:
        _refuse_open(draft)
        _import(draft, thread_id)
    except BaseException:
        source.put(name, draft)
        raise
    _keep_times(draft, thread_id)
    draft.removed()


def _keep_times(draft: LooseDirectory, thread_id: str) -> None:
    """What was restored with its times has them in the store, too."""
    store = draft.tree.store

    def keep(node: LooseNode | None, set_modified: Callable[[int], None]) -> None:
        if node is not None and node.has_given_time:
            set_modified(node.attributes().modified_ns)

    def documents() -> Iterator[tuple[LooseNode, DocumentKey]]:
        yield draft.children["meta.json"], DocumentKey(thread_id)
        for run_id, run in _children(draft.children.get("runs")).items():
            parts = _children(run)
            yield parts.get("status") or parts["status.json"], DocumentKey(thread_id, run_id)
            for name, step in _children(parts.get("steps")).items():
                yield step, DocumentKey(thread_id, run_id, name.removesuffix(".json"))

    with suppress(StoreError):  # Somebody has deleted it again already.
        for node, key in documents():
            keep(node, partial(store.set_document_modified, key))
        keep(draft.children.get("messages.jsonl"), partial(store.set_log_modified, thread_id))
        keep(draft, partial(store.set_thread_modified, thread_id))


def _children(node: LooseNode | None) -> dict[str, LooseNode]:
    return node.children if isinstance(node, LooseDirectory) else {}


def _refuse_open(directory: LooseDirectory) -> None:
    for child in directory.children.values():
        if isinstance(child, LooseFile) and child.writers:
            raise Refused(errno.EBUSY, f"{child.path} is still being written")
        if isinstance(child, LooseDirectory):
            _refuse_open(child)


def _import(draft: LooseDirectory, thread_id: str) -> None:
    document = b""
    messages: Iterator[bytes] = iter(())
    runs: dict[str, RunContents] = {}
    for name, child in draft.children.items():
        if name == "meta.json":
            document = _document(child)
        elif name == "messages.jsonl":
            messages = _lines(child)
        elif name == "runs" and isinstance(child, LooseDirectory):
            runs = {run_id: _run(run) for run_id, run in child.children.items()}
        elif name not in _CONTROLS or not _is_empty_file(child):
            _misplaced(child)
    if "meta.json" not in draft.children:
        raise InvalidDocument(f"{draft.path}: there is no meta.json in it, which every thread has")
    draft.tree.store.import_thread(thread_id, document, messages, runs)


def _run(run: LooseNode) -> RunContents:
    if not isinstance(run, LooseDirectory):
        _misplaced(run)
    document: bytes | None = None
    steps: dict[str, bytes] = {}
    for name, child in run.children.items():
        if name in ("status", "status.json") and document is None:
            document = _document(child)
        elif name == "steps" and isinstance(child, LooseDirectory):
            steps = {_step_id(step_name, step): _document(step) for step_name, step in child.children.items()}
        elif name != "cancel" or not _is_empty_file(child):
            _misplaced(child)
    if document is None:
        raise InvalidDocument(f"{run.path}: there is no status in it, which every run has")
    return RunContents(document, steps)


def _step_id(name: str, step: LooseNode) -> str:
    if not name.endswith(".json") or not names.is_id(name.removesuffix(".json")):
        _misplaced(step)
    return name.removesuffix(".json")


def _document(node: LooseNode) -> bytes:
    if not isinstance(node, LooseFile):
        _misplaced(node)
    return node.whole(MAX_DOCUMENT_BYTES)


def _lines(node: LooseNode) -> Iterator[bytes]:
    if not isinstance(node, LooseFile):
        _misplaced(node)
    return (line for line in node.lines(MAX_LINE_BYTES) if line.strip())


def _is_empty_file(node: LooseNode) -> bool:
    return isinstance(node, LooseFile) and node.size() == 0


def _misplaced(node: LooseNode) -> NoReturn:
    raise InvalidDocument(f"{node.path}: this has no place in a thread; remove it from the draft")
