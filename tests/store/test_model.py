"""Random operations on a store and on a plain model in memory: both answer alike, after each of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from store import (
    AlreadyExists,
    ContentBlock,
    DocumentKey,
    InvalidName,
    MessageRole,
    NotEmpty,
    Run,
    RunInProgress,
    RunInTerminalState,
    RunNotFound,
    RunStatus,
    RunStep,
    RunStepInTerminalState,
    RunStepNotFound,
    RunStepStatus,
    StatusChanged,
    StoreError,
    Thread,
    ThreadMessage,
    ThreadNotFound,
    ThreadStore,
)
from store.checking import Severity, check_thread

IDS = st.sampled_from(["a", "ä ö", "z" * 127])
BAD_IDS = st.sampled_from(["", ".", "..", ".a", "a/b", "a@b", "a\n", "z" * 128, "é" * 64, "/etc", "../a"])
STATUSES = st.sampled_from(RunStatus)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


@dataclass
class ModelRun:
    status: RunStatus
    steps: dict[str, RunStepStatus] = field(default_factory=dict)


@dataclass
class ModelThread:
    metadata: Any
    texts: list[str] = field(default_factory=list)
    runs: dict[str, ModelRun] = field(default_factory=dict)


class Model:
    """What the store is to do, with none of its means."""

    def __init__(self) -> None:
        self.threads: dict[str, ModelThread] = {}

    def thread(self, thread_id: str) -> ModelThread:
        if thread_id not in self.threads:
            raise ThreadNotFound(thread_id)
        return self.threads[thread_id]

    def run(self, thread_id: str, run_id: str) -> ModelRun:
        if run_id not in (runs := self.threads.get(thread_id, ModelThread({})).runs):
            # Of what the path names, it is the last that is missed, or the thread.
            raise RunNotFound(run_id)
        return runs[run_id]

    def create_thread(self, thread_id: str, metadata: Any) -> None:
        if thread_id in self.threads:
            raise AlreadyExists("thread", thread_id)
        self.threads[thread_id] = ModelThread(metadata)

    def delete_thread(self, thread_id: str, force: bool, only_empty: bool) -> None:
        thread = self.thread(thread_id)
        if not force:
            for run_id, run in thread.runs.items():
                if run.status.is_in_progress:
                    raise RunInProgress(run_id, run.status)
        if only_empty and (thread.texts or thread.runs):
            raise NotEmpty(thread_id)
        del self.threads[thread_id]

    def create_run(self, thread_id: str, run_id: str) -> None:
        if run_id in self.thread(thread_id).runs:
            raise AlreadyExists("run", run_id)
        self.threads[thread_id].runs[run_id] = ModelRun(RunStatus.queued)

    def update(self, thread_id: str, run_id: str, status: RunStatus, expected: RunStatus | None) -> None:
        run = self.run(thread_id, run_id)
        if expected is not None and run.status is not expected:
            raise StatusChanged(run_id, run.status, expected)
        if run.status.is_terminal:
            raise RunInTerminalState(run_id, run.status)
        run.status = status

    def cancel(self, thread_id: str, run_id: str, force: bool) -> None:
        run = self.run(thread_id, run_id)
        if run.status.is_terminal and run.status is not RunStatus.cancelled and not force:
            raise RunInTerminalState(run_id, run.status)
        run.status = RunStatus.cancelled

    def delete_run(self, thread_id: str, run_id: str, force: bool) -> None:
        run = self.run(thread_id, run_id)
        if run.status.is_in_progress and not force:
            raise RunInProgress(run_id, run.status)
        del self.threads[thread_id].runs[run_id]

    def append_step(self, thread_id: str, run_id: str, step_id: str) -> None:
        steps = self.run(thread_id, run_id).steps
        if step_id in steps:
            raise AlreadyExists("step", step_id)
        steps[step_id] = RunStepStatus.in_progress

    def update_step(self, thread_id: str, run_id: str, step_id: str, status: RunStepStatus) -> None:
        steps = (
            self.threads.get(thread_id, ModelThread({})).runs.get(run_id, ModelRun(RunStatus.queued)).steps
        )
        if step_id not in steps:
            raise RunStepNotFound(step_id)
        before = steps[step_id]
        if before is not RunStepStatus.in_progress and status is not before:
            raise RunStepInTerminalState(step_id, before)
        steps[step_id] = status


class StoreAndModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(dir="/dev/shm")
        self.store = ThreadStore(self.directory.name)
        self.model = Model()

    def teardown(self) -> None:
        # A message whose run has been deleted since is no damage.
        found = [
            finding for thread_id in self.model.threads for finding in check_thread(self.store, thread_id)
        ]
        self.directory.cleanup()
        assert {finding.severity for finding in found} <= {Severity.NOTE}, found

    def both(self, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
        """Does it to both, and compares what is raised, if anything; a missing parent counts as missing."""
        raised: list[type[StoreError] | None] = []
        for action in (ours, theirs):
            try:
                action()
                raised.append(None)
            except (ThreadNotFound, RunNotFound, RunStepNotFound):
                raised.append(ThreadNotFound)
            except StoreError as error:
                raised.append(type(error))
        assert raised[0] is raised[1]

    @rule(thread_id=IDS, metadata=JSON)
    def create_thread(self, thread_id: str, metadata: Any) -> None:
        self.both(
            lambda: self.store.create_thread(Thread(id=thread_id, metadata=metadata)),
            lambda: self.model.create_thread(thread_id, metadata),
        )

    @rule(thread_id=IDS, force=st.booleans(), only_empty=st.booleans())
    def delete_thread(self, thread_id: str, force: bool, only_empty: bool) -> None:
        self.both(
            lambda: self.store.delete_thread(thread_id, force=force, only_empty=only_empty),
            lambda: self.model.delete_thread(thread_id, force, only_empty),
        )

    @rule(thread_id=IDS, name=TEXTS, value=JSON)
    def patch_metadata(self, thread_id: str, name: str, value: Any) -> None:
        # RFC 7396 drops nulls within objects; that is tested elsewhere.
        document = {"metadata": {name: [value]}}
        if thread_id in self.model.threads:
            before = self.model.threads[thread_id].metadata
            kept = before if isinstance(before, dict) else {}
            self.model.threads[thread_id].metadata = {**kept, name: [value]}
            self.store.patch_document(DocumentKey(thread_id), document)
        else:
            self.both(
                lambda: self.store.patch_document(DocumentKey(thread_id), document),
                lambda: self.model.thread(thread_id),
            )

    @rule(thread_id=IDS, texts=st.lists(TEXTS, min_size=1, max_size=3), run_id=st.none() | IDS)
    def append_messages(self, thread_id: str, texts: list[str], run_id: str | None) -> None:
        for text in texts:
            content = [ContentBlock.of_text(text)]
            message = ThreadMessage(role=MessageRole.user, content=content, run_id=run_id)
            self.both(
                lambda message=message: self.store.append_message(thread_id, message),  # type: ignore[misc]
                lambda text=text: self.model.thread(thread_id).texts.append(text),  # type: ignore[misc]
            )

    @rule(thread_id=IDS, run_id=IDS)
    def create_run(self, thread_id: str, run_id: str) -> None:
        self.both(
            lambda: self.store.create_run(thread_id, Run(id=run_id)),
            lambda: self.model.create_run(thread_id, run_id),
        )

    @rule(thread_id=IDS, run_id=IDS, status=STATUSES, expected=st.none() | STATUSES)
    def update_run(self, thread_id: str, run_id: str, status: RunStatus, expected: RunStatus | None) -> None:
        self.both(
            lambda: self.store.update_run_status(thread_id, run_id, status, expected=expected),
            lambda: self.model.update(thread_id, run_id, status, expected),
        )

    @rule(thread_id=IDS, run_id=IDS, force=st.booleans())
    def cancel_run(self, thread_id: str, run_id: str, force: bool) -> None:
        self.both(
            lambda: self.store.cancel_run(thread_id, run_id, force=force),
            lambda: self.model.cancel(thread_id, run_id, force),
        )

    @rule(thread_id=IDS, run_id=IDS, force=st.booleans())
    def delete_run(self, thread_id: str, run_id: str, force: bool) -> None:
        self.both(
            lambda: self.store.delete_run(thread_id, run_id, force=force),
            lambda: self.model.delete_run(thread_id, run_id, force),
        )

    @rule(thread_id=IDS, run_id=IDS, step_id=IDS)
    def append_step(self, thread_id: str, run_id: str, step_id: str) -> None:
        self.both(
            lambda: self.store.append_step(thread_id, run_id, RunStep(id=step_id)),
            lambda: self.model.append_step(thread_id, run_id, step_id),
        )

    @rule(thread_id=IDS, run_id=IDS, step_id=IDS, status=st.sampled_from(RunStepStatus))
    def update_step(self, thread_id: str, run_id: str, step_id: str, status: RunStepStatus) -> None:
        self.both(
            lambda: self.store.update_step_status(thread_id, run_id, step_id, status),
            lambda: self.model.update_step(thread_id, run_id, step_id, status),
        )

    @rule(bad_id=BAD_IDS, good_id=IDS)
    def use_a_bad_id(self, bad_id: str, good_id: str) -> None:
        for attempt in (
            lambda: self.store.create_thread(Thread().model_copy(update={"id": bad_id})),
            lambda: self.store.get_thread(bad_id),
            lambda: self.store.delete_run(good_id, bad_id, force=True),
            lambda: self.store.get_step(good_id, good_id, bad_id),
        ):
            try:
                attempt()
            except InvalidName:
                continue
            raise AssertionError(f"{bad_id!r} was taken for an id")

    @rule()
    def open_the_store_anew(self) -> None:
        self.store = ThreadStore(self.directory.name)

    @invariant()
    def both_hold_the_same(self) -> None:
        assert sorted(self.store.list_thread_ids()) == sorted(self.model.threads)
        for thread_id, thread in self.model.threads.items():
            assert self.store.get_thread(thread_id).metadata == thread.metadata
            assert [found.text for found in self.store.list_messages(thread_id)] == thread.texts
            assert sorted(self.store.list_run_ids(thread_id)) == sorted(thread.runs)
            for run_id, run in thread.runs.items():
                assert self.store.get_run(thread_id, run_id).status is run.status
                steps = {step.id: step.status for step in self.store.list_steps(thread_id, run_id)}
                assert steps == run.steps
        everything = {
            (thread_id, run_id, run.status)
            for thread_id, thread in self.model.threads.items()
            for run_id, run in thread.runs.items()
        }
        assert set(self.store.runs_by_status()) == everything


TestStoreAndModel = StoreAndModel.TestCase
TestStoreAndModel.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
