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
    """A wheel, built of a copy of what is needed: building leaves files behind."""
    place = tmp_path_factory.mktemp("build")
    for name in ("store", "threadfs", "docs", "contrib"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    subprocess.run(build, cwd=place, check=True, capture_output=True)
    (built,) = (place / "dist").iterdir()
    return built


def test_a_wheel_holds_the_two_packages_whole_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name and ".data/" not in name}
    expected = {
        str(path.relative_to(ROOT))
        for package in ("store", "threadfs")
        for pattern in ("*.py", "*.md", "*.sql", "py.typed")
        for path in (ROOT / package).rglob(pattern)
    }
    assert names == expected


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
        assert succeeds(threadfs("umount", "mnt")) == ""
    finally:
        subprocess.run(["fusermount3", "-uzq", str(tmp_path / "mnt")], check=False)
