"""What a thread is called as a note: ``<date> <title>.md``, which every system and Obsidian take."""

from __future__ import annotations

import re
import time
import unicodedata
from contextlib import suppress

from threadfs.importing.values import digest

SUFFIX = ".md"
# With the date and the digest of a second one of that name it is within 255 bytes, and in most paths.
_MAX_TITLE_BYTES = 120
# What Windows takes in no name, or Obsidian in no link.
_REFUSED = re.compile(r'[\\/:*?"<>|#^\[\]]')
# Controls, direction and the like (but not the joiners of emoji), halves of pairs, no characters at all.
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_JOINERS = "\u200c\u200d"


def day_of(created_s: int) -> str:
    """The day in local time; nothing for a time that no calendar has."""
    with suppress(ValueError, OverflowError, OSError):
        return time.strftime("%Y-%m-%d", time.localtime(created_s))
    return ""


def compared(name: str) -> str:
    """The same for names that are one to a system which ignores case, or the form of accents."""
    return unicodedata.normalize("NFC", name).casefold()


def note_name(day: str, title: str, thread_id: str, *, is_taken: bool = False) -> str:
    """*is_taken*: another thread's note, or a foreign file, is called so: this one gets a mark of its id."""
    cleaned = _cleaned(title)
    mark = f"({digest(thread_id, 8)})" if is_taken or not cleaned else ""
    return " ".join(filter(None, (day, cleaned, mark))) + SUFFIX


def _cleaned(title: str) -> str:
    shown = "".join(
        " " if unicodedata.category(one) in _INVISIBLE and one not in _JOINERS else one
        for one in unicodedata.normalize("NFC", title)
    )
    joined = " ".join(_REFUSED.sub(" ", shown).split())
    cut = joined.encode()[:_MAX_TITLE_BYTES].decode(errors="ignore")
    # Windows takes no name that ends with a dot or a blank; one that begins with a dot is hidden.
    return cut.strip(" .")
