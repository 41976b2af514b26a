"""Where a command that runs for long logs: to stderr, the journal or a file."""

from __future__ import annotations

import logging
import logging.handlers

from threadfs.commands.progress import is_journal

_LOG_BYTES = 10 << 20
# The journal reads a priority at the beginning of each line.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def log_to(path: str | None) -> None:
    """Logs to a file with a size limit, or to stderr; with priorities if stderr is the journal."""
    form = "%(asctime)s %(levelname)s %(message)s"
    handler: logging.Handler
    if path:
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8", errors="backslashreplace"
        )
    else:
        handler = logging.StreamHandler()
    handler.setFormatter(_JournalFormatter() if not path and is_journal() else logging.Formatter(form))
    logging.basicConfig(handlers=[handler], level=logging.INFO)


class _JournalFormatter(logging.Formatter):
    """Writes no time, which the journal adds, and the priority of each line."""

    def format(self, record: logging.LogRecord) -> str:
        priority = _PRIORITIES.get(record.levelno, 6)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())
