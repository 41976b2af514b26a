"""Documents as bytes: parsing strictly, writing in the layout of ``FORMAT.md``, merge patches."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from store.errors import InvalidDocument

if TYPE_CHECKING:  # The models take longer to import than all else.
    from store.models import Document

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
MAX_LINE_BYTES = 16 * 1024 * 1024
# Objects and lists in one another. Real documents have less than ten. Without this limit, the depth of the
# call stack would decide which documents Python can parse and write.
MAX_NESTING = 128

# A text, or what opens or closes an object or a list.
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def _no_constant(name: str) -> Any:
    raise InvalidDocument(f"{name} is not JSON")


def _finite(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise InvalidDocument(f"the number {literal[:40]} is too large")
    return value


_decode = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite).decode


def _check_nesting(data: bytes) -> None:
    """Raises InvalidDocument when *data*, which may or may not be JSON, is nested too deeply."""
    if data.count(b"[") + data.count(b"{") <= MAX_NESTING:
        return
    depth = 0
    for token in _TOKENS.finditer(data):
        byte = token.group()
        if byte in b"[{":
            depth += 1
            if depth > MAX_NESTING:
                raise InvalidDocument(f"nested more than {MAX_NESTING} deep")
        elif byte in b"]}":
            depth -= 1


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object in *data*. Of duplicate keys the last wins; NaN and Infinity are refused.

    Raises:
        InvalidDocument: not UTF-8, not JSON, not an object, or nested too deeply.
    """
    _check_nesting(data)
    try:
        value = _decode(data.decode())
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidDocument(_where_not_json(error)) from None
    except ValueError:
        raise InvalidDocument(_TOO_MANY_DIGITS) from None
    if not isinstance(value, dict):
        raise InvalidDocument("not a JSON object, which starts with '{'")
    return value


def why_no_beginning(data: bytes) -> str:
    """Why *data*, which cannot be the beginning of JSON, cannot, in words."""
    try:
        # A character of which only a part is there yet is one.
        decoder = codecs.getincrementaldecoder("utf-8")()
        text = decoder.decode(data) + ("\ufffd" if decoder.getstate()[0] else "")
        _decode(text)
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start}"
    except InvalidDocument as error:
        return str(error)
    except json.JSONDecodeError as error:
        is_at_end = error.pos >= len(text.rstrip()) and error.msg.startswith("Expecting")
        if not is_at_end and error.msg != "Unterminated string starting at":
            return _where_not_json(error)
    except ValueError:
        return _TOO_MANY_DIGITS
    # Python's parser finds nothing but the end, and takes what no other does.
    return _HALF_A_PAIR


def _where_not_json(error: json.JSONDecodeError) -> str:
    reason = _NOT_JSON.get(error.msg, error.msg.removesuffix(" at"))
    # The line of a log has its number from elsewhere.
    line = f"line {error.lineno}, " if "\n" in error.doc else ""
    return f"not JSON: {reason} at {line}column {error.colno}"


# The errors of Python's parser, in words that a place can follow.
_NOT_JSON = {
    "Expecting value": "a value is missing",
    "Expecting property name enclosed in double quotes": "a name in double quotes is missing",
    "Expecting ':' delimiter": "':' is missing",
    "Expecting ',' delimiter": "',' is missing",
    "Illegal trailing comma before end of object": "a comma too many",
    "Illegal trailing comma before end of array": "a comma too many",
    "Invalid control character at": "a control character that is not escaped",
    "Unterminated string starting at": "no end of the text that begins",
    "Invalid \\escape": "an unknown escape",
    "Invalid \\escape: ": "an unknown escape",
    "Invalid \\uXXXX escape": "a broken escape",
    "Extra data": "more follows the document",
}
_TOO_MANY_DIGITS = "not JSON that can be kept: a number has too many digits"
_HALF_A_PAIR = "a text holds half of a surrogate pair, which is not UTF-8"


# The encoder in C, which knows no indentation, and the slower one, which does.
_compact = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_indented = json.JSONEncoder(ensure_ascii=False, allow_nan=False, indent=2).encode
# The first one, with a line for each field, for objects that hold no others.
_flat = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",\n  ", ": ")).encode


def _encoded(encode: Callable[[dict[str, Any]], str], document: Document) -> bytes:
    try:
        data = encode(document.fields()).encode()
    except UnicodeEncodeError:
        raise InvalidDocument(_HALF_A_PAIR) from None
    except RecursionError:
        raise InvalidDocument(f"nested more than {MAX_NESTING} deep") from None
    except (TypeError, ValueError):
        raise InvalidDocument("cannot be written as JSON: it holds what JSON has no form for") from None
    _check_nesting(data)
    return data


def _in_lines(fields: dict[str, Any]) -> str:
    """*fields* as the slower encoder writes them; only fields that hold others need it."""
    if any(value and isinstance(value, (dict, list)) for value in fields.values()):
        return "{\n" + ",\n".join(f"  {_compact(name)}: {_value(fields[name])}" for name in fields) + "\n}"
    return "{\n  " + _flat(fields)[1:-1] + "\n}"


def _value(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return _indented(value).replace("\n", "\n  ")  # Within texts a newline is written as an escape.
    return _compact(value)


def pretty(document: Document) -> bytes:
    """A stored document: two spaces of indentation, no newline at the end."""
    data = _encoded(_in_lines, document)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidDocument(f"larger than {MAX_DOCUMENT_BYTES} bytes")
    return data


def line(document: Document) -> bytes:
    """A line of a message log, with the newline that ends it."""
    data = _encoded(_compact, document) + b"\n"
    if len(data) > MAX_LINE_BYTES:
        raise InvalidDocument(f"a message has at most {MAX_LINE_BYTES} bytes")
    return data


def in_line(text: str) -> bytes:
    """*text* as it is spelled within a line: what to search a log for before its lines are parsed."""
    return _compact(text)[1:-1].encode()


# Marks a number as text while `as_given` compares layouts. A private-use character: a document that holds
# it is at worst written anew in the same layout.
_NUMBER = "\ue000"


def as_given(given: bytes, document: Document, layout: Callable[[Document], bytes] = pretty) -> bytes:
    """The bytes to store for a whole *document* that was *given* as bytes.

    A document that is in the layout already is stored byte for byte, with the numbers spelled as they
    were (``1e16``, which Python would write ``1e+16``); any other is laid out anew.
    """
    laid_out = layout(document)
    if given == laid_out:
        return laid_out
    spelled = json.loads(given, parse_float=lambda literal: _NUMBER + literal)
    try:
        same_layout = layout(type(document).of({**spelled, **_identity(document)}))
    except InvalidDocument:
        return laid_out
    parts = same_layout.decode().split(f'"{_NUMBER}')
    text = parts[0] + "".join(part.replace('"', "", 1) for part in parts[1:])
    return given if text.encode() == given else laid_out


def _identity(document: Document) -> dict[str, Any]:
    fields = document.fields()
    return {name: fields[name] for name in ("id", "object", "thread_id", "run_id") if name in fields}


def merge_patch(target: Any, patch: Any, depth: int = 0) -> Any:
    """*target* after a JSON Merge Patch (https://www.rfc-editor.org/rfc/rfc7396); neither is changed."""
    if depth > MAX_NESTING:
        raise InvalidDocument(f"nested more than {MAX_NESTING} deep")
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value, depth + 1)
    return merged
