"""What a mount of a database shows while a worker on another host answers."""

from __future__ import annotations

from store import RunStatus
from store.working import Outcome, WorkerState
from tests.nodes.driving import Programs
from tests.postgres.fixtures import OpenStore
from tests.store.contract.working import CALLS, eventually
from threadfs.nodes.growing import ThreadText
from threadfs.nodes.root import root_of


def answer_of(programs: Programs) -> bytes:
    """The newest answer of T. It may grow while it is read, so its size tells nothing."""
    node = programs.at("answers/T.md")
    assert isinstance(node, ThreadText)
    return node.open_for_reading().read(0, 1 << 20)


def test_an_answer_grows_where_it_is_read_and_the_run_waits_for_its_tools(open_store: OpenStore) -> None:
    programs = Programs(root_of(open_store()))
    programs.mkdir("threads/T")
    programs.write("threads/T/ask", b"Why?")
    (run_id,) = programs.names("threads/T/runs")
    node = programs.at("transcripts/T.md")
    assert isinstance(node, ThreadText)
    reader = node.open_for_reading()
    with open_store().register_worker(WorkerState(endpoint="gpu:80")) as worker:
        assert programs.read(".threadfs/workers") == f"{worker.id}\tgpu:80\t0 of 1\tready\n".encode()
        with worker.claim("T", run_id) as answer:
            answer.append("Because")
            assert eventually(lambda: answer_of(programs) == b"Because")
            assert reader.read(0, 1 << 20).endswith(b" UTC\n\nBecause")
            answer.append(" of that.")
            answer.finish(Outcome(RunStatus.requires_action, tool_calls=CALLS))
        assert reader.read(0, 1 << 20).endswith(b"Because of that.\n")
        assert reader.read(0, 1 << 20) == programs.read("transcripts/T.md")
        assert programs.at("transcripts/T.md") == node
        assert programs.read("answers/T.md") == b"Because of that.\n"
        tools = f"threads/T/runs/{run_id}/tools"
        assert programs.names(tools) == ["1.weather", "2.time"]
        for name in programs.names(tools):
            programs.write(f"{tools}/{name}/output", b"known\n")
        assert open_store().get_run("T", run_id).status is RunStatus.queued
