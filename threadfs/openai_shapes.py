"""What OpenAI's types accept, as far as a stored document may hold it.

A shape says whether a value of JSON is what a type of the ``openai`` package accepts, strictly and with no
field that it does not have. That package is too large to need for an export; the tests compare with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Shape: TypeAlias = Callable[[Any], bool]


def is_text(value: Any) -> bool:
    return type(value) is str


def is_whole(value: Any) -> bool:
    return type(value) is int


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def is_truth(value: Any) -> bool:
    return type(value) is bool


def is_object(value: Any) -> bool:
    return type(value) is dict


def one_of(*words: str) -> Shape:
    return lambda value: is_text(value) and value in words


def any_of(*shapes: Shape) -> Shape:
    return lambda value: any(shape(value) for shape in shapes)


def or_null(shape: Shape) -> Shape:
    return lambda value: value is None or shape(value)


def list_of(shape: Shape) -> Shape:
    return lambda value: type(value) is list and all(shape(item) for item in value)


def record(needed: dict[str, Shape], **optional: Shape) -> Shape:
    """An object with the *needed* fields, perhaps the *optional* ones, and no others."""
    fields = needed | optional

    def accepts(value: Any) -> bool:
        return (
            type(value) is dict
            and needed.keys() <= value.keys() <= fields.keys()
            and all(fields[name](item) for name, item in value.items())
        )

    return accepts


def tagged(kind: str, **fields: Shape) -> Shape:
    """An object whose ``type`` is *kind*, with these fields."""
    return record({"type": one_of(kind), **fields})


_TEXTS = or_null(list_of(is_text))
_DETAIL = or_null(one_of("auto", "low", "high"))
_FILE = record({"file_id": is_text})

ANNOTATION = any_of(
    tagged("file_citation", text=is_text, file_citation=_FILE, start_index=is_whole, end_index=is_whole),
    tagged("file_path", text=is_text, file_path=_FILE, start_index=is_whole, end_index=is_whole),
)
BLOCK = any_of(
    tagged("text", text=record({"value": is_text, "annotations": list_of(ANNOTATION)})),
    tagged("image_file", image_file=record({"file_id": is_text}, detail=_DETAIL)),
    tagged("image_url", image_url=record({"url": is_text}, detail=_DETAIL)),
    tagged("refusal", refusal=is_text),
)
ATTACHMENTS = or_null(
    list_of(
        record(
            {},
            file_id=or_null(is_text),
            tools=or_null(list_of(any_of(tagged("code_interpreter"), tagged("file_search")))),
        )
    )
)
INCOMPLETE_MESSAGE = record(
    {"reason": one_of("content_filter", "max_tokens", "run_cancelled", "run_expired", "run_failed")}
)
INCOMPLETE_RUN = record({}, reason=or_null(one_of("max_completion_tokens", "max_prompt_tokens")))
TOOL_RESOURCES = record(
    {},
    code_interpreter=or_null(record({}, file_ids=_TEXTS)),
    file_search=or_null(record({}, vector_store_ids=_TEXTS)),
)
USAGE = record({"completion_tokens": is_whole, "prompt_tokens": is_whole, "total_tokens": is_whole})
TRUNCATION = record({"type": one_of("auto", "last_messages")}, last_messages=or_null(is_whole))
TOOLS = list_of(
    any_of(
        tagged("code_interpreter"),
        tagged("file_search"),
        tagged(
            "function",
            function=record(
                {"name": is_text},
                description=or_null(is_text),
                parameters=or_null(is_object),
                strict=or_null(is_truth),
            ),
        ),
    )
)
TOOL_CHOICE = any_of(
    one_of("none", "auto", "required"),
    record(
        {"type": one_of("function", "code_interpreter", "file_search")},
        function=or_null(record({"name": is_text})),
    ),
)
RESPONSE_FORMAT = any_of(one_of("auto"), tagged("text"), tagged("json_object"))
_FUNCTION: dict[str, Shape] = {"name": is_text, "arguments": is_text}
REQUIRED_ACTION = tagged(
    "submit_tool_outputs",
    submit_tool_outputs=record(
        {
            "tool_calls": list_of(
                record({"id": is_text, "type": one_of("function"), "function": record(_FUNCTION)})
            )
        }
    ),
)
TOOL_CALL = any_of(
    tagged("function", id=is_text, function=record(_FUNCTION, output=or_null(is_text))),
    tagged(
        "code_interpreter",
        id=is_text,
        code_interpreter=record(
            {
                "input": is_text,
                "outputs": list_of(
                    any_of(tagged("logs", logs=is_text), tagged("image", image=_FILE)),
                ),
            }
        ),
    ),
    tagged("file_search", id=is_text, file_search=record({})),
)
