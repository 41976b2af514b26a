"""What the command line says of itself, and to those who use it wrongly."""

from __future__ import annotations

import math
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, command, environment, fails, succeeds, threadfs
from tests.mount.conftest import ANSWERS_S
from threadfs import __version__
from threadfs.commands import COMMANDS
from threadfs.commands.parser import SHELLS


def on_a_terminal(*arguments: str) -> str:
    """What a command writes when its output is a terminal of 160 columns."""
    shown, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (40, 160))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "TERM": "xterm"}
    subprocess.run(command(*arguments), env=environment, stdout=terminal, stderr=terminal, check=False)
    os.close(terminal)
    said = b""
    try:
        while piece := os.read(shown, 65536):
            said += piece
    except OSError:
        pass  # the other side is closed
    os.close(shown)
    return said.decode()


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=["mount", *COMMANDS])
def test_help_has_examples_and_fits_100_columns(arguments: list[str]) -> None:
    said = succeeds(threadfs(*arguments, "--help"))
    assert said.startswith("usage: threadfs")
    assert max(map(len, said.splitlines())) <= 100
    assert "examples:" in said


def test_help_names_every_command_and_every_option_of_mounting() -> None:
    said = succeeds(threadfs("--help"))
    options = [
        "--foreground",
        "--log",
        "--read-only",
        "--allow-other",
        "-o OPTS",
        "--version",
        "STORE",
        "MNT",
    ]
    assert all(word in said for word in [*COMMANDS, *options])


def test_help_is_coloured_on_a_terminal_and_not_in_a_pipe() -> None:
    shown = on_a_terminal("--help")
    assert "\x1b[" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert max(len(line.rstrip()) for line in plain.splitlines()) <= 100
    assert "\x1b" not in succeeds(threadfs("--help"))


def test_version_is_said() -> None:
    assert succeeds(threadfs("--version")) == f"threadfs {__version__}\n"


def test_version_loads_neither_the_store_nor_fuse_nor_what_makes_help_pretty() -> None:
    script = "import sys; from threadfs.cli import main\n"
    script += "main(['--version'])\nprint(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = said.stdout.split()
    heavy = {"store", "pyfuse3", "trio", "pydantic", "rich", "rich_argparse", "shtab", "tqdm", "logging"}
    assert not heavy & set(loaded)


@pytest.mark.alone
def test_version_is_said_within_one_and_a_half_times_of_python_importing_argparse() -> None:
    def taken_s(script: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - started

    main = "from threadfs.cli import main; main(['--version'])"
    fastest_s = dict.fromkeys([main, "import argparse"], math.inf)
    for round_number in range(15):  # The fastest counts, as other work on the machine only makes it slower.
        for script in fastest_s:
            fastest_s[script] = min(fastest_s[script], taken_s(script))
        if round_number >= 4 and fastest_s[main] < 1.5 * fastest_s["import argparse"]:
            return
    pytest.fail(f"{fastest_s}")


UNWRITABLE = ["--version", "--help", "--print-completion bash", "export store", "fsck store"]


@pytest.mark.parametrize("words", UNWRITABLE)
def test_what_cannot_be_written_to_stdout_is_a_failure_of_one_line(
    household: Path, tmp_path: Path, words: str
) -> None:
    (household / "Trip to Oslo" / "meta.json").write_text('{"created_at": 1, "id": "other"}')
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            command(*words.split()),
            cwd=tmp_path,
            env={**environment(tmp_path), "PYTHONUNBUFFERED": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    fails(result, 1, "threadfs: No space left on device")


@pytest.mark.parametrize("words", ["--version", "list", "import ./store"])
def test_closed_standard_streams_make_no_traceback(tmp_path: Path, words: str) -> None:
    script = f"exec {sys.executable} -m threadfs.cli {words} <&- >&-"
    result = subprocess.run(
        ["sh", "-c", script],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in result.stderr
    assert result.returncode == ("import" in words)


def test_progress_is_shown_on_a_terminal_and_not_in_a_pipe(household: Path) -> None:
    assert "thread" in on_a_terminal("fsck", str(household))
    assert succeeds(threadfs("fsck", household)) == ""


def test_findings_stay_on_a_terminal_when_the_bar_goes(household: Path) -> None:
    (household / "Trip to Oslo" / "meta.json").write_text("{")
    assert "Trip to Oslo/meta.json: error: not JSON" in on_a_terminal("fsck", str(household))


WRONG = [
    [],
    ["store"],
    ["a", "b", "c"],
    ["--bogus", "a", "b"],
    ["", "mnt"],
    ["store", ""],
    ["a\nb"],
    ["--print-completion", "powershell"],
    ["store", "mnt", "-o", "ro,nonsense"],
    ["store", "mnt", "-o", "allow_other,uid=nobody that there is"],
    ["store", "mnt", "-o", "umask=8"],
    ["umount"],
    ["list", "it"],
    ["fsck"],
    ["fsck", "--json=yes", "store"],
    ["export"],
    ["ask", "store"],
    ["follow", "store"],
    ["next", "store", "thread"],
    ["wait", "store"],
    ["prune", "store"],
    ["prune", "store", "--older-than"],
    ["prune", "store", "--older-than", "soon"],
    ["prune", "store", "--older-than", "30"],
    ["prune", "store", "--older-than", "-1d"],
    ["prune", "store", "--older-than", "1d", "--status", "in_progress"],
    ["expire", "store"],
    ["expire", "store", "--older-than", "1.5h"],
    ["expire", "store", "--older-than", "9999999999d"],
]


@pytest.mark.parametrize("arguments", WRONG, ids=[" ".join(words) or "nothing" for words in WRONG])
def test_wrong_usage_is_one_line_and_status_2(tmp_path: Path, arguments: list[str]) -> None:
    result = threadfs(*arguments, cwd=tmp_path)
    fails(result, 2, "threadfs: ", "--help")
    assert "usage:" not in result.stderr
    assert result.stdout == ""
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--nope", "unrecognized arguments: --nope;"),
        ("--nope store", "unrecognized arguments: --nope;"),
        ("--nope store mnt", "unrecognized arguments: --nope;"),
        ("bogus", "MNT is missing, and 'bogus' is no command;"),
        ("-f store", "MNT is missing, and 'store' is no command;"),
        (".", "MNT is missing: give the directory"),
        ("./new", "MNT is missing: give the directory"),
        ("mount .", "MNT is missing: give the directory"),
        ("mount bogus", "MNT is missing: give the directory"),
        ("--read-only", "required: STORE, MNT;"),
    ],
)
def test_what_is_wrong_is_what_is_said(tmp_path: Path, words: str, reason: str) -> None:
    fails(threadfs(*words.split(), cwd=tmp_path), 2, reason)


TYPOS = [
    ("exprot postgresql://user:secret@host/db", "export"),
    ("unmuont mnt", "unmount"),
    ("fskc --repair store", "fsck"),
    ("prnue store --older-than 3d", "prune"),
    ("wiat store T R", "wait"),
    ("-f exprot mnt", "export"),
    ("-o ro exprot mnt", "export"),
    ("mount exprot mnt", "export"),
    ("mont store mnt", "mount"),
    ("exprot", "export"),
]


@pytest.mark.parametrize(("words", "nearest"), TYPOS, ids=[words for words, _ in TYPOS])
def test_a_mistyped_command_makes_no_store_and_the_nearest_one_is_named(
    tmp_path: Path, words: str, nearest: str
) -> None:
    (tmp_path / "store").mkdir()
    result = threadfs(*words.split(), cwd=tmp_path)
    fails(result, 2, f"is no command (did you mean {nearest}?)", "--help")
    assert "secret" not in result.stderr
    assert os.listdir(tmp_path) == ["store"]


@pytest.mark.parametrize("words", ["store {url}", "mount ./new {url}", "umount {url}", "unmount {url}"])
@pytest.mark.parametrize("scheme", ["postgresql", "http"])
def test_a_url_is_no_mount_point(tmp_path: Path, words: str, scheme: str) -> None:
    (tmp_path / "store").mkdir()
    result = threadfs(*words.format(url=f"{scheme}://user:secret@host/db").split(), cwd=tmp_path)
    fails(result, 2, f"MNT: {scheme}:// is no directory to mount on")
    assert "secret" not in result.stderr
    assert os.listdir(tmp_path) == ["store"]


@pytest.mark.parametrize("words", [["T", "R", "R"], ["T@R@S", "R", "x"]], ids=" ".join)
def test_which_run_to_wait_for_is_given_in_two_words_or_in_one(tmp_path: Path, words: list[str]) -> None:
    fails(threadfs("wait", tmp_path, *words), 2, "Give THREAD RUN, RUN@THREAD or RUN")


@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "mysql", "http", "file", "POSTGRESQL"])
@pytest.mark.parametrize("words", [[], ["fsck"], ["export"], ["import"]], ids=str)
def test_a_url_of_an_unknown_kind_is_no_directory_and_its_password_is_not_said(
    tmp_path: Path, scheme: str, words: list[str]
) -> None:
    mountpoint = [] if words else ["mnt"]
    result = threadfs(*words, f"{scheme}://user:secret@host/db", *mountpoint, cwd=tmp_path)
    fails(result, 2, f"{scheme}:// is no store", "postgresql://")
    assert "secret" not in result.stderr
    assert not os.listdir(tmp_path)


ON_A_STORE = {
    "prune": ["--older-than", "1d"],
    "expire": ["--older-than", "1d"],
    "wait": ["T", "R"],
    "ask": ["T", "Hello"],
    "follow": ["T"],
    "next": [],
}


@pytest.mark.parametrize("name", [*ON_A_STORE, "fsck", "export"])
def test_a_store_that_is_missing_is_a_failure_of_one_line_and_is_not_made(tmp_path: Path, name: str) -> None:
    result = threadfs(name, "none", *ON_A_STORE.get(name, []), cwd=tmp_path)
    fails(result, 3 if name == "wait" else 1, "threadfs: none: No such file or directory")
    assert not os.listdir(tmp_path)


def test_what_is_needed_for_postgresql_is_said_where_it_is_missing(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('none here')")
    path = f"{tmp_path}:{ROOT}"
    result = subprocess.run(
        command("fsck", "postgresql://localhost/threads"),
        env={**environment(tmp_path), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    fails(result, 1, "threadfs[postgres]")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_script_knows_every_command(shell: str) -> None:
    script = succeeds(threadfs("--print-completion", shell))
    assert all(name in script for name in COMMANDS)


def completed_by_bash(words: str, tmp_path: Path) -> list[str]:
    script = tmp_path / "completion"
    script.write_text(succeeds(threadfs("--print-completion", "bash")))
    ask = f'source {script}; COMP_WORDS=({words} ""); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); '
    ask += '_shtab_threadfs; printf "%s\\n" "${COMPREPLY[@]}"'
    said = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
    return said.stdout.split()


def test_bash_offers_commands_and_directories_as_the_first_word(tmp_path: Path) -> None:
    (tmp_path / "my-store").mkdir()
    offered = completed_by_bash("threadfs", tmp_path)
    assert {"fsck", "umount", "unmount", "mount", "my-store"} <= set(offered)


def test_bash_offers_directories_after_a_command_and_no_files(tmp_path: Path) -> None:
    (tmp_path / "my-store").mkdir()
    (tmp_path / "notes").write_text("")
    assert completed_by_bash("threadfs fsck", tmp_path) == ["my-store"]
    assert completed_by_bash("threadfs mount my-store", tmp_path) == ["my-store"]


def completed_by_fish(words: str, tmp_path: Path) -> list[str]:
    script = tmp_path / ".completion"
    script.write_text(succeeds(threadfs("--print-completion", "fish")))
    ask = f"source {script}; complete -C '{words}'"
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / ".config")}
    said = subprocess.run(
        ["fish", "--no-config", "-c", ask],
        cwd=tmp_path,
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split("\t")[0] for line in said.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish here")
def test_fish_offers_stores_with_the_commands_and_directories_after_a_store(tmp_path: Path) -> None:
    (tmp_path / "my-store").mkdir()
    (tmp_path / "notes").write_text("")
    assert {"fsck", "umount", "my-store/"} <= set(completed_by_fish("threadfs ", tmp_path))
    assert completed_by_fish("threadfs my-store ", tmp_path) == ["my-store/"]
    assert completed_by_fish("threadfs my-store mnt ", tmp_path) == []


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")
@pytest.mark.parametrize("words", ["threadfs my", "threadfs my-store my", "threadfs fsck my"])
def test_zsh_offers_directories_for_stores_and_mount_points(words: str, tmp_path: Path) -> None:
    (tmp_path / "my-directory").mkdir()
    (tmp_path / "my-notes").write_text("")
    functions = tmp_path / "functions"
    functions.mkdir()
    (functions / "_threadfs").write_text(succeeds(threadfs("--print-completion", "zsh")))
    shell, terminal = pty.openpty()
    process = subprocess.Popen(
        ["zsh", "-f", "-i"], cwd=tmp_path, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    try:
        load = f"fpath=({functions} $fpath); autoload -U compinit; compinit -D -u; print rea''dy\n"
        os.write(shell, load.encode())
        _read_until(shell, "ready\r\n")
        os.write(shell, f"{words}\t".encode())
        _read_until(shell, "-directory")
    finally:
        process.kill()
        process.wait()
        os.close(shell)


def _read_until(terminal: int, words: str) -> None:
    said = ""
    while words not in said:
        assert select.select([terminal], [], [], ANSWERS_S)[0], said
        said += os.read(terminal, 65536).decode(errors="replace")


def test_a_completion_script_describes_each_command_in_a_line() -> None:
    script = succeeds(threadfs("--print-completion", "fish"))
    assert all(line in script for line in COMMANDS.values())
    assert max(map(len, script.splitlines())) < 300


@pytest.mark.parametrize("shell", [name for name in SHELLS if shutil.which(name)])
def test_a_shell_accepts_its_completion_script(shell: str, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(succeeds(threadfs("--print-completion", shell)))
    checked = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
