"""`.threadfs/metrics`: the text format of Prometheus."""

from __future__ import annotations

import re
import time

from store import DocumentKey, Run, RunStatus, Thread, ThreadStore
from tests.nodes.driving import Programs
from tests.store.conftest import message
from threadfs.nodes.metrics import Measured, metrics

# https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)\{{({LABEL}(?:,{LABEL})*)\}} (-?[0-9]+)")
TYPE = re.compile(r"# TYPE ([a-z_]+) (gauge|counter)")


def read(text: bytes) -> dict[str, dict[tuple[str, ...], int]]:
    """By name, and then by the values of the labels but ``store``: what is measured. Each line is checked."""
    found: dict[str, dict[tuple[str, ...], int]] = {}
    kind = ""
    for line in text.decode().removesuffix("\n").split("\n"):
        if line.startswith("# TYPE"):
            matched = TYPE.fullmatch(line)
            assert matched, line
            kind = matched[1]
            assert kind not in found
            found[kind] = {}
            assert matched[2] == ("counter" if kind.endswith("_total") else "gauge")
        elif not line.startswith("# HELP"):
            sample = SAMPLE.fullmatch(line)
            assert sample, line
            assert sample[1] == kind
            names, values = zip(*re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', sample[2]), strict=True)
            assert names[0] == "store"
            assert values[1:] not in found[kind]
            found[kind][values[1:]] = int(sample[3])
    return found


def metrics_of(programs: Programs) -> dict[str, dict[tuple[str, ...], int]]:
    return read(programs.read(".threadfs/metrics"))


def test_an_empty_store_has_all_metrics(programs: Programs) -> None:
    assert metrics_of(programs) == {
        "threadfs_threads": {(): 0},
        "threadfs_messages": {(): 0},
        "threadfs_runs": {},
        "threadfs_oldest_run_age_seconds": {("queued",): 0, ("in_progress",): 0},
        "threadfs_catalogue_threads_behind": {(): 0},
        "threadfs_requests_total": {(): 0},
        "threadfs_refusals_total": {(): 0},
    }


def test_threads_messages_and_runs_are_counted(store: ThreadStore, programs: Programs) -> None:
    for thread_id in ("a", "b"):
        store.create_thread(Thread(id=thread_id, metadata={"title": "Honey"}))
        store.append_lines(thread_id, [b'{"role":"user","content":"bees"}\n'] * 3)
        for model in ("llama3", "llama3", "phi"):
            store.create_run(thread_id, Run(model=model))
    for run_id in store.list_run_ids("a"):
        store.update_run_status("a", run_id, RunStatus.cancelled)
    found = metrics_of(programs)
    assert found["threadfs_threads"] == {(): 2}
    assert found["threadfs_messages"] == {(): 6}
    assert found["threadfs_runs"] == {
        ("queued", "llama3"): 2,
        ("queued", "phi"): 1,
        ("cancelled", "llama3"): 2,
        ("cancelled", "phi"): 1,
    }


def test_a_message_counts_at_once_though_nobody_searches(store: ThreadStore, programs: Programs) -> None:
    store.create_thread(Thread(id="a"))
    for number in (1, 2):
        store.append_message("a", message("bees"))
        assert metrics_of(programs)["threadfs_messages"] == {(): number}


def test_where_no_words_are_kept_no_number_of_messages_is_told(
    store: ThreadStore, programs: Programs
) -> None:
    store.catalogue(keeps_words=False)
    store.create_thread(Thread(id="a"))
    store.append_message("a", message("bees"))
    found = metrics_of(programs)
    assert (found["threadfs_threads"], found["threadfs_messages"]) == ({(): 1}, {})


def test_the_age_of_the_oldest_run_is_since_its_document_changed(
    store: ThreadStore, programs: Programs
) -> None:
    store.create_thread(Thread(id="a"))
    for run_id, age_s in (("old", 5000), ("new", 100)):
        store.create_run("a", Run(id=run_id, model="m"))
        store.update_run_status("a", run_id, RunStatus.in_progress)
        store.set_document_modified(DocumentKey("a", run_id), time.time_ns() - age_s * 1_000_000_000)
    ages = metrics_of(programs)["threadfs_oldest_run_age_seconds"]
    assert ages[("queued",)] == 0
    assert 5000 <= ages[("in_progress",)] < 6000


def test_refusals_and_requests_of_the_mount_are_counted(programs: Programs) -> None:
    programs.root.tree.journal.refused("x", 1, "no")
    programs.root.tree.journal.counters["operations"] += 5
    found = metrics_of(programs)
    assert found["threadfs_refusals_total"] == {(): 1}
    assert found["threadfs_requests_total"] == {(): 5}


def test_no_name_can_forge_a_line_or_a_label() -> None:
    evil = '"} 1\nthreadfs_threads{store="x\\'
    text = metrics(f"/{evil}", Measured(1, 2, 3, {("queued", evil): 4}, {"queued": 5}), 6, 7)
    found = read(text)
    assert found["threadfs_threads"] == {(): 1}
    ((key, number),) = found["threadfs_runs"].items()
    assert (key[0], number) == ("queued", 4)
    assert r"\"} 1" in key[1]


def test_models_that_are_shown_the_same_are_counted_together(store: ThreadStore, programs: Programs) -> None:
    store.create_thread(Thread(id="a"))
    for model in ("m\u202e", r"m\u{202e}", "n"):
        store.create_run("a", Run(model=model))
    assert metrics_of(programs)["threadfs_runs"] == {("queued", r"m\\u{202e}"): 2, ("queued", "n"): 1}


def test_of_very_many_models_the_rarest_are_counted_together(store: ThreadStore, programs: Programs) -> None:
    store.create_thread(Thread(id="a"))
    for number in range(110):
        for _ in range(1 + (number < 99)):
            store.create_run("a", Run(model=f"m{number}"))
    runs = metrics_of(programs)["threadfs_runs"]
    assert len(runs) == 101
    assert sum(runs.values()) == 209
    assert runs["queued", "…"] == 10
