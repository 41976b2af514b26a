"""Random programs on a tree and on a plain model of its contract: both answer alike, and show the same."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from store import RunStatus, RunStepStatus
from store.catalogue.queries import parsed
from tests.nodes.driving import OK, Programs, outcome
from tests.nodes.tree_model import ModelRun, ModelThread, names_of

# Some more often than others, so that most of what is tried is there; what is removed is rather another.
IDS = ["a", "Å b", "z" * 127]
THREADS = st.sampled_from(["a", "a", "a", "a", *IDS[1:]])
REMOVED = st.sampled_from(["a", *IDS[1:], *IDS[1:]])
RUNS = st.sampled_from(["r", "r", "r", "q ü"])
STEPS = st.sampled_from(["s", "t"])
BAD_IDS = st.sampled_from([".a", "a@b", "a\n", "z" * 128])
IN_PROGRESS = [RunStatus.queued, RunStatus.in_progress, RunStatus.requires_action]
STATUSES = st.sampled_from([*IN_PROGRESS, *IN_PROGRESS, *RunStatus])
ALWAYS_THERE = st.sampled_from(["queued", "in_progress", "completed", "cancelled", "failed", "expired"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PIECES = st.integers(1, 4)
TITLES = st.sampled_from(["New chat", "New chat", "Å/b\x1b\n", "hits.txt", " ", "x" * 300]) | TEXTS
WORDS = st.sampled_from(["chat", "new", "b", "x*", "txt", "needle"])
NONSENSE = st.sampled_from([b"nonsense\n", b"{", b"[1]", b'"x"', b"\xff\n", b" \n", b'{"a":NaN}'])
STEP = b'{"step_type":"tool_calls"}'


def line(text: str) -> bytes:
    return json.dumps({"role": "user", "content": text}, ensure_ascii=False).encode() + b"\n"


class TreeMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.programs = self.begin()
        self.threads: dict[str, ModelThread] = {}

    def begin(self) -> Programs:
        """An empty tree."""
        raise NotImplementedError

    def run(self, thread: str, run: str) -> ModelRun | None:
        return self.threads[thread].runs.get(run) if thread in self.threads else None

    def write(self, path: str, data: bytes, *, append: bool = False, pieces: int = 1) -> str:
        return outcome(lambda: self.programs.write(path, data, append=append, pieces=pieces))

    # ── Threads ─────────────────────────────────────────────────────────────────────────────────────

    @rule(thread=THREADS)
    def make_thread(self, thread: str) -> None:
        expected = "EEXIST" if thread in self.threads else OK
        assert outcome(lambda: self.programs.mkdir(f"threads/{thread}")) == expected
        self.threads.setdefault(thread, ModelThread())

    @initialize()
    def work_begins(self) -> None:
        self.work_begins_again()

    @rule()
    def work_begins_again(self) -> None:
        for thread in IDS[:2]:
            if thread not in self.threads:
                self.make_thread(thread)
            if "r" not in self.threads[thread].runs:
                self.queue_run(thread, "r", by_start=True)

    @rule(name=BAD_IDS)
    def make_what_is_no_id(self, name: str) -> None:
        assert outcome(lambda: self.programs.mkdir(f"threads/{name}")) == "EINVAL"

    @rule(thread=REMOVED)
    def take_thread_back(self, thread: str) -> None:
        found, expected = self.threads.get(thread), OK
        if found is None:
            expected = "ENOENT"
        elif found.is_busy:
            expected = "EBUSY"
        elif found.texts or found.runs:
            expected = "ENOTEMPTY"
        assert outcome(lambda: self.programs.rmdir(f"threads/{thread}")) == expected
        if expected == OK:
            del self.threads[thread]
        elif found is not None:
            found.is_meta_removed = False

    @rule(thread=REMOVED)
    def remove_thread(self, thread: str) -> None:
        found = self.threads.get(thread)
        expected = "ENOENT" if found is None else "EBUSY" if found.is_busy else OK
        assert outcome(lambda: self.programs.remove_all(f"threads/{thread}")) == expected
        if expected == OK:
            del self.threads[thread]
        elif found is not None:
            found.runs = {run_id: run for run_id, run in found.runs.items() if run.status.is_in_progress}
            found.is_meta_removed = False

    @rule(thread=THREADS, value=TEXTS, pieces=PIECES)
    def patch_thread(self, thread: str, value: str, pieces: int) -> None:
        patch = json.dumps({"metadata": {"value": value}}).encode()
        found = self.threads.get(thread)
        assert self.write(f"threads/{thread}/meta.json", patch, pieces=pieces) == (OK if found else "ENOENT")
        if found:
            # An object without an `id` is a patch of what the path names, also when its name was removed.
            found.metadata = {**(found.metadata if isinstance(found.metadata, dict) else {}), "value": value}
            found.is_meta_removed = False

    @rule(thread=THREADS, title=TITLES)
    def call_thread(self, thread: str, title: str) -> None:
        if (found := self.threads.get(thread)) is None:
            return
        patch = json.dumps({"metadata": {"title": title}}).encode()
        assert self.write(f"threads/{thread}/meta.json", patch) == OK
        found.metadata = {**(found.metadata if isinstance(found.metadata, dict) else {}), "title": title}
        found.is_meta_removed = False

    @rule(thread=THREADS, data=NONSENSE, pieces=PIECES)
    def write_nonsense_to_thread(self, thread: str, data: bytes, pieces: int) -> None:
        expected = "EINVAL" if thread in self.threads else "ENOENT"
        assert self.write(f"threads/{thread}/meta.json", data, pieces=pieces) == expected
        if thread in self.threads:
            self.threads[thread].is_meta_removed = False

    @rule(thread=THREADS)
    def remove_thread_document(self, thread: str) -> None:
        found = self.threads.get(thread)
        expected = OK if found and not found.is_meta_removed else "ENOENT"
        assert outcome(lambda: self.programs.unlink(f"threads/{thread}/meta.json")) == expected
        if found:
            found.is_meta_removed = True

    @rule(thread=THREADS, data=st.sampled_from([b'{"metadata":5}', b"{", b""]))
    def save_thread_as_an_editor_does(self, thread: str, data: bytes) -> None:
        if (found := self.threads.get(thread)) is None:
            return
        path = f"threads/{thread}"
        assert self.write(f"{path}/.tmp", data) == OK
        renamed = outcome(lambda: self.programs.rename(f"{path}/.tmp", f"{path}/meta.json"))
        found.is_meta_removed = False
        if data.endswith(b"}"):
            assert renamed == OK
            found.metadata = 5
        else:
            assert renamed == "EBADMSG"
            self.programs.unlink(f"{path}/.tmp")

    @rule(thread=THREADS, new=REMOVED | BAD_IDS, is_spoilt=st.booleans())
    def clone_thread(self, thread: str, new: str, is_spoilt: bool) -> None:
        if (found := self.threads.get(thread)) is None:
            return
        self.programs.copy(f"threads/{thread}", "drafts/copy")
        if is_spoilt:
            self.programs.write("drafts/copy/notes", b"x")
        expected = OK
        if is_spoilt or new not in IDS:
            expected = "EBADMSG"
        elif new in self.threads:
            expected = "EEXIST"
        assert outcome(lambda: self.programs.rename("drafts/copy", f"threads/{new}")) == expected
        if expected == OK:
            runs = {run_id: ModelRun(run.status, dict(run.steps)) for run_id, run in found.runs.items()}
            # Without its document it is a thread all the same.
            metadata = {} if found.is_meta_removed else found.metadata
            self.threads[new] = ModelThread(metadata, list(found.texts), runs)
        else:
            self.programs.remove_all("drafts/copy")

    # ── Messages ────────────────────────────────────────────────────────────────────────────────────

    @rule(thread=THREADS, text=TEXTS, pieces=PIECES)
    def say(self, thread: str, text: str, pieces: int) -> None:
        said = text.removesuffix("\n")
        expected = OK if thread in self.threads else "ENOENT"
        assert self.write(f"threads/{thread}/say", text.encode(), pieces=pieces) == expected
        if thread in self.threads and said:
            self.threads[thread].texts.append(said)

    @rule(
        thread=THREADS, texts=st.lists(TEXTS, max_size=3), ends=st.sampled_from([b"", b"nonsense\n", b"{}\n"])
    )
    def append(self, thread: str, texts: list[str], ends: bytes) -> None:
        data = b"".join(map(line, texts)) + ends
        expected = "ENOENT" if thread not in self.threads else "EINVAL" if ends else OK
        assert self.write(f"threads/{thread}/messages.jsonl", data, append=True) == expected
        if expected == OK:
            self.threads[thread].texts += texts

    @rule(thread=THREADS, more=st.lists(TEXTS, max_size=2), pieces=PIECES)
    def rewrite_and_append(self, thread: str, more: list[str], pieces: int) -> None:
        if (found := self.threads.get(thread)) is None:
            return
        path = f"threads/{thread}/messages.jsonl"
        data = self.programs.read(path) + b"".join(map(line, more))
        assert self.write(path, data, pieces=pieces) == OK
        found.texts += more

    @rule(thread=THREADS, pieces=PIECES)
    def rewrite_and_change(self, thread: str, pieces: int) -> None:
        if (found := self.threads.get(thread)) is None or not found.texts:
            return
        path = f"threads/{thread}/messages.jsonl"
        data = self.programs.read(path).replace(b'"role":"user"', b'"role":"assistant"', 1)
        assert self.write(path, data, pieces=pieces) == "EPERM"

    @rule(thread=THREADS, pieces=PIECES)
    def rewrite_and_drop_the_last(self, thread: str, pieces: int) -> None:
        if (found := self.threads.get(thread)) is None or len(found.texts) < 2:
            return
        path = f"threads/{thread}/messages.jsonl"
        *kept, _ = self.programs.read(path).splitlines(keepends=True)
        assert self.write(path, b"".join(kept), pieces=pieces) == "EPERM"

    # ── Runs ────────────────────────────────────────────────────────────────────────────────────────

    @rule(thread=THREADS, run=RUNS, by_start=st.booleans())
    def queue_run(self, thread: str, run: str, by_start: bool) -> None:
        found = self.threads.get(thread)
        expected = "ENOENT" if found is None else "EEXIST" if run in found.runs else OK
        if by_start:
            assert self.write(f"threads/{thread}/start", json.dumps({"id": run}).encode()) == expected
        else:
            assert outcome(lambda: self.programs.mkdir(f"threads/{thread}/runs/{run}")) == expected
        if found is not None:
            found.runs.setdefault(run, ModelRun())

    @rule(thread=THREADS, run=RUNS, status=STATUSES, is_word=st.booleans(), pieces=PIECES)
    def set_status(self, thread: str, run: str, status: RunStatus, is_word: bool, pieces: int) -> None:
        data = f"{status}\n" if is_word else json.dumps({"status": status})
        found = self.run(thread, run)
        expected = "ENOENT" if found is None else "EPERM" if found.status.is_terminal else OK
        assert self.write(f"threads/{thread}/runs/{run}/status", data.encode(), pieces=pieces) == expected
        if found is not None and expected == OK:
            found.status = status

    @rule(thread=THREADS, run=RUNS, status=STATUSES)
    def replace_run(self, thread: str, run: str, status: RunStatus) -> None:
        if (found := self.run(thread, run)) is None:
            return
        path = f"threads/{thread}/runs/{run}/status"
        document = {**json.loads(self.programs.read(path)), "status": status}
        is_refused = found.status.is_terminal and status is not found.status
        assert self.write(path, json.dumps(document).encode()) == ("EPERM" if is_refused else OK)
        if not is_refused:
            found.status = status

    @rule(thread=THREADS, run=RUNS, data=NONSENSE | st.just(b"unknown\n"), pieces=PIECES)
    def write_nonsense_to_run(self, thread: str, run: str, data: bytes, pieces: int) -> None:
        expected = "EINVAL" if self.run(thread, run) else "ENOENT"
        assert self.write(f"threads/{thread}/runs/{run}/status", data, pieces=pieces) == expected

    @rule(thread=THREADS, run=RUNS, text=st.sampled_from([b"1\n", b"force\n"]))
    def cancel(self, thread: str, run: str, text: bytes) -> None:
        found, expected = self.run(thread, run), OK
        if found is None:
            expected = "ENOENT"
        elif found.status.is_terminal and found.status is not RunStatus.cancelled and text == b"1\n":
            expected = "EPERM"
        assert self.write(f"threads/{thread}/runs/{run}/cancel", text) == expected
        if found is not None and expected == OK:
            found.status = RunStatus.cancelled

    @rule(thread=THREADS, run=RUNS, old=ALWAYS_THERE, new=ALWAYS_THERE)
    def move_run(self, thread: str, run: str, old: str, new: str) -> None:
        found, expected = self.run(thread, run), OK
        if found is None or found.status != old:
            expected = "ENOENT"
        elif found.status.is_terminal and old != new:
            expected = "EPERM"
        name = f"{run}@{thread}"
        moved = outcome(lambda: self.programs.rename(f"runs/{old}/{name}", f"runs/{new}/{name}"))
        assert moved == expected
        if found is not None and expected == OK:
            found.status = RunStatus(new)

    @rule(thread=THREADS, run=RUNS, is_recursive=st.booleans())
    def remove_run(self, thread: str, run: str, is_recursive: bool) -> None:
        found, expected = self.run(thread, run), OK
        if found is None:
            expected = "ENOENT"
        elif found.status.is_in_progress:
            expected = "EBUSY"
            self.threads[thread].is_meta_removed = False
        elif not is_recursive and (found.steps or found.status is not RunStatus.queued):
            expected = "ENOTEMPTY"
        path = f"threads/{thread}/runs/{run}"
        remove = self.programs.remove_all if is_recursive else self.programs.rmdir
        assert outcome(lambda: remove(path)) == expected
        if expected == OK:
            del self.threads[thread].runs[run]

    # ── Steps ───────────────────────────────────────────────────────────────────────────────────────

    @rule(thread=THREADS, run=RUNS, step=STEPS, pieces=PIECES)
    def make_step(self, thread: str, run: str, step: str, pieces: int) -> None:
        found = self.run(thread, run)
        path = f"threads/{thread}/runs/{run}/steps/{step}.json"
        assert self.write(path, STEP, pieces=pieces) == ("ENOENT" if found is None else OK)
        if found is not None:
            found.steps.setdefault(step, RunStepStatus.in_progress)

    @rule(thread=THREADS, run=RUNS, step=STEPS, status=st.sampled_from(RunStepStatus))
    def set_step_status(self, thread: str, run: str, step: str, status: RunStepStatus) -> None:
        found, expected = self.run(thread, run), OK
        if found is None:
            expected = "ENOENT"
        elif step not in found.steps:
            expected = "EINVAL"
        elif found.steps[step] not in (RunStepStatus.in_progress, status):
            expected = "EPERM"
        path = f"threads/{thread}/runs/{run}/steps/{step}.json"
        assert self.write(path, f"{status}\n".encode()) == expected
        if found is not None and expected == OK:
            found.steps[step] = status

    # ── What is found ───────────────────────────────────────────────────────────────────────────────

    @rule(thread=THREADS)
    def say_what_is_looked_for(self, thread: str) -> None:
        self.say(thread, "a needle, and hay", 1)

    @rule(word=WORDS)
    def search(self, word: str) -> None:
        query = parsed(word, 0)
        hits = {thread: found.hits(query) for thread, found in self.threads.items()}
        found_in = {thread: self.threads[thread] for thread, number in hits.items() if number}
        # In the order in which they came, where programs may be reading the list.
        assert sorted(self.programs.names(f"search/{word}")) == sorted([*names_of(found_in), "hits.txt"])
        lines = self.programs.read(f"search/{word}/hits.txt").decode().splitlines()
        assert Counter(line.split("/")[1] for line in lines) == Counter(
            {thread: hits[thread] for thread in found_in}
        )

    @rule()
    def look_at_the_days(self) -> None:
        names = [""]
        for _ in range(4):
            names = [f"{path}/{name}" for path in names for name in self.programs.names(f"by-date{path}")]
        bare = sorted(name.rpartition("/")[2].partition("@")[0] for name in names)
        assert bare == sorted(name.partition("@")[0] for name in names_of(self.threads))

    # ── What is shown ───────────────────────────────────────────────────────────────────────────────

    @invariant()
    def shows_what_the_model_holds(self) -> None:
        programs = self.programs
        assert sorted(programs.names("threads")) == sorted(self.threads)
        assert sorted(programs.names("by-title")) == sorted(names_of(self.threads))
        assert programs.names("drafts") == []
        assert programs.names("search") == []
        links: dict[str, list[str]] = {}
        for thread, found in self.threads.items():
            path = f"threads/{thread}"
            names = ["meta.json", "messages.jsonl", "say", "ask", "start", "runs"][found.is_meta_removed :]
            assert programs.names(path) == names
            if not found.is_meta_removed:
                assert json.loads(programs.read(f"{path}/meta.json"))["metadata"] == found.metadata
            messages = [json.loads(each) for each in programs.read(f"{path}/messages.jsonl").splitlines()]
            assert [each["content"][0]["text"]["value"] for each in messages] == found.texts
            assert programs.read(f"transcripts/{thread}.md").count(b"\n## ") == len(found.texts)
            assert sorted(programs.names(f"{path}/runs")) == sorted(found.runs)
            for run_id, run in found.runs.items():
                self.shows_run(f"{path}/runs/{run_id}", thread, run_id, run)
                links.setdefault(run.status, []).append(f"{run_id}@{thread}")
        shown = {status: sorted(programs.names(f"runs/{status}")) for status in programs.names("runs")}
        assert {status: names for status, names in shown.items() if names} == {
            status: sorted(names) for status, names in links.items()
        }

    def shows_run(self, path: str, thread: str, run_id: str, run: ModelRun) -> None:
        document = json.loads(self.programs.read(f"{path}/status"))
        assert (document["id"], document["thread_id"]) == (run_id, thread)
        assert document["status"] == run.status
        steps = {}
        for name in self.programs.names(f"{path}/steps"):
            step = json.loads(self.programs.read(f"{path}/steps/{name}"))
            assert (step["run_id"], step["thread_id"]) == (run_id, thread)
            steps[name.removesuffix(".json")] = step["status"]
        assert steps == run.steps
