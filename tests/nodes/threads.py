"""Threads with titles and messages, and looking at views of them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Final

import pytest

from store import ContentBlock, MessageRole, Thread, ThreadMessage, ThreadStore
from tests.nodes.driving import Programs
from threadfs.nodes.base import Linked, Refused

NOVEMBER_28: Final = int(datetime(2026, 11, 28, tzinfo=UTC).timestamp())


def thread(store: ThreadStore, thread_id: str, title: str = "", created_at: int = NOVEMBER_28) -> None:
    metadata = {"title": title} if title else {}
    store.create_thread(Thread(id=thread_id, created_at=created_at, metadata=metadata))


def say(store: ThreadStore, thread_id: str, text: str, created_at: int = NOVEMBER_28) -> None:
    content = [ContentBlock.of({"type": "text", "text": {"value": text, "annotations": []}})]
    message = ThreadMessage(role=MessageRole.user, content=content, created_at=created_at)
    store.append_message(thread_id, message)


def target(programs: Programs, path: str) -> str:
    """The thread that a link leads to: from where it is, as a path does."""
    link = programs.at(path)
    assert isinstance(link, Linked)
    resolved = os.path.normpath(os.path.join(os.path.dirname(path), link.target()))
    directory, _, thread_id = resolved.partition("/")
    assert directory == "threads"
    return thread_id


def modified_ns(programs: Programs, path: str) -> int:
    return programs.at(path).attributes().modified_ns


def reason(programs: Programs, path: str) -> str:
    with pytest.raises(Refused) as refused:
        programs.at(path)
    return str(refused.value)
