"""The documents: threads, messages, runs, run steps.

A model is what ``FORMAT.md`` calls a document. Fields a model does not know are kept, in the order found,
after those it knows. Models are made with keywords and fill in what can be derived::

    Run(model="llama3")        # a new id, created now, queued
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from store import names
from store.errors import InvalidDocument
from store.statuses import RunStatus, RunStepStatus


def now_s() -> int:
    """Now, in whole Unix seconds: the format's unit of time."""
    return int(time.time())


class RunStepType(StrEnum):
    message_creation = "message_creation"
    tool_calls = "tool_calls"


class MessageRole(StrEnum):
    user = "user"
    assistant = "assistant"


# The range of a time in other programs of this format.
Time: TypeAlias = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
TimeOfStep: TypeAlias = Annotated[StrictInt, Field(ge=0, lt=2**64)]


class Document(BaseModel):
    """The base of all documents: order of fields, unknown fields, null and absent."""

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    # Fields that are left out when they are null.
    optional_fields: ClassVar[frozenset[str]] = frozenset()
    # Fields that a stored document must hold: those that its path and the format cannot supply.
    required_fields: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """The model of a parsed JSON object.

        Raises:
            InvalidDocument: with the first wrong field and the reason.
        """
        for name in cls.required_fields:
            if name not in fields:
                raise InvalidDocument(f"{name}: missing")
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidDocument(_in_words(error.errors(include_url=False)[0])) from None
        except RecursionError:
            raise InvalidDocument("nested too deeply") from None

    def fields(self) -> dict[str, Any]:
        """The document as a JSON object, its fields in the order of the format."""
        optional = self.optional_fields
        found = {
            name: value if type(value) in _SCALARS else _plain(value)
            for name, value in self.__dict__.items()
            if value is not None or name not in optional
        }
        if self.__pydantic_extra__:
            found.update(self.__pydantic_extra__)
        return found

    def extra(self, name: str) -> Any:
        """The value of a field that the model does not know; ``None`` when it is null or not there."""
        return (self.__pydantic_extra__ or {}).get(name)

    def with_extra(self, **values: Any) -> Self:
        """A copy with other values of fields that the model does not know; ``None`` removes one."""
        changed = self.model_copy()
        extra = {**(self.__pydantic_extra__ or {}), **values}
        changed.__pydantic_extra__ = {
            name: value for name, value in extra.items() if value is not None or name not in values
        }
        return changed

    def left_out(self) -> str | None:
        """A field that the format requires and that was not given, with its path; it has been filled in."""
        for name, value in self.__dict__.items():
            if name not in self.model_fields_set and name not in self.optional_fields:
                return name
            for place, item in _documents_in(name, value):
                if found := item.left_out():
                    return f"{place}.{found}"
        return None


_SCALARS = (str, int)


def _documents_in(name: str, value: Any) -> Iterator[tuple[str, Document]]:
    if isinstance(value, Document):
        yield name, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _documents_in(f"{name}.{index}", item)


# The expected value, by the type of pydantic's error.
_MUST_BE = {
    "string_type": "a text",
    "string_unicode": "a text",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dict_type": "an object",
}


def _in_words(error: ErrorDetails) -> str:
    """One line that says which field is wrong and why."""
    # A union adds the name of a class to the path.
    path = ".".join(
        str(part) for part in error["loc"] if part not in ("MessageCreationStepDetails", "dict[str,any]")
    )
    return f"{path}: {_reason(error)}" if path else _reason(error)


def _reason(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "missing"
    if kind in ("enum", "literal_error"):
        words = str(context["expected"]).replace("'", "")
        return f"must be {words}"
    if kind in ("greater_than_equal", "less_than"):
        return "is out of the range of a time"
    if kind in _MUST_BE:
        return f"must be {_MUST_BE[kind]}"
    return error["msg"]


def _plain(value: Any) -> Any:
    if isinstance(value, Document):
        return value.fields()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


class Thread(Document):
    id: StrictStr = Field(default_factory=names.new_thread_id)
    object: Literal["thread"] = "thread"
    created_at: Time = Field(default_factory=now_s)
    metadata: Any = Field(default_factory=dict)

    required_fields: ClassVar[tuple[str, ...]] = ("created_at",)


class TextContent(Document):
    value: StrictStr
    annotations: list[Any] = Field(default_factory=list)


class ContentBlock(Document):
    """A block of text; blocks of another type (``image_file``, …) are kept as found."""

    type: StrictStr = "text"
    text: TextContent | Any = None

    optional_fields: ClassVar[frozenset[str]] = frozenset({"text"})

    @field_validator("text", mode="wrap")
    @classmethod
    def _text_of_other_types_is_theirs(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        return handler(value) if info.data.get("type") == "text" else value

    @model_validator(mode="after")
    def _text_is_there(self) -> Self:
        if self.type == "text" and not isinstance(self.text, TextContent):
            raise PydanticCustomError("text", 'a block of type text must hold "text": {"value": "…"}')
        return self

    @classmethod
    def of_text(cls, value: str) -> Self:
        return cls(text=TextContent(value=value))


class ThreadMessage(Document):
    id: StrictStr = Field(default_factory=names.new_message_id)
    object: Literal["thread.message"] = "thread.message"
    created_at: Time = Field(default_factory=now_s)
    thread_id: StrictStr = ""
    role: MessageRole
    content: list[ContentBlock]
    run_id: StrictStr | None = None

    optional_fields: ClassVar[frozenset[str]] = frozenset({"run_id"})
    required_fields: ClassVar[tuple[str, ...]] = ("id", "created_at", "role", "content")

    @property
    def text(self) -> str:
        """The text of all text blocks, joined by newlines."""
        return "\n".join(block.text.value for block in self.content if isinstance(block.text, TextContent))

    @property
    def is_incomplete(self) -> bool:
        """Whether the answer is not whole; ``incomplete_details`` then has the ``reason``."""
        return bool(self.extra("status") == "incomplete")


class RunError(Document):
    code: StrictStr
    message: StrictStr


class Run(Document):
    id: StrictStr = Field(default_factory=names.new_run_id)
    object: Literal["thread.run"] = "thread.run"
    created_at: Time = Field(default_factory=now_s)
    thread_id: StrictStr = ""
    status: RunStatus = RunStatus.queued
    model: StrictStr = ""
    last_error: RunError | None = None
    started_at: StrictInt | None = None
    completed_at: StrictInt | None = None
    cancelled_at: StrictInt | None = None
    failed_at: StrictInt | None = None

    optional_fields: ClassVar[frozenset[str]] = frozenset(
        {"last_error", "started_at", "completed_at", "cancelled_at", "failed_at"}
    )
    required_fields: ClassVar[tuple[str, ...]] = ("created_at", "status")

    # The fields that threadfs adds come after those of the reference, and other programs may use the same
    # names for anything. So they are read as unknown fields are, and what is not ours counts as not there.

    @property
    def worker(self) -> str | None:
        """The worker of threadfs that holds the run, or held it last."""
        worker = self.extra("worker")
        return worker if names.is_worker_id(worker) else None

    @property
    def attempt(self) -> str | None:
        """The id of the step of the attempt under way; the same worker may begin a run again."""
        step_id = self.extra("attempt")
        return step_id if isinstance(step_id, str) else None

    @property
    def tries(self) -> int:
        """How many times a worker has begun the run, but for attempts that were handed back."""
        tries = self.extra("tries")
        return tries if type(tries) is int and tries > 0 else 0

    @property
    def asked(self) -> str | None:
        """The id of the message that the run answers; without one it answers the end of the log."""
        asked = self.extra("asked")
        return asked if isinstance(asked, str) else None


class MessageCreationStepDetails(Document):
    message_id: StrictStr


class RunStep(Document):
    id: StrictStr = Field(default_factory=names.new_step_id)
    object: Literal["thread.run.step"] = "thread.run.step"
    run_id: StrictStr = ""
    thread_id: StrictStr = ""
    step_type: RunStepType = RunStepType.message_creation
    status: RunStepStatus = RunStepStatus.in_progress
    created_at: TimeOfStep = Field(default_factory=now_s)
    completed_at: TimeOfStep | None = None
    failed_at: TimeOfStep | None = None
    error: Any = None
    step_details: MessageCreationStepDetails | dict[str, Any] | None = Field(
        default=None, union_mode="left_to_right"
    )

    optional_fields: ClassVar[frozenset[str]] = frozenset(
        {"completed_at", "failed_at", "error", "step_details"}
    )
    required_fields: ClassVar[tuple[str, ...]] = ("created_at", "status")

    # OpenAI's documents say ``type``; a step found with it keeps that spelling.
    _type_spelling: str = PrivateAttr("step_type")

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        if "step_type" in fields:
            return super().of(fields)
        if "type" not in fields:
            raise InvalidDocument("step_type: missing")
        renamed = {"step_type" if name == "type" else name: value for name, value in fields.items()}
        try:
            step = super().of(renamed)
        except InvalidDocument as error:
            raise InvalidDocument(str(error).replace("step_type: ", "type: ", 1)) from None
        step._type_spelling = "type"
        return step

    def fields(self) -> dict[str, Any]:
        found = super().fields()
        if self._type_spelling == "step_type":
            return found
        return {self._type_spelling if name == "step_type" else name: value for name, value in found.items()}
