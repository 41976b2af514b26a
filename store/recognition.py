"""Which documents are surely of this format.

Readers accept all that they can read. Code that deletes, or changes without being asked to, accepts only a
document that says what it is: another program may have written a ``meta.json``.
"""

from __future__ import annotations

from store import documents, transitions
from store.api import DocumentKey
from store.errors import InvalidDocument

_KINDS = {"thread": "Thread", "thread.run": "Run", "thread.run.step": "RunStep"}


def why_not_ours(key: DocumentKey, data: bytes) -> str | None:
    """Why *data* is not surely the document that *key* names, in words; ``None`` when it is.

    It has every id that the format requires, though not those of its path: threads are copied.
    """
    identity = transitions.with_identity(key, {})
    kind = f"no {_KINDS[identity['object']]}"
    try:
        fields = documents.parse(data)
        transitions.document_at(key, fields)
    except InvalidDocument as error:
        return f"{kind}: {error}"
    for name in identity:
        if not isinstance(fields.get(name), str):
            return f"{kind}: {name}: {'not a text' if name in fields else 'missing'}"
    if fields["object"] != identity["object"]:
        return f"{kind}: object: {fields['object']!r}"
    return None
