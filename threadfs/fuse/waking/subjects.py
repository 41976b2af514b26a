"""What a `Change` of the store may have changed of what the mount shows.

The order matters to who watches: a file that grows is told before what is made from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from store import Change, DocumentKey, Part
from threadfs.nodes.base import Directory, Tree
from threadfs.nodes.growing import ThreadTexts
from threadfs.nodes.threads import (
    RunDirectory,
    RunsDirectory,
    StepsDirectory,
    ThreadDirectory,
    ThreadsDirectory,
)


@dataclass(frozen=True, slots=True)
class File:
    """The contents of a file, which is the document *key* if it is one."""

    directory: Directory
    name: str
    key: DocumentKey | None = None

    @property
    def path(self) -> str:
        return f"{self.directory.path}/{self.name}"


@dataclass(frozen=True, slots=True)
class Log:
    """The message log of a thread, and *texts*, which are made from it."""

    directory: ThreadDirectory
    texts: tuple[File, ...]

    @property
    def path(self) -> str:
        return self.file.path

    @property
    def file(self) -> File:
        return File(self.directory, "messages.jsonl")


@dataclass(frozen=True, slots=True)
class Times:
    """The times alone of a document or log."""

    of: File | Log

    @property
    def path(self) -> str:
        return self.of.path


@dataclass(frozen=True, slots=True)
class Name:
    """A name that came or went."""

    directory: Directory
    name: str

    @property
    def path(self) -> str:
        return f"{self.directory.path}/{self.name}"


@dataclass(frozen=True, slots=True)
class Time:
    """The time of a directory."""

    directory: Directory

    @property
    def path(self) -> str:
        return self.directory.path


@dataclass(frozen=True, slots=True)
class Link:
    """The link of a run in the directory of its status."""

    thread_id: str
    run_id: str

    @property
    def path(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Names:
    """All names of a list: the runs of a thread with their links, or the steps of a run."""

    directory: RunsDirectory | StepsDirectory

    @property
    def path(self) -> str:
        return ""


Subject: TypeAlias = File | Log | Times | Name | Time | Link | Names


def subjects_of(tree: Tree, texts: Sequence[ThreadTexts], change: Change) -> Iterator[Subject]:
    """*texts*: the directories of transcripts and of answers."""
    found = _subjects_of(tree, texts, change)
    if not change.only_times:
        yield from found
        return
    for subject in found:
        if isinstance(subject, Time):
            yield subject
        elif isinstance(subject, Log) or (isinstance(subject, File) and subject.key):
            yield Times(subject)


def _subjects_of(tree: Tree, texts: Sequence[ThreadTexts], change: Change) -> Iterator[Subject]:
    thread_id, run_id, step_id = change.thread_id, change.run_id, change.step_id
    if change.part in (Part.WORKERS, Part.EVERYTHING):
        return
    thread = ThreadDirectory(tree, thread_id)
    in_texts = [File(directory, f"{thread_id}.md") for directory in texts]
    match change.part:
        case Part.THREADS:
            yield Name(ThreadsDirectory(tree), thread_id)
            for directory in texts:
                yield Name(directory, f"{thread_id}.md")
            yield Names(RunsDirectory(tree, thread_id))
            return
        case Part.ANSWER:
            yield from in_texts
            return
        case Part.LOG:
            yield Log(thread, tuple(in_texts))
        case Part.RUNS if run_id is None:
            yield Names(RunsDirectory(tree, thread_id))
        case Part.RUNS if run_id is not None:
            yield Name(RunsDirectory(tree, thread_id), run_id)
            yield Link(thread_id, run_id)
        case Part.STEPS if run_id is not None and step_id is None:
            yield Names(StepsDirectory(tree, thread_id, run_id))
        case Part.STEPS if run_id is not None:
            yield Name(StepsDirectory(tree, thread_id, run_id), f"{step_id}.json")
        case Part.DOCUMENT if run_id is None:
            yield File(thread, "meta.json", change.key)
            yield in_texts[0]
        case Part.DOCUMENT if run_id is not None and step_id is None:
            yield File(RunDirectory(tree, thread_id, run_id), "status", change.key)
            yield Link(thread_id, run_id)
            yield in_texts[0]
        case Part.DOCUMENT if run_id is not None:
            yield File(StepsDirectory(tree, thread_id, run_id), f"{step_id}.json", change.key)
    yield Time(thread)
