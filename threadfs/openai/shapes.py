"""The types of the ``openai`` package, as far as stored documents need them.

A shape converts a JSON value to one that a type of that package accepts in strict mode: it returns the value
itself, the value without the parts that do not fit, or `UNFIT`. The package is too large a dependency for an
export; the tests compare the shapes with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

Shape: TypeAlias = Callable[[Any], Any]

# The result of a shape for a value that does not fit at all.
UNFIT: Final = object()


def _of_type(*types: type) -> Shape:
    return lambda value: value if type(value) in types else UNFIT


text = _of_type(str)
whole = _of_type(int)
truth = _of_type(bool)
any_object = _of_type(dict)


def number(value: Any) -> Any:
    """A number that a float can represent exactly."""
    return value if type(value) is float or (type(value) is int and abs(value) <= 2**53) else UNFIT


def one_of(*words: str) -> Shape:
    return lambda value: value if type(value) is str and value in words else UNFIT


def any_of(*shapes: Shape) -> Shape:
    """The result of the first shape that fits."""
    return lambda value: next((result for shape in shapes if (result := shape(value)) is not UNFIT), UNFIT)


def or_null(shape: Shape) -> Shape:
    return lambda value: None if value is None else shape(value)


def list_of(shape: Shape) -> Shape:
    """A list of the items that fit."""

    def fitted(value: Any) -> Any:
        if type(value) is not list:
            return UNFIT
        return [result for item in value if (result := shape(item)) is not UNFIT]

    return fitted


def record(needed: dict[str, Shape], **optional: Shape) -> Shape:
    """An object with the *needed* fields, the *optional* fields that fit, and no others."""
    fields = needed | optional

    def fitted(value: Any) -> Any:
        if type(value) is not dict:
            return UNFIT
        results = {name: fields[name](item) for name, item in value.items() if name in fields}
        fitting = {name: item for name, item in results.items() if item is not UNFIT}
        return fitting if needed.keys() <= fitting.keys() else UNFIT

    return fitted


def tagged(kind: str, optional: dict[str, Shape] | None = None, **needed: Shape) -> Shape:
    """An object whose ``type`` is *kind*, with these fields."""
    return record({"type": one_of(kind), **needed}, **(optional or {}))


_TEXTS = or_null(list_of(text))
_DETAIL = or_null(one_of("auto", "low", "high"))
_FILE = record({"file_id": text})

ANNOTATION = any_of(
    tagged("file_citation", text=text, file_citation=_FILE, start_index=whole, end_index=whole),
    tagged("file_path", text=text, file_path=_FILE, start_index=whole, end_index=whole),
)
BLOCK = any_of(
    tagged("text", text=record({"value": text, "annotations": list_of(ANNOTATION)})),
    tagged("image_file", image_file=record({"file_id": text}, detail=_DETAIL)),
    tagged("image_url", image_url=record({"url": text}, detail=_DETAIL)),
    tagged("refusal", refusal=text),
)
ATTACHMENTS = or_null(
    list_of(
        record(
            {},
            file_id=or_null(text),
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
# OpenAI's server sends the details under either name; no type declares them.
USAGE = record(
    {"completion_tokens": whole, "prompt_tokens": whole, "total_tokens": whole},
    prompt_token_details=or_null(any_object),
    prompt_tokens_details=or_null(any_object),
    completion_token_details=or_null(any_object),
    completion_tokens_details=or_null(any_object),
)
TRUNCATION = record({"type": one_of("auto", "last_messages")}, last_messages=or_null(whole))
_RANKER = one_of("auto", "default_2024_08_21")
TOOLS = list_of(
    any_of(
        tagged("code_interpreter"),
        tagged(
            "file_search",
            {
                "file_search": or_null(
                    record(
                        {},
                        max_num_results=or_null(whole),
                        ranking_options=or_null(record({"score_threshold": number}, ranker=or_null(_RANKER))),
                    )
                )
            },
        ),
        tagged(
            "function",
            function=record(
                {"name": text},
                description=or_null(text),
                parameters=or_null(any_object),
                strict=or_null(truth),
            ),
        ),
    )
)
TOOL_CHOICE = any_of(
    one_of("none", "auto", "required"),
    record(
        {"type": one_of("function", "code_interpreter", "file_search")},
        function=or_null(record({"name": text})),
    ),
)
RESPONSE_FORMAT = any_of(
    one_of("auto"),
    tagged("text"),
    tagged("json_object"),
    tagged(
        "json_schema",
        json_schema=record(
            {"name": text},
            description=or_null(text),
            schema=or_null(any_object),
            strict=or_null(truth),
        ),
    ),
)
_FUNCTION: dict[str, Shape] = {"name": text, "arguments": text}
REQUIRED_ACTION = tagged(
    "submit_tool_outputs",
    submit_tool_outputs=record(
        {
            "tool_calls": list_of(
                record({"id": text, "type": one_of("function"), "function": record(_FUNCTION)})
            )
        }
    ),
)
TOOL_CALL = any_of(
    tagged("function", id=text, function=record(_FUNCTION, output=or_null(text))),
    tagged(
        "code_interpreter",
        id=text,
        code_interpreter=record(
            {
                "input": text,
                "outputs": list_of(
                    any_of(tagged("logs", logs=text), tagged("image", image=_FILE)),
                ),
            }
        ),
    ),
    tagged(
        "file_search",
        id=text,
        file_search=record(
            {},
            ranking_options=or_null(record({"ranker": _RANKER, "score_threshold": number})),
            results=or_null(
                list_of(
                    record(
                        {"file_id": text, "file_name": text, "score": number},
                        content=or_null(
                            list_of(record({}, text=or_null(text), type=or_null(one_of("text"))))
                        ),
                    )
                )
            ),
        ),
    ),
)
