"""The documents of a store as objects that OpenAI's own types accept, and back without loss.

A stored document may say less than OpenAI's types ask for (no ``instructions`` of a run), say it otherwise
(``step_type``), or more (fields of its own, metadata that are no texts). `exported` fills in, translates and
leaves out until OpenAI's types hold it; what gets lost on the way goes along in a field ``threadfs``:

    {"id": "run_1", …, "instructions": "", …,
     "threadfs": {"fields": ["id", "object", "created_at", …], "as_stored": {"priority": 3}}}

``fields`` are the fields of the stored document, in their order; those that differ are in ``as_stored``.
Where that would not give the same bytes (numbers like ``1e2``), ``text`` is the document itself. In the last
object of a thread there is ``"last": true`` as well: an export without it was cut off.
"""

from __future__ import annotations

import json

from store import documents
from store.errors import InvalidDocument
from threadfs.openai_translation import KINDS, Fields, compact, translated

OWN_FIELD = "threadfs"


def exported(fields: Fields, text: str, *, is_line: bool, strict: bool = False) -> Fields:
    """The object for a stored document with these *fields*, whose ids are those of its path.

    Args:
        text: the document as it is stored.
        is_line: it is a line of a log, not a document of its own.
        strict: leave out what OpenAI's types do not have.
    """
    made = translated(fields)
    if strict:
        return made
    as_stored = {
        name: value
        for name, value in fields.items()
        if name not in made or compact(made[name]) != compact(value)
    }
    whole = {**made, OWN_FIELD: {"fields": list(fields), "as_stored": as_stored}}
    if _is_too_deep(whole) or restored(whole, is_line=is_line) != text.encode(errors="surrogatepass"):
        return {**made, OWN_FIELD: {"text": text}}
    return whole


def _is_too_deep(made: Fields) -> bool:
    """What was as deep as a document may be is deeper in ``as_stored``."""
    line = compact(made).encode(errors="surrogatepass")
    if line.count(b"[") + line.count(b"{") <= documents.MAX_NESTING:
        return False
    try:
        documents.parse(line)
    except InvalidDocument:
        return True
    return False


def restored(made: Fields, *, is_line: bool) -> bytes:
    """The document that an object was made of; an object of other origin is a document as it is.

    Raises:
        InvalidDocument: the field ``threadfs`` is not as we write it.
    """
    fields = dict(made)
    own = fields.pop(OWN_FIELD, None)
    if isinstance(own, dict) and isinstance(own.get("text"), str):
        return str(own["text"]).encode(errors="surrogatepass")
    if own is not None:
        try:
            given = {**fields, **own["as_stored"]}
            fields = {name: given[name] for name in own["fields"]}
        except (KeyError, TypeError):
            raise InvalidDocument(f"{OWN_FIELD}: not as an export writes it") from None
    layout: Fields = {"separators": (",", ":")} if is_line else {"indent": 2}
    return json.dumps(fields, ensure_ascii=False, **layout).encode(errors="surrogatepass")


def line_of(made: Fields) -> bytes:
    """An object as a line of JSON Lines. Raises InvalidDocument."""
    try:
        return json.dumps(made, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:
        raise InvalidDocument("a text holds half of a surrogate pair, which is not UTF-8") from None
    except RecursionError:
        raise InvalidDocument("nested too deeply") from None


def marked_as_last(line: bytes) -> bytes:
    """The line, not a strict one, with the mark of the last of a thread; `OWN_FIELD` is at its end."""
    return line.removesuffix(b"}}\n") + b',"last":true}}\n'


def is_last(made: Fields) -> bool:
    own = made.get(OWN_FIELD)
    return isinstance(own, dict) and own.get("last") is True


def parsed(line: bytes) -> Fields:
    """The object in a line of an export. Raises InvalidDocument."""
    made = documents.parse(line)
    kind = made.get("object")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidDocument(f"object: {kind!r:.80} is none of {', '.join(KINDS)}")
    return made
