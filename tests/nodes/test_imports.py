"""Modules import one another in one direction. Imports within a function do not count."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from store import ContentBlock, MessageRole, Run, Thread, ThreadMessage, ThreadStore

ROOT = Path(__file__).parents[2]


def modules_in(root: Path, *packages: str) -> dict[str, Path]:
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in packages
        for path in root.glob(f"{package}/**/*.py")
    }


def imports_outside_functions(node: ast.AST) -> Iterator[str]:
    """The names of imported modules, or of what may be one; also those for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from imports_outside_functions(child)


def check_order(modules: dict[str, Path]) -> None:
    """Raises CycleError when modules import one another in a circle."""
    graph = {}
    for name, path in modules.items():
        found = imports_outside_functions(ast.parse(path.read_bytes()))
        imported = {one if one in modules else one.rpartition(".")[0] for one in found}
        graph[name] = imported & modules.keys() - {name}
    TopologicalSorter(graph).prepare()


def test_no_modules_import_one_another_in_a_circle() -> None:
    modules = modules_in(ROOT, "store", "threadfs")
    assert len(modules) > 100
    try:
        check_order(modules)
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("of_two", ["import p.one", "from p import one", "from p.one import X"])
@pytest.mark.parametrize("indent", ["", "if TYPE_CHECKING:\n    "])
def test_a_circle_is_found_however_it_is_written(tmp_path: Path, of_two: str, indent: str) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "one.py").write_text("from p.two import Y\n")
    (tmp_path / "p" / "two.py").write_text(f"{indent}{of_two}\n")
    with pytest.raises(CycleError):
        check_order(modules_in(tmp_path, "p"))


def test_an_import_within_a_function_makes_no_circle(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "one.py").write_text("from p.two import Y\n")
    (tmp_path / "p" / "two.py").write_text("def f():\n    from p.one import X\n")
    check_order(modules_in(tmp_path, "p"))


def test_who_opens_a_store_imports_neither_sqlite_nor_what_a_catalogue_is_made_of() -> None:
    script = "import sys; from store import ThreadStore; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = imported.stdout.split()
    assert "store.disk.thread_store" in modules
    assert not {"sqlite3", "inotify_simple"} & {*modules}
    assert [name for name in modules if name.startswith("store.catalogue")] == []


@pytest.mark.parametrize("command", ["search STORE honey", "ls STORE"])
def test_who_only_asks_the_catalogue_of_a_directory_imports_no_models(tmp_path: Path, command: str) -> None:
    with closing(ThreadStore(tmp_path / "store")) as store:
        thread = store.create_thread(Thread())
        store.create_run(thread.id, Run())
        said = ThreadMessage(role=MessageRole.user, content=[ContentBlock.of_text("honey")])
        store.append_message(thread.id, said)
    script = "import sys; from threadfs import cli; cli.main(sys.argv[1:]); print(*sys.modules)"
    arguments = command.replace("STORE", store.location).split()
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found, modules = done.stdout.splitlines()
    assert thread.id in found
    assert "store.disk.catalogue" in modules.split()
    assert not {"pydantic", "store.models"} & {*modules.split()}
