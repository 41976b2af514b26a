"""The command line of a worker, and what it says when something is wrong: one line, and no run is lost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest

from store import RunStatus, Store
from tests.cli.conftest import Result, fails, threadfs
from tests.work.running import all_answered, answers, ask, settings
from tests.work.scripted import ScriptedEndpoint
from threadfs.cli import main
from threadfs.work.endpoint import base_url
from threadfs.work.keys import key_for

# Nothing listens there, and nothing is asked.
UNUSED = "http://127.0.0.1:9/v1"


class Refuses(Protocol):
    def __call__(
        self, status: int, url: str, *words: str, options: Sequence[object] = (), store: Path = ...
    ) -> str: ...


@pytest.fixture(autouse=True)
def no_keys_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "THREADFS_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def works(place: Path, url: str, *arguments: object) -> Result:
    """Has a worker do what there is to do, in a process of its own."""
    return threadfs("work", place, "--endpoint", url, "--once", *arguments)


@pytest.fixture
def refuses(place: Path, capsys: pytest.CaptureFixture[str]) -> Refuses:
    """Calls the command in this process; it ends with a status and one line that has some words."""

    def refuse(
        status: int, url: str, *words: str, options: Sequence[object] = (), store: Path = place
    ) -> str:
        try:
            found = main(["work", str(store), "--endpoint", url, "--once", *map(str, options)])
        except SystemExit as ended:
            found = int(str(ended.code))
        out, err = capsys.readouterr()
        fails(Result([], found, out, err), status, *words)
        return err

    return refuse


def test_a_worker_in_a_directory_with_nothing_in_it_says_that_the_store_is_new(
    endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    result = works(tmp_path / "empty", endpoint.url)
    assert result.returncode == 0
    assert f"WARNING {tmp_path}/empty has no thread yet: it is taken for a new store\n" in result.stderr


def test_what_is_queued_is_answered_once_with_a_line_for_each_run(
    store: Store, place: Path, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    endpoint.script = lambda exchange: exchange.says("secret answer", usage=usage)
    run = ask(store, "secret question")
    key, instructions = tmp_path / "key", tmp_path / "instructions"
    key.write_text("sk-secret\n")
    key.chmod(0o600)
    instructions.write_text("Be secret.\n")
    result = works(place, endpoint.url, "--key-file", key, "--instructions", instructions, "--model", "m")
    assert (result.returncode, result.stdout) == (0, "")
    assert re.fullmatch(rf"\S+ \S+ INFO {run.id}@t: completed, [0-9.]+ s, 2 tokens\n", result.stderr)
    exchange = endpoint.exchange()
    assert exchange.headers["authorization"] == "Bearer sk-secret"
    assert exchange.messages == [("system", "Be secret."), ("user", "secret question")]


def test_a_log_may_be_kept_in_a_file(
    store: Store, place: Path, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    run = ask(store)
    result = works(place, endpoint.url, "--log", tmp_path / "log")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"{run.id}@t: completed" in (tmp_path / "log").read_text()


# ── Wrong endpoints ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("127.0.0.1:11434", "must begin with http:// or https://"),
        ("ftp://127.0.0.1/v1", "must begin with http:// or https://"),
        ("http://", "must begin with http:// or https://"),
        ("http://[::1", "it is no URL"),
        ("http://me:secret@127.0.0.1/v1", "give the key with --key-file"),
        ("http://127.0.0.1/v1?key=1", "must end with its path"),
    ],
)
def test_what_is_no_url_of_an_endpoint_is_refused_and_says_what_one_is_like(
    refuses: Refuses, url: str, word: str
) -> None:
    assert "secret" not in refuses(2, url, "--endpoint: ", word)


def test_an_endpoint_without_its_version_says_what_was_meant(
    refuses: Refuses, endpoint: ScriptedEndpoint
) -> None:
    url = endpoint.url.removesuffix("/v1")
    refuses(2, url, f"there is no endpoint at {url}: did you mean {endpoint.url}?")


def test_an_endpoint_with_several_models_wants_to_know_which(
    store: Store, place: Path, endpoint: ScriptedEndpoint
) -> None:
    ask(store)
    endpoint.has("b", "a")
    fails(works(place, endpoint.url), 2, "which model? Say it with --model NAME: the endpoint has a, b")
    endpoint.has()
    fails(works(place, endpoint.url), 2, "the endpoint has no model")


def test_an_endpoint_that_does_not_list_its_models_works_with_a_given_one(
    store: Store, place: Path, endpoint: ScriptedEndpoint, refuses: Refuses
) -> None:
    endpoint.models = lambda exchange: exchange.refuses(404)
    endpoint.first = [lambda exchange: exchange.refuses(400), lambda exchange: exchange.refuses(400)]
    refuses(2, endpoint.url, "say which with --model NAME")
    ask(store)
    all_answered(place, endpoint.url, settings(once=True, model="m"))
    assert answers(store) == ["four"]


def test_an_endpoint_that_wants_a_key_is_waited_for_and_the_run_stays(
    store: Store, place: Path, endpoint: ScriptedEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.models = lambda exchange: exchange.refuses(401)
    run = ask(store)
    assert all_answered(place, endpoint.url, settings(once=True, patience_s=0.2)) is False
    assert "waiting: the endpoint wants a key (--key-file FILE)" in caplog.text
    assert store.get_run("t", run.id).status is RunStatus.queued


# ── Keys ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_that_others_can_read_is_refused(refuses: Refuses, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-secret")
    key.chmod(0o640)
    told = refuses(2, UNUSED, f"others can read {key}: chmod 600 it", options=["--key-file", key])
    assert "sk-secret" not in told
    refuses(2, UNUSED, "No such file", options=["--key-file", tmp_path / "gone"])


@pytest.mark.parametrize("text", ["", "two words", "zwölf", "a\nb"])
def test_what_cannot_be_a_key_is_refused(refuses: Refuses, tmp_path: Path, text: str) -> None:
    key = tmp_path / "key"
    key.write_text(text)
    key.chmod(0o600)
    refuses(2, UNUSED, "holds no key", options=["--key-file", key])


def test_a_key_never_goes_over_the_network_unencrypted(
    refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREADFS_API_KEY", "sk-secret")
    told = refuses(2, "http://model.example/v1", "$THREADFS_API_KEY", "unencrypted", "https://")
    assert "sk-secret" not in told


def test_the_key_of_openai_goes_to_no_other_endpoint() -> None:
    environment = {"OPENAI_API_KEY": "sk-openai"}
    for url in ("http://127.0.0.1:1/v1", "https://api.openai.com.example/v1", "http://api.openai.com/v1"):
        assert key_for(base_url(url), None, environment) is None
    assert key_for(base_url("https://api.openai.com/v1"), None, environment) == "sk-openai"


# ── Other arguments ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--jobs", "0"),
        ("--jobs", "many"),
        ("--max-answer", "0"),
        ("--max-answer", "1T"),
        ("--idle-timeout", "0s"),
        ("--patience", "soon"),
    ],
)
def test_values_that_are_none_are_refused(refuses: Refuses, option: str, value: str) -> None:
    refuses(2, UNUSED, option, options=[option, value])


def test_a_store_that_is_none_is_refused_before_anything_is_asked(
    refuses: Refuses, tmp_path: Path, endpoint: ScriptedEndpoint
) -> None:
    refuses(1, endpoint.url, "No such file", store=tmp_path / "missing")
    assert endpoint.models_asked == 0


def test_instructions_that_cannot_be_read_are_refused(refuses: Refuses, tmp_path: Path) -> None:
    refuses(1, UNUSED, "gone: No such file", options=["--instructions", tmp_path / "gone"])


def test_a_store_that_cannot_be_written_is_told_as_such(
    place: Path, endpoint: ScriptedEndpoint, refuses: Refuses
) -> None:
    # As root can write everywhere: where the directory should be is something else.
    (place / ".threadfs-workers").write_text("")
    refuses(1, endpoint.url, ".threadfs-workers")
