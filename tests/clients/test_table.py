"""The table in docs/clients.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.clients.table import rows

ROOT = Path(__file__).parents[2]


def test_the_table_in_the_documentation_has_a_row_for_each_test(tmp_path: Path) -> None:
    collected = tmp_path / "clients.md"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/clients"]
    subprocess.run([*command, "--clients-table", str(collected)], cwd=ROOT, check=True, capture_output=True)
    found = rows(collected.read_text())
    assert len(found) > 50
    committed = rows((ROOT / "docs" / "clients.md").read_text())
    how = "write it anew: .venv/bin/pytest tests/clients --clients-table docs/clients.md"
    assert committed - found == set(), f"no test shows this; {how}"
    assert found - committed == set(), f"the table does not say this; {how}"
