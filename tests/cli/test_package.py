"""The package as others install it: what a wheel holds, and that it works away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, succeeds


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_in(tmp_path_factory.mktemp("build"))


def built_in(place: Path, compiler: str | None = None) -> Path:
    """A wheel, built of a copy of what is needed: building leaves files behind."""
    left = shutil.ignore_patterns("__pycache__", "*.so")
    for name in ("store", "threadfs", "docs", "contrib"):
        shutil.copytree(ROOT / name, place / name, ignore=left)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    environment = {**os.environ, "CC": compiler} if compiler else None
    subprocess.run(build, cwd=place, check=True, capture_output=True, env=environment)
    (built,) = (place / "dist").iterdir()
    return built


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name and ".data/" not in name}


def is_shim(name: str) -> bool:
    return name.startswith("threadfs/fuse/_shim.") and name.endswith(".so")


def test_a_wheel_holds_the_two_packages_whole_with_the_shim_and_nothing_else(wheel: Path) -> None:
    expected = {
        str(path.relative_to(ROOT))
        for package in ("store", "threadfs")
        for pattern in ("*.py", "*.md", "*.sql", "py.typed")
        for path in (ROOT / package).rglob(pattern)
    }
    assert {name for name in names_in(wheel) if not is_shim(name)} == expected
    assert len(list(filter(is_shim, names_in(wheel)))) == 1


def test_without_a_compiler_the_wheel_is_one_without_the_shim(tmp_path: Path) -> None:
    names = names_in(built_in(tmp_path, compiler="false"))
    assert "threadfs/fuse/shim.py" in names
    assert not list(filter(is_shim, names))


def test_an_installed_wheel_works_away_from_the_checkout(
    wheel: Path, household: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--target",
        str(site),
    ]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def threadfs(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(site / "bin" / "threadfs"), *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    try:
        assert succeeds(threadfs("fsck", "store")) == ""
        assert "mounted" in succeeds(threadfs("--log", "log", "store", "mnt"))
        assert "threads" in (tmp_path / "mnt" / "README.md").read_text()
        assert "shim 1\n" in (tmp_path / "mnt" / ".threadfs" / "stats").read_text()
        assert succeeds(threadfs("umount", "mnt")) == ""
    finally:
        subprocess.run(["fusermount3", "-uzq", str(tmp_path / "mnt")], check=False)
