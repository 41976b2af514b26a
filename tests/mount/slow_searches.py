"""``python -m tests.mount.slow_searches FILE ...``: threadfs whose searches wait for FILE to be there."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from store.catalogue.api import Results
from store.disk.catalogue import DiskCatalogue
from threadfs.cli import main


def wait_for(gate: Path) -> None:
    search = DiskCatalogue.search

    def slow_search(self: DiskCatalogue, *arguments: Any, **named: Any) -> Results:
        while not gate.exists():
            time.sleep(0.01)
        return search(self, *arguments, **named)

    DiskCatalogue.search = slow_search  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    wait_for(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
