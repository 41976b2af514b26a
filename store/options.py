"""What a run may say about how it is to be answered, as ``start`` takes it.

They stay in the Run as they were given, after the fields of the format. A run that another program made may
have anything there, so they are checked when they are taken, and again when they are used.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, StrictFloat, StrictInt, StrictStr

from store.models import Document, Run

_Number = Annotated[StrictInt | StrictFloat, Field(ge=0, le=2)]
_Fraction = Annotated[StrictInt | StrictFloat, Field(ge=0, le=1)]
_Count = Annotated[StrictInt, Field(ge=1)]


class TruncationStrategy(Document):
    """``last_messages``: the prompt has the last *last_messages* of the log at most."""

    type: Literal["auto", "last_messages"] = "auto"
    last_messages: _Count | None = None


class Function(Document):
    name: StrictStr


class Tool(Document):
    """A function as OpenAI describes it: ``description``, ``parameters`` and whatever else are passed on."""

    type: Literal["function"]
    function: Function


class RunOptions(Document):
    """The options of a run; unknown ones are refused. ``None`` and ``model`` ``""`` stand for the default."""

    model_config = ConfigDict(extra="forbid")

    model: StrictStr = ""
    instructions: StrictStr | None = None
    temperature: _Number | None = None
    top_p: _Fraction | None = None
    stop: StrictStr | list[StrictStr] | None = None
    seed: StrictInt | None = None
    max_completion_tokens: _Count | None = None
    truncation_strategy: TruncationStrategy | None = None
    tools: list[Tool] | None = None

    optional_fields: ClassVar[frozenset[str]] = frozenset(
        {
            "instructions",
            "temperature",
            "top_p",
            "stop",
            "seed",
            "max_completion_tokens",
            "truncation_strategy",
            "tools",
        }
    )

    def run(self) -> Run:
        """A new run with these options."""
        return Run.of({**Run().fields(), **self.fields()})


def options_of(run: Run) -> RunOptions:
    """The options of a stored *run*. Raises InvalidDocument with the name of the wrong one and the reason."""
    fields: dict[str, Any] = run.fields()
    return RunOptions.of({name: fields[name] for name in RunOptions.model_fields if name in fields})
