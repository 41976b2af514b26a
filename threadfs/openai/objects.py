"""The documents of a store as objects that OpenAI's own types accept, and back without loss.

A stored document may have fewer fields than OpenAI's types need (a run without ``instructions``), other names
(``step_type``), or more (its own fields, metadata that are not strings). `exported` fills in, translates and
leaves out until OpenAI's types accept it. A field ``threadfs`` holds the rest:

    {"id": "run_1", …, "instructions": "", …,
     "threadfs": {"fields": ["id", "object", "created_at", …], "as_stored": {"priority": 3}}}

``fields`` lists the fields of the stored document in their order; values that differ are in ``as_stored``.
If these do not restore the same bytes (numbers like ``1e2``), ``text`` is the document itself. The last
object of a thread also has ``"last": true``: an export without it was cut off.
"""

from __future__ import annotations

import json

from store import documents
from store.errors import InvalidDocument
from threadfs.openai.translation import KINDS, Fields, compact, translated

OWN_FIELD = "threadfs"


def exported(fields: Fields, text: str, *, is_line: bool, strict: bool = False) -> Fields:
    """The object for a stored document with these *fields*, whose ids are those of its path.

    Args:
        text: the document as it is stored.
        is_line: it is a line of a log, not a document of its own.
        strict: leave out what OpenAI's types do not have.
    """
    theirs = translated(fields)
    if strict:
        return theirs
    as_stored = {
        name: value
        for name, value in fields.items()
        if name not in theirs or compact(theirs[name]) != compact(value)
    }
    whole = {**theirs, OWN_FIELD: {"fields": list(fields), "as_stored": as_stored}}
    if _is_too_deep(whole) or restored(whole, is_line=is_line) != text.encode(errors="surrogatepass"):
        return {**theirs, OWN_FIELD: {"text": text}}
    return whole


def _is_too_deep(exported: Fields) -> bool:
    """Whether ``as_stored`` nests a document beyond the limit for documents."""
    line = compact(exported).encode(errors="surrogatepass")
    if line.count(b"[") + line.count(b"{") <= documents.MAX_NESTING:
        return False
    try:
        documents.parse(line)
    except InvalidDocument:
        return True
    return False


def restored(exported: Fields, *, is_line: bool) -> bytes:
    """The document from which an object was exported; another program's object is a document itself.

    Raises:
        InvalidDocument: the field ``threadfs`` is not as an export writes it.
    """
    fields = dict(exported)
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


def line_of(exported: Fields) -> bytes:
    """An object as a line of JSON Lines. Raises InvalidDocument."""
    try:
        text = json.dumps(exported, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        raise InvalidDocument("a text holds half of a surrogate pair, which is not UTF-8") from None
    except RecursionError:
        raise InvalidDocument("nested too deeply") from None


def marked_as_last(line: bytes) -> bytes:
    """The line of a thread's last object, which ends with `OWN_FIELD` (it is not strict), with its mark."""
    return line.removesuffix(b"}}\n") + b',"last":true}}\n'


def is_last(exported: Fields) -> bool:
    own = exported.get(OWN_FIELD)
    return isinstance(own, dict) and own.get("last") is True


def parsed(line: bytes) -> Fields:
    """The object in a line of an export. Raises InvalidDocument."""
    fields = documents.parse(line)
    kind = fields.get("object")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidDocument(f"object: {kind!r:.80} is none of {', '.join(KINDS)}")
    return fields
