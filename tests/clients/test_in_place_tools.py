"""Tools that change a file in place.

Some write into the file, others put a new one in its place; both end in the store, or with an error and the
store as it was. A hard link is the one thing that there is not: `ln -f` is refused and removes nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.mount.conftest import Mount
from tests.mount.scripts import new_work


class Shell:
    """Runs scripts in the directory of a run that is in progress; ``$new`` is a changed status outside."""

    def __init__(self, mount: Mount, place: Path, environment: Mapping[str, str]) -> None:
        self.run = new_work(mount)
        self._stored = mount.stored(self.run)
        self.before = self.fields()
        self._names = sorted(mount.store.rglob("*"))
        self._mount = mount
        self._shown = sorted(self.run.rglob("*"))
        new = place / "new.json"
        new.write_text(json.dumps({**self.before, "model": "another"}))
        self._environment = {**environment, "new": str(new)}

    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self._stored.read_bytes())
        return fields

    def __call__(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-ec", script],
            cwd=self.run,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def assert_has_another_model(self) -> None:
        assert self.fields() == {**self.before, "model": "another"}
        assert json.loads((self.run / "status").read_text()) == self.fields()
        self.assert_nothing_is_left()

    def assert_nothing_changed(self) -> None:
        assert self.fields() == self.before
        assert json.loads((self.run / "status").read_text()) == self.before
        self.assert_nothing_is_left()

    def assert_nothing_is_left(self) -> None:
        assert sorted(self._mount.store.rglob("*")) == self._names
        assert sorted(self.run.rglob("*")) == self._shown


@pytest.fixture
def mount(shared_mount: Mount) -> Mount:
    return shared_mount


@pytest.fixture
def shell(mount: Mount, place: Path, environment: Mapping[str, str]) -> Shell:
    return Shell(mount, place, environment)


def program(title: str, script: str) -> Any:
    return pytest.param(script, marks=pytest.mark.program(title), id=script)


@pytest.mark.parametrize(
    "script",
    [
        program("sed", """sed -i 's/"model": ".*"/"model": "another"/' status"""),
        program("perl", """perl -pi -e 's/"model": ".*"/"model": "another"/' status"""),
        program("jq", """jq '.model = "another"' status > status.tmp && mv status.tmp status"""),
        program("sponge", """jq '.model = "another"' status | sponge status"""),
        program("coreutils", "cp $new status"),
        program("coreutils", "cp -f $new status"),
        program("coreutils", "cp --remove-destination $new status"),
        program("coreutils", "cp -p $new status"),
        program("coreutils", "install -m 600 $new status"),
        program("coreutils", "cp $new .status.new && mv -f .status.new status"),
        program("coreutils", "mv $new status"),
        program("coreutils", "truncate -s 0 status && cat $new > status"),
        program("coreutils", "dd if=$new of=status bs=16 status=none"),
        program("coreutils", "dd if=$new of=status conv=fsync status=none"),
        program("coreutils", "tee status < $new > /dev/null"),
        program("coreutils", "rm status && cp $new status"),
    ],
)
def test_replaces_a_document(shell: Shell, script: str) -> None:
    result = shell(script)
    assert (result.returncode, result.stderr) == (0, "")
    shell.assert_has_another_model()


@pytest.mark.parametrize(
    "script",
    [
        program("sed", "sed -i 's/{/{]/' status"),
        program("perl", "perl -pi -e 's/{/{]/' status"),
        program("sponge", "echo '{]' | sponge status"),
        program("coreutils", "echo '{]' > $new; mv $new status"),
        program("coreutils", "echo '{]' | dd of=status status=none"),
        program("coreutils", "echo '{]' | tee status"),
        program("coreutils", "echo '{' > $new; cp $new status"),
    ],
)
def test_says_that_what_is_no_document_was_not_written(shell: Shell, script: str) -> None:
    result = shell(script)
    assert result.returncode != 0
    assert result.stderr
    shell.assert_nothing_changed()


@pytest.mark.program("coreutils")
@pytest.mark.parametrize("script", ["ln -f $new status", "ln -f status other", "ln status other"])
def test_hard_links_are_refused_clearly(shell: Shell, script: str) -> None:
    shell("cp $new tmp.new")  # A link to another file system is refused by the system.
    result = shell(script.replace("$new", "tmp.new"))
    assert result.returncode == 1
    assert "Operation not permitted" in result.stderr
    shell("rm tmp.new")
    shell.assert_nothing_changed()


@pytest.mark.program("coreutils")
def test_touch_sets_the_time_and_changes_nothing_else(shell: Shell) -> None:
    result = shell("touch -d 2025-03-04T05:06:07Z status && stat -c %Y status")
    assert (result.stdout, result.stderr) == ("1741064767\n", "")
    shell.assert_nothing_changed()


@pytest.mark.program("coreutils")
def test_truncate_alone_changes_nothing(shell: Shell) -> None:
    shell("truncate -s 0 status")
    shell.assert_nothing_changed()


@pytest.mark.program("coreutils")
def test_tee_appends_a_message_to_the_log(shell: Shell) -> None:
    result = shell("""echo '{"role": "user", "content": "Hello"}' | tee -a ../../messages.jsonl""")
    assert result.returncode == 0
    assert "Hello" in shell("tail -n 1 ../../messages.jsonl").stdout


@pytest.mark.program("sed")
def test_rewriting_a_message_of_the_log_is_refused(shell: Shell) -> None:
    before = shell("cat ../../messages.jsonl").stdout
    result = shell("sed -i 's/user/assistant/' ../../messages.jsonl")
    assert result.returncode != 0
    assert "Operation not permitted" in result.stderr
    assert shell("cat ../../messages.jsonl; ls ../..").stdout.startswith(before)
    shell.assert_nothing_changed()


@pytest.mark.program("bash")
@pytest.mark.parametrize("script", ["cat $new > status", 'echo "$(<$new)" > status', "cat < $new 1<> status"])
def test_redirection_replaces_a_document(shell: Shell, script: str) -> None:
    assert shell(script).returncode == 0
    shell.assert_has_another_model()


@pytest.mark.program("bash")
def test_noclobber_protects_a_document(shell: Shell) -> None:
    result = shell("set -C; cat $new > status")
    assert "cannot overwrite existing file" in result.stderr
    shell.assert_nothing_changed()


@pytest.mark.program("Python")
def test_write_text_replaces_a_document(shell: Shell) -> None:
    (shell.run / "status").write_text(json.dumps({**shell.before, "model": "another"}))
    shell.assert_has_another_model()


@pytest.mark.program("Python")
def test_a_file_opened_for_update_is_read_changed_and_written(shell: Shell) -> None:
    with (shell.run / "status").open("r+") as file:
        fields = json.load(file)
        fields["model"] = "another"
        file.seek(0)
        json.dump(fields, file)
        file.truncate()
    shell.assert_has_another_model()


@pytest.mark.program("Python")
def test_write_text_of_no_document_raises(shell: Shell) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        (shell.run / "status").write_text("{]")
    shell.assert_nothing_changed()


def write_atomically(path: Path, text: str) -> None:
    """As atomicwrites, fsspec, Django and many others do it."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, path.stat().st_mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@pytest.mark.program("Python")
def test_a_temporary_file_and_a_rename_replace_a_document(shell: Shell) -> None:
    write_atomically(shell.run / "status", json.dumps({**shell.before, "model": "another"}))
    shell.assert_has_another_model()


@pytest.mark.program("Python")
def test_a_rename_of_what_is_no_document_raises(shell: Shell) -> None:
    with pytest.raises(OSError, match="Bad message"):
        write_atomically(shell.run / "status", "{]")
    shell.assert_nothing_changed()


@pytest.mark.program("Python")
def test_shutil_copies_a_thread_out_and_a_draft_in(shell: Shell, place: Path, mount: Mount) -> None:
    thread = shell.run.parent.parent
    shutil.copytree(thread, place / "copy")
    shutil.copytree(place / "copy", mount.path("drafts", "copy"))
    os.rename(mount.path("drafts", "copy"), mount.path("threads", "copy"))
    original = json.loads((thread / "meta.json").read_text())
    assert json.loads((mount.store / "copy" / "meta.json").read_text()) == {**original, "id": "copy"}
