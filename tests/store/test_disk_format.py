"""The bytes on the disk: golden files of the reference's layout, and reading whatever may stand there."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from store import (
    AlreadyExists,
    ContentBlock,
    Damaged,
    DocumentKey,
    MessageCreationStepDetails,
    MessageRole,
    NotFound,
    Run,
    RunError,
    RunStatus,
    RunStep,
    RunStepStatus,
    RunStepType,
    StorageFailed,
    Thread,
    ThreadMessage,
    ThreadNotFound,
    ThreadStore,
)
from store.disk import leftovers
from store.disk.fsck import checking
from store.disk.system_calls import SystemCalls

GOLDEN_META = (
    '{\n  "id": "thread_1",\n  "object": "thread",\n  "created_at": 1700000000,\n  "metadata": {}\n}'
)
GOLDEN_META_NESTED = (
    '{\n  "id": "thread_1",\n  "object": "thread",\n  "created_at": 1700000000,\n  "metadata": {\n'
    '    "user": "Ærø \\"ø\\"",\n    "tags": [\n      1,\n      null,\n      []\n    ],\n'
    '    "empty": {}\n  }\n}'
)
GOLDEN_LINES = (
    '{"id":"msg_1","object":"thread.message","created_at":1700000001,"thread_id":"thread_1","role":"user",'
    '"content":[{"type":"text","text":{"value":"Hej 🙂\\n\\t\\"","annotations":[]}}]}\n'
    '{"id":"msg_2","object":"thread.message","created_at":1700000002,"thread_id":"thread_1",'
    '"role":"assistant","content":[{"type":"text","text":{"value":"","annotations":[]}}],"run_id":"run_1"}\n'
)
GOLDEN_STATUS = (
    '{\n  "id": "run_1",\n  "object": "thread.run",\n  "created_at": 1700000003,\n'
    '  "thread_id": "thread_1",\n  "status": "queued",\n  "model": ""\n}'
)
GOLDEN_STATUS_FAILED = (
    '{\n  "id": "run_1",\n  "object": "thread.run",\n  "created_at": 1700000003,\n'
    '  "thread_id": "thread_1",\n  "status": "failed",\n  "model": "",\n  "last_error": {\n'
    '    "code": "server_error",\n    "message": "out of memory"\n  },\n  "failed_at": %d\n}'
)
GOLDEN_STEP = (
    '{\n  "id": "step_1",\n  "object": "thread.run.step",\n  "run_id": "run_1",\n  "thread_id": "thread_1",\n'
    '  "step_type": "message_creation",\n  "status": "completed",\n  "created_at": 1700000004,\n'
    '  "completed_at": 1700000005,\n  "step_details": {\n    "message_id": "msg_2"\n  }\n}'
)


@pytest.fixture
def store(tmp_path: Path) -> ThreadStore:
    return ThreadStore(tmp_path / "store")


@pytest.fixture
def with_run(store: ThreadStore) -> ThreadStore:
    store.create_thread(Thread(id="thread_1", created_at=1700000000))
    store.create_run("thread_1", Run(id="run_1", created_at=1700000003))
    return store


def text(path: Path) -> str:
    return path.read_bytes().decode()


# ── Golden files ────────────────────────────────────────────────────────────────────────────────────────


def test_a_thread_is_written_as_the_reference_writes_it(store: ThreadStore) -> None:
    store.create_thread(Thread(id="thread_1", created_at=1700000000))
    assert text(store.thread_dir("thread_1") / "meta.json") == GOLDEN_META
    assert os.listdir(store.thread_dir("thread_1")) == ["meta.json"]


def test_metadata_is_written_as_the_reference_writes_it(store: ThreadStore) -> None:
    metadata: dict[str, object] = {"user": 'Ærø "ø"', "tags": [1, None, []], "empty": {}}
    store.create_thread(Thread(id="thread_1", created_at=1700000000, metadata=metadata))
    assert text(store.thread_dir("thread_1") / "meta.json") == GOLDEN_META_NESTED


def test_messages_are_written_as_the_reference_writes_them(with_run: ThreadStore) -> None:
    for message in (
        ThreadMessage(
            id="msg_1",
            created_at=1700000001,
            role=MessageRole.user,
            content=[ContentBlock.of_text('Hej 🙂\n\t"')],
        ),
        ThreadMessage(
            id="msg_2",
            created_at=1700000002,
            role=MessageRole.assistant,
            content=[ContentBlock.of_text("")],
            run_id="run_1",
        ),
    ):
        with_run.append_message("thread_1", message)
    assert text(with_run.thread_dir("thread_1") / "messages.jsonl") == GOLDEN_LINES


def test_a_run_is_written_as_the_reference_writes_it(with_run: ThreadStore) -> None:
    assert text(with_run.run_dir("thread_1", "run_1") / "status.json") == GOLDEN_STATUS


def test_a_failed_run_is_written_with_its_error_and_the_time(with_run: ThreadStore) -> None:
    error = RunError(code="server_error", message="out of memory")
    run = with_run.update_run_status("thread_1", "run_1", RunStatus.failed, error)
    stored = text(with_run.run_dir("thread_1", "run_1") / "status.json")
    assert stored == GOLDEN_STATUS_FAILED % run.failed_at


def test_a_step_is_written_as_the_reference_writes_it(with_run: ThreadStore) -> None:
    step = RunStep(
        id="step_1",
        created_at=1700000004,
        status=RunStepStatus.completed,
        completed_at=1700000005,
        step_details=MessageCreationStepDetails(message_id="msg_2"),
    )
    with_run.append_step("thread_1", "run_1", step)
    assert text(with_run.steps_dir("thread_1", "run_1") / "step_1.json") == GOLDEN_STEP


def test_a_store_of_golden_files_is_read_and_changes_in_nothing_by_that(store: ThreadStore) -> None:
    run = store.run_dir("thread_1", "run_1")
    store.steps_dir("thread_1", "run_1").mkdir(parents=True)
    golden = {
        store.thread_dir("thread_1") / "meta.json": GOLDEN_META,
        store.thread_dir("thread_1") / "messages.jsonl": GOLDEN_LINES,
        run / "status.json": GOLDEN_STATUS_FAILED % 1700000009,
        run / "steps" / "step_1.json": GOLDEN_STEP,
    }
    for path, content in golden.items():
        path.write_bytes(content.encode())
    assert store.get_thread("thread_1").created_at == 1700000000
    assert [message.text for message in store.list_messages("thread_1")] == ['Hej 🙂\n\t"', ""]
    assert store.get_run("thread_1", "run_1").failed_at == 1700000009
    assert store.list_steps("thread_1", "run_1")[0].completed_at == 1700000005
    for key, content in {
        DocumentKey("thread_1"): GOLDEN_META,
        DocumentKey("thread_1", "run_1"): GOLDEN_STATUS_FAILED % 1700000009,
        DocumentKey("thread_1", "run_1", "step_1"): GOLDEN_STEP,
    }.items():
        store.replace_document(key, content.encode())
    assert {path: text(path) for path in golden} == golden


# ── What stands in a document's place ───────────────────────────────────────────────────────────────────


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(path.parent)  # A socket's path has at most 107 bytes.
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


IN_ITS_PLACE: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a socket": make_socket,
    "a directory": Path.mkdir,
    "a link to a document": lambda path: path.symlink_to(".real"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "nothing but a hole": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 65 << 20),
    "no JSON": lambda path: path.write_bytes(b"{"),
    "no bytes": lambda path: path.write_bytes(b""),
    "a list": lambda path: path.write_bytes(b"[]"),
    "no UTF-8": lambda path: path.write_bytes(b'{"id": "\xff"}'),
    "NaN": lambda path: path.write_bytes(GOLDEN_META.replace("{}", "NaN").encode()),
    "deep nesting": lambda path: path.write_bytes(b'{"a":' * 100_000),
    "a number of 10,000 digits": lambda path: path.write_bytes(b'{"created_at":' + b"1" * 10_000 + b"}"),
    "no status": lambda path: path.write_bytes(b'{"created_at": 1}'),
}
DOCUMENTS = {
    "thread": DocumentKey("thread_1"),
    "run": DocumentKey("thread_1", "run_1"),
    "step": DocumentKey("thread_1", "run_1", "step_1"),
}


def put(store: ThreadStore, key: DocumentKey, what: str) -> None:
    """*what* in the place of a document."""
    path = store.thread_dir("thread_1") / "meta.json"
    if key.run_id:
        path = store.run_dir("thread_1", key.run_id) / "status.json"
    if key.run_id and key.step_id:
        store.append_step("thread_1", key.run_id, RunStep(id=key.step_id))
        path = store.steps_dir("thread_1", key.run_id) / f"{key.step_id}.json"
    path.rename(path.with_name(".real"))
    IN_ITS_PLACE[what](path)


def get(store: ThreadStore, key: DocumentKey) -> object:
    if key.run_id is None:
        return store.get_thread(key.thread_id)
    if key.step_id is None:
        return store.get_run(key.thread_id, key.run_id)
    return store.get_step(key.thread_id, key.run_id, key.step_id)


@pytest.mark.parametrize("what", [what for what in IN_ITS_PLACE if what != "no status"])
@pytest.mark.parametrize("key", DOCUMENTS.values(), ids=DOCUMENTS)
def test_what_is_no_document_is_damaged_and_named(with_run: ThreadStore, key: DocumentKey, what: str) -> None:
    put(with_run, key, what)
    with pytest.raises(Damaged, match="thread_1"):
        get(with_run, key)


def test_a_run_without_a_status_is_damaged(with_run: ThreadStore) -> None:
    put(with_run, DOCUMENTS["run"], "no status")
    with pytest.raises(Damaged, match="status"):
        with_run.get_run("thread_1", "run_1")


@pytest.mark.parametrize("what", IN_ITS_PLACE)
def test_a_damaged_thread_is_listed_and_its_id_is_taken(with_run: ThreadStore, what: str) -> None:
    put(with_run, DOCUMENTS["thread"], what)
    assert with_run.list_thread_ids() == ["thread_1"]
    with pytest.raises(AlreadyExists):
        with_run.create_thread(Thread(id="thread_1"))


@pytest.mark.parametrize("what", IN_ITS_PLACE)
def test_a_damaged_step_is_left_out_of_the_list_and_its_id_is_taken(with_run: ThreadStore, what: str) -> None:
    put(with_run, DOCUMENTS["step"], what)
    assert with_run.list_steps("thread_1", "run_1") == []
    with pytest.raises(AlreadyExists):
        with_run.append_step("thread_1", "run_1", RunStep(id="step_1"))


@pytest.mark.parametrize(
    "what", [what for what in IN_ITS_PLACE if what.startswith(("a FIFO", "a link", "a dir"))]
)
def test_no_log_is_read_from_or_written_to_what_is_no_file(with_run: ThreadStore, what: str) -> None:
    IN_ITS_PLACE[what](with_run.thread_dir("thread_1") / "messages.jsonl")
    with pytest.raises(Damaged):
        with_run.list_messages("thread_1")
    message = ThreadMessage(role=MessageRole.user, content=[ContentBlock.of_text("x")])
    with pytest.raises(Damaged):
        with_run.append_message("thread_1", message)


@pytest.mark.parametrize("parts", [("thread_1",), ("thread_1", "runs"), ("thread_1", "runs", "run_1")])
def test_no_link_leads_out_of_the_store(
    with_run: ThreadStore, tmp_path: Path, parts: tuple[str, ...]
) -> None:
    with_run.append_step("thread_1", "run_1", RunStep(id="step_1"))
    place = Path(with_run.location, *parts)
    place.rename(tmp_path / "outside")
    place.symlink_to(tmp_path / "outside")
    before = _changed_ns(tmp_path / "outside")
    for attempt in (
        lambda: with_run.get_run("thread_1", "run_1"),
        lambda: with_run.cancel_run("thread_1", "run_1"),
        lambda: with_run.append_step("thread_1", "run_1", RunStep()),
        lambda: with_run.delete_run("thread_1", "run_1", force=True),
        lambda: with_run.get_step("thread_1", "run_1", "step_1"),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert list(with_run.runs_by_status()) == []
    assert _changed_ns(tmp_path / "outside") == before


def _changed_ns(directory: Path) -> dict[Path, int]:
    """When what is in it last changed; reading it changes only the times of access."""
    return {path: path.stat().st_ctime_ns for path in directory.rglob("*")}


# ── Lines that are no messages, and names that are none of ours ─────────────────────────────────────────

LINE = GOLDEN_LINES.encode().splitlines(keepends=True)[0]


NO_MESSAGE = {
    "empty": b"",
    "blank": b"   ",
    "no fields": b"{}",
    "a list": b"[]",
    "null": b"null",
    "no JSON": b"x",
    "no UTF-8": b"\xff",
    "torn": LINE[:40],
    "a torn character": LINE[:-2] + b"\xc3",
    "zeros": b"\0" * 99,
}


@pytest.mark.parametrize("bad", NO_MESSAGE.values(), ids=NO_MESSAGE)
def test_a_line_that_is_no_message_costs_that_line_alone(with_run: ThreadStore, bad: bytes) -> None:
    (with_run.thread_dir("thread_1") / "messages.jsonl").write_bytes(LINE + bad + b"\n" + LINE)
    assert len(with_run.list_messages("thread_1")) == 2


def test_a_line_of_more_than_sixteen_mebibytes_costs_that_line_alone(with_run: ThreadStore) -> None:
    huge = LINE.replace(b"Hej", b"Hej" * (6 << 20))
    (with_run.thread_dir("thread_1") / "messages.jsonl").write_bytes(LINE + huge + LINE)
    assert len(with_run.list_messages("thread_1")) == 2


def test_a_last_line_without_its_newline_is_not_there_yet(with_run: ThreadStore) -> None:
    log = with_run.thread_dir("thread_1") / "messages.jsonl"
    log.write_bytes(LINE + LINE[:-1])
    assert len(with_run.list_messages("thread_1")) == 1
    assert with_run.log_info("thread_1").size_bytes == len(LINE)
    with log.open("ab") as neighbour:
        neighbour.write(b"\n")
    assert len(with_run.list_messages("thread_1")) == 2


def test_what_other_programs_left_is_no_thread_run_or_step_and_stays(with_run: ThreadStore) -> None:
    root, thread = Path(with_run.location), with_run.thread_dir("thread_1")
    with_run.append_step("thread_1", "run_1", RunStep(id="step_1"))
    left = [root / "empty", root / ".hidden", thread / "runs" / "no_status", thread / "other"]
    for directory in left:
        directory.mkdir()
    files = [
        root / "a file",
        root / ".tmpAbCdEf",
        root / ".hidden" / "meta.json",
        thread / "notes.txt",
        with_run.steps_dir("thread_1", "run_1") / ".tmpAbCdEf",
        with_run.steps_dir("thread_1", "run_1") / "notes.txt",
    ]
    for file in files:
        file.write_text("{}")
    assert with_run.list_thread_ids() == ["thread_1"]
    assert with_run.list_run_ids("thread_1") == ["run_1"]
    assert with_run.list_step_ids("thread_1", "run_1") == ["step_1"]
    with pytest.raises(ThreadNotFound):
        with_run.get_thread("empty")
    assert all(path.exists() for path in (*left, *files))


def test_an_empty_directory_is_adopted_by_a_thread(store: ThreadStore) -> None:
    store.thread_dir("thread_1").mkdir()
    store.create_thread(Thread(id="thread_1"))
    assert store.list_thread_ids() == ["thread_1"]


def test_a_directory_that_holds_something_else_is_taken(store: ThreadStore) -> None:
    store.thread_dir("thread_1").mkdir()
    (store.thread_dir("thread_1") / "notes").touch()
    with pytest.raises(AlreadyExists):
        store.create_thread(Thread(id="thread_1"))
    assert os.listdir(store.thread_dir("thread_1")) == ["notes"]


# ── Where the store is ──────────────────────────────────────────────────────────────────────────────────


def test_links_may_lead_to_a_store_that_is_made(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    ThreadStore(tmp_path / "link" / "stores" / "mine").create_thread(Thread(id="t"))
    assert (tmp_path / "disk" / "stores" / "mine" / "t" / "meta.json").exists()
    assert ThreadStore(tmp_path / "link" / "stores" / "mine").list_thread_ids() == ["t"]


def test_a_link_to_nothing_is_not_made_a_store(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("disk that is not mounted")
    with pytest.raises(StorageFailed):
        ThreadStore(tmp_path / "link")
    assert os.listdir(tmp_path) == ["link"]


def test_a_disk_that_cannot_sync_directories_holds_a_store_all_the_same() -> None:
    """As many that are never written; the kernel's settings are such a file system, too."""
    settings = os.open("/proc/sys", os.O_RDONLY)
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            os.fsync(settings)
        SystemCalls().sync(settings)
        with pytest.raises(OSError, match="Invalid argument"):
            SystemCalls().sync(writing)
    finally:
        for descriptor in (settings, reading, writing):
            os.close(descriptor)


# ── Whose the files are ─────────────────────────────────────────────────────────────────────────────────

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone may do this")


def permissions(*paths: Path) -> list[tuple[str, int, int]]:
    found = [path.stat() for path in paths]
    return [(stat.filemode(each.st_mode), each.st_uid, each.st_gid) for each in found]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o666])
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_document_that_is_replaced_keeps_its_mode(with_run: ThreadStore, mode: int, umask: int) -> None:
    status = with_run.run_dir("thread_1", "run_1") / "status.json"
    status.chmod(mode)
    before = permissions(status)
    umask = os.umask(umask)
    try:
        with_run.cancel_run("thread_1", "run_1")
    finally:
        os.umask(umask)
    assert permissions(status) == before


@as_root
def test_what_root_does_in_the_store_of_another_user_is_theirs(tmp_path: Path) -> None:
    place = tmp_path / "store"
    place.mkdir()
    os.chown(place, 1234, 5678)
    store = ThreadStore(place)
    store.create_thread(Thread(id="T"))
    store.append_message("T", ThreadMessage(role=MessageRole.user, content=[]))
    store.create_run("T", Run(id="R"))
    store.append_step("T", "R", RunStep(id="S", step_type=RunStepType.tool_calls))
    store.cancel_run("T", "R")
    made = list(place.rglob("*"))
    assert len(made) == 8
    assert {owner[1:] for owner in permissions(*made)} == {(1234, 5678)}


@as_root
def test_what_root_replaces_keeps_its_owner(with_run: ThreadStore) -> None:
    status = with_run.run_dir("thread_1", "run_1") / "status.json"
    os.chown(status, 1234, 5678)
    status.chmod(0o640)
    with_run.cancel_run("thread_1", "run_1")
    assert permissions(status) == [("-rw-r-----", 1234, 5678)]


@as_root
def test_a_thread_that_this_user_may_not_read_is_listed_and_who_opens_it_is_told(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        store = ThreadStore(place)
        for thread_id in ("common", "private"):
            store.create_thread(Thread(id=thread_id))
        store.thread_dir("private").chmod(0)
        os.chmod(place, 0o755)
        (Path(place) / "lost+found").mkdir(0o700)
        os.seteuid(65534)
        try:
            store = ThreadStore(place)
            assert sorted(store.list_thread_ids()) == ["common", "private"] == checking.places(store)
            assert list(leftovers.find(place, 0)) == []
            with pytest.raises(StorageFailed, match="Permission denied"):
                store.get_thread("private")
        finally:
            os.seteuid(0)
