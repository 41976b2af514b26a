"""What the kernel remembers is right: never stale after a change made here, nor a second after another's."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from store import (
    DocumentKey,
    Run,
    RunStatus,
    RunStep,
    RunStepType,
    Thread,
    ThreadStore,
)
from tests.conftest import seeds
from tests.mount.conftest import Mount, wait_until
from tests.mount.pair import FRESH_WITHIN_S, compare_under_random_changes, message
from tests.mount.scripts import stats


@pytest.fixture
def mount(own_mount: Mount) -> Mount:
    return own_mount


def requests_for(mount: Mount, action: object) -> int:
    """How many requests *action* sends, beyond what reading the counters costs."""
    stats(mount)
    first = stats(mount)["operations"]
    second = stats(mount)["operations"]
    assert callable(action)
    action()
    return stats(mount)["operations"] - second - (second - first)


def test_a_warm_stat_sends_no_request(mount: Mount) -> None:
    status = mount.run("queued") / "status"
    status.stat()
    time.sleep(1)  # Longer than what is remembered without a watch.
    # The directories of a thread with runs are asked for their time once in a while.
    assert requests_for(mount, status.stat) <= 2
    assert requests_for(mount, lambda: [status.stat() for _ in range(100)]) <= 4


def test_a_warm_read_of_a_status_reads_from_the_page_cache(mount: Mount) -> None:
    status = mount.run("queued") / "status"
    text = status.read_text()
    before = stats(mount)
    for _ in range(20):
        assert status.read_text() == text
    after = stats(mount)
    # The first statistics were read, too.
    assert after["read_bytes"] - before["read_bytes"] < 10 * len(text)
    hits = [each["cache_hits"] + each["opens_by_shim"] for each in (before, after)]
    assert hits[1] - hits[0] >= 20


def test_a_change_made_here_is_seen_at_once(mount: Mount) -> None:
    meta = mount.path("threads", "Trip to Oslo", "meta.json")
    for number in range(50):
        meta.write_text(json.dumps({"metadata": {"number": "9" * number}}))
        assert json.loads(meta.read_text())["metadata"]["number"] == "9" * number
        assert meta.stat().st_size == len(meta.read_bytes())


def test_a_cancel_shows_in_the_links_at_once(mount: Mount) -> None:
    run = mount.run("queued")
    link = mount.path("runs", "queued", f"{run.name}@{run.parent.parent.name}")
    assert link.lstat()
    (run / "cancel").write_text("1")
    assert not os.path.lexists(link)
    assert json.loads((run / "status").read_text())["status"] == "cancelled"


def test_the_time_of_a_thread_is_that_of_a_change_made_here(mount: Mount) -> None:
    run = mount.run("queued")
    thread = run.parent.parent
    before = thread.stat().st_mtime_ns
    (run / "cancel").write_text("1")
    assert thread.stat().st_mtime_ns > before
    assert thread.stat().st_mtime_ns == (run / "status").stat().st_mtime_ns


def test_a_document_that_another_program_replaces_is_fresh_within_a_second_while_it_is_read(
    mount: Mount,
) -> None:
    run = mount.run("queued")
    status = run / "status"
    before = status.read_bytes()
    other = ThreadStore(mount.store)
    other.patch_document(DocumentKey(run.parent.parent.name, run.name), {"note": "x" * 1000})
    deadline = time.monotonic() + FRESH_WITHIN_S
    after = mount.stored(run).read_bytes()
    while (read := status.read_bytes()) != after:
        assert read == before
        assert time.monotonic() < deadline


def test_messages_that_another_program_appends_are_fresh_within_a_second_while_the_log_is_read(
    mount: Mount,
) -> None:
    log = mount.path("threads", "Trip to Oslo", "messages.jsonl")
    before = log.read_bytes()
    ThreadStore(mount.store).append_message("Trip to Oslo", message("from elsewhere"))
    deadline = time.monotonic() + FRESH_WITHIN_S
    while (read := log.read_bytes()) == before:
        assert time.monotonic() < deadline
    assert read == (mount.store / "Trip to Oslo" / "messages.jsonl").read_bytes()


def test_a_thread_that_another_program_deletes_and_makes_again_is_the_new_one(mount: Mount) -> None:
    meta = mount.path("threads", "Trip to Oslo", "meta.json")
    assert meta.read_bytes()
    shutil.rmtree(mount.store / "Trip to Oslo")
    wait_until(lambda: not meta.exists(), FRESH_WITHIN_S)
    ThreadStore(mount.store).create_thread(Thread(id="Trip to Oslo", created_at=7))
    wait_until(meta.exists, FRESH_WITHIN_S)
    assert json.loads(meta.read_text())["created_at"] == 7
    assert mount.path("threads", "Trip to Oslo", "messages.jsonl").read_bytes() == b""


def test_a_run_and_a_step_that_another_program_makes_appear_within_a_second(mount: Mount) -> None:
    run = mount.path("threads", "Trip to Oslo", "runs", "elsewhere")
    assert not run.exists()
    other = ThreadStore(mount.store)
    other.create_run("Trip to Oslo", Run(id="elsewhere"))
    wait_until(run.exists, FRESH_WITHIN_S)
    assert os.listdir(run / "steps") == []
    other.append_step("Trip to Oslo", "elsewhere", RunStep(id="s", step_type=RunStepType.tool_calls))
    wait_until((run / "steps" / "s.json").exists, FRESH_WITHIN_S)


def test_a_reader_of_an_old_version_keeps_it_and_the_name_shows_the_new_one(mount: Mount) -> None:
    meta = mount.path("threads", "Trip to Oslo", "meta.json")
    before = meta.read_bytes()
    with meta.open("rb") as old:
        first = old.read(10)
        meta.write_text(json.dumps({"metadata": {"long": "x" * 5000}}))
        assert meta.stat().st_size == len(meta.read_bytes()) > 5000
        assert first + old.read() == before


def test_poll_wakes_when_another_program_changes_the_status(mount: Mount) -> None:
    run = mount.run("queued")
    with (run / "status").open() as status:
        poll = select.poll()
        poll.register(status, select.POLLPRI)
        assert poll.poll(0) == []
        ThreadStore(mount.store).update_run_status(run.parent.parent.name, run.name, RunStatus.in_progress)
        assert poll.poll(1000)
    assert json.loads((run / "status").read_text())["status"] == "in_progress"


def test_poll_wakes_when_the_run_is_cancelled_here(mount: Mount) -> None:
    run = mount.run("queued")
    with (run / "status").open() as status:
        poll = select.poll()
        poll.register(status, select.POLLPRI)
        assert poll.poll(0) == []
        (run / "cancel").write_text("1")
        assert poll.poll(1000)


def test_a_paused_reader_delays_nobody(mount: Mount) -> None:
    log = mount.path("threads", "Trip to Oslo", "messages.jsonl")
    command = "import sys,time; f=open(sys.argv[1]); f.read(10); print(flush=True); time.sleep(60)"
    reader = subprocess.Popen([sys.executable, "-c", command, str(log)], stdout=subprocess.PIPE)
    try:
        assert reader.stdout is not None
        reader.stdout.readline()
        mount.path("threads", "Trip to Oslo", "say").write_text("still here")
        assert b"still here" in log.read_bytes()
    finally:
        reader.kill()
        reader.wait()
        if reader.stdout is not None:
            reader.stdout.close()


def test_a_thread_that_another_program_replaces_is_the_new_one_while_somebody_reads_the_old(
    mount: Mount,
) -> None:
    store = ThreadStore(mount.store)
    for name, text in (("t", "old"), ("new", "new")):
        store.create_thread(Thread(id=name))
        store.patch_document(DocumentKey(name), {"metadata": {"is": text}})
    meta = mount.path("threads", "t", "meta.json")
    with meta.open() as reader:
        assert '"old"' in meta.read_text()
        (mount.store / "t").rename(mount.store.parent / "elsewhere")
        (mount.store / "new").rename(mount.store / "t")
        wait_until(lambda: '"new"' in meta.read_text(), FRESH_WITHIN_S)
        assert '"old"' in reader.read()


def test_runs_and_steps_that_another_program_replaces_as_a_whole_are_the_new_ones(mount: Mount) -> None:
    store = ThreadStore(mount.store)
    store.create_thread(Thread(id="t"))
    store.create_run("t", Run(id="r", model="old"))
    store.append_step("t", "r", RunStep(id="s", step_type=RunStepType.tool_calls))
    for stored, shown, old, new in (
        ("t/runs", "runs/r/status", '"old"', '"new"'),
        ("t/runs/r/steps", "runs/r/steps/s.json", '"in_progress"', '"completed"'),
    ):
        file = mount.path("threads", "t", *shown.split("/"))
        assert old in file.read_text()
        time.sleep(1)  # Longer than what is remembered without a watch.
        assert old in file.read_text()
        copy = mount.store.parent / "copy"
        shutil.copytree(mount.store / stored, copy)
        document = next(copy.rglob("s.json" if "steps" in stored else "status.json"))
        document.write_text(document.read_text().replace(old, new))
        (mount.store / stored).rename(mount.store.parent / f"old {file.name}")
        copy.rename(mount.store / stored)
        wait_until(lambda file=file, new=new: new in file.read_text(), FRESH_WITHIN_S)  # type: ignore[misc]


def test_the_name_leads_to_the_new_version_also_when_who_reads_the_old_one_asks_first(mount: Mount) -> None:
    store = ThreadStore(mount.store)
    store.create_thread(Thread(id="t"))
    store.create_run("t", Run(id="r", model="old"))
    status = mount.path("threads", "t", "runs", "r", "status")
    with status.open() as reader:
        runs, aside = mount.store / "t" / "runs", mount.store.parent / "aside"
        runs.rename(aside)
        shutil.copytree(aside, runs)
        store.patch_document(DocumentKey("t", "r"), {"model": "new"})
        deadline = time.monotonic() + FRESH_WITHIN_S
        while time.monotonic() < deadline:
            os.fstat(reader.fileno())
        assert '"new"' in status.read_text()
        assert '"old"' in reader.read()


def test_a_document_that_is_read_cannot_be_cut_through_its_descriptor_and_its_name_shows_what_comes(
    mount: Mount,
) -> None:
    run = mount.run("queued")
    with (run / "status").open() as reader:
        first = reader.read(10)
        for _ in range(2):
            with pytest.raises(OSError, match="Stale"):
                Path(f"/proc/self/fd/{reader.fileno()}").write_text('{"note": "lost?"}')
        key = DocumentKey(run.parent.parent.name, run.name)
        ThreadStore(mount.store).patch_document(key, {"note": "here"})
        wait_until(lambda: "here" in (run / "status").read_text(), FRESH_WITHIN_S)
        assert "note" not in json.loads(first + reader.read())


def test_a_listing_does_not_cut_the_version_that_somebody_reads(mount: Mount) -> None:
    run = mount.run("queued")
    store, key = ThreadStore(mount.store), DocumentKey(run.parent.parent.name, run.name, "s")
    store.append_step(key.thread_id, run.name, RunStep(id="s", step_type=RunStepType.tool_calls))
    store.patch_document(key, {"note": "x" * 30_000})
    step = run / "steps" / "s.json"
    wait_until(lambda: step.exists() and len(step.read_bytes()) > 30_000)
    before = step.read_bytes()
    with step.open("rb", buffering=0) as reader:
        first = reader.read(10)
        store.patch_document(key, {"note": "short"})
        time.sleep(FRESH_WITHIN_S)
        with os.scandir(step.parent) as entries:
            assert [entry.name for entry in entries] == ["s.json"]
        rest = b""
        while piece := reader.read(4096):
            rest += piece
        assert first + rest == before
    assert json.loads(step.read_bytes())["note"] == "short"


def test_a_removal_that_was_staged_is_not_that_of_a_thread_made_again(mount: Mount) -> None:
    log = mount.path("threads", "Trip to Oslo", "messages.jsonl")
    log.unlink()
    assert not log.exists()
    other = ThreadStore(mount.store)
    other.delete_thread("Trip to Oslo", force=True)
    other.create_thread(Thread(id="Trip to Oslo"))
    other.append_message("Trip to Oslo", message("new"))
    wait_until(log.exists, FRESH_WITHIN_S)
    with pytest.raises(OSError, match="not empty"):
        log.parent.rmdir()
    assert "new" in log.read_text()


def test_a_version_that_somebody_reads_is_opened_again_by_its_descriptor(mount: Mount) -> None:
    run = mount.run("in_progress")
    with (run / "status").open("rb") as reader:
        before = reader.read()
        ThreadStore(mount.store).update_run_status(run.parent.parent.name, run.name, RunStatus.completed)
        wait_until(lambda: (run / "status").read_bytes() != before)
        for _ in range(2):
            assert Path(f"/proc/self/fd/{reader.fileno()}").read_bytes() == before


@pytest.mark.parametrize("seed", seeds(4))
def test_the_mount_shows_what_the_store_holds_under_random_changes_from_both_sides(
    mount: Mount, seed: int
) -> None:
    compare_under_random_changes(mount, mount.store, seed, rounds=60)


def test_who_follows_a_log_goes_on_when_an_editor_has_put_another_file_in_its_place(mount: Mount) -> None:
    log = mount.path("threads", "Trip to Oslo", "messages.jsonl")
    with log.open() as reader:
        held = reader.read()
        log.rename(log.with_name("messages.jsonl~"))
        log.write_text(held)
        log.with_name("say").write_text("one more")
        wait_until(lambda: "one more" in reader.read(), FRESH_WITHIN_S)


def test_who_polls_a_status_is_woken_when_an_editor_has_put_another_file_in_its_place(mount: Mount) -> None:
    status = mount.run("queued") / "status"
    with status.open() as reader:
        held = reader.read()
        poll = select.poll()
        poll.register(reader, select.POLLPRI)
        status.rename(status.with_name("status~"))
        status.write_text(held)
        assert poll.poll(0) == []
        with ThreadPoolExecutor() as pool:
            polling = pool.submit(poll.poll, 5000)
            time.sleep(0.2)  # Until it waits.
            (status.parent / "cancel").write_text("1")
            assert polling.result(3 * FRESH_WITHIN_S)


def test_the_names_of_a_list_that_was_replaced_as_a_whole_are_those_of_the_new_one(mount: Mount) -> None:
    store = ThreadStore(mount.store)
    store.create_thread(Thread(id="t"))
    store.create_run("t", Run(id="r"))
    store.append_step("t", "r", RunStep(id="old", step_type=RunStepType.tool_calls))
    steps = mount.path("threads", "t", "runs", "r", "steps")
    assert (steps / "old.json").read_bytes()
    (mount.store / "t" / "runs" / "r" / "steps").rename(mount.store.parent / "aside")
    time.sleep(FRESH_WITHIN_S)
    (steps / "old.json").write_text('{"step_type": "tool_calls"}')
    assert store.list_step_ids("t", "r") == ["old"]
    (mount.store / "t" / "runs").rename(mount.store.parent / "runs aside")
    time.sleep(FRESH_WITHIN_S)
    with pytest.raises(FileNotFoundError):
        os.chdir(steps.parent)


def test_a_thread_that_loses_its_document_is_not_listed_by_who_lists_all_the_time(mount: Mount) -> None:
    store = ThreadStore(mount.store)
    for number in range(100):
        store.create_thread(Thread(id=f"t{number}"))
    threads = mount.path("threads")
    time.sleep(3.5)  # Until a list of this length is remembered.
    assert "t7" in os.listdir(threads)
    (mount.store / "t7" / "meta.json").unlink()
    until_s = time.monotonic() + FRESH_WITHIN_S
    while time.monotonic() < until_s:
        names = os.listdir(threads)
    assert "t7" not in names


def test_a_listing_does_not_cut_the_log_that_somebody_reads(mount: Mount) -> None:
    log = mount.path("threads", "Trip to Oslo", "messages.jsonl")
    stored = mount.store / "Trip to Oslo" / "messages.jsonl"
    before = log.read_bytes()
    with log.open("rb", buffering=0) as reader:
        first = reader.read(10)
        short = mount.store.parent / "short"
        short.write_bytes(before.splitlines(keepends=True)[0])
        short.rename(stored)
        time.sleep(FRESH_WITHIN_S / 2)
        with os.scandir(log.parent) as entries:
            assert "messages.jsonl" in [entry.name for entry in entries]
        rest = b""
        while piece := reader.read(4096):
            rest += piece
        assert first + rest == before
    assert log.read_bytes() == stored.read_bytes() != before


def test_a_file_that_is_read_while_the_watch_tells_of_its_save_keeps_its_number(mount: Mount) -> None:
    # Editors compare it, and say at the next save that somebody else has changed the file.
    path = mount.path("threads", "Trip to Oslo", "meta.json")
    for value in range(3):
        path.write_text(f'{{"metadata": {{"value": "{value}"}}}}\n')
        number = path.stat().st_ino
        with path.open() as reader:
            reader.read()
            time.sleep(0.06)  # The watch collects changes for 20 ms.
        time.sleep(0.02)  # Until the kernel has told that it holds the file no longer.
        assert path.stat().st_ino == number
