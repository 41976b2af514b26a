"""`threadfs export --strict`: of objects that OpenAI's types accept no field is lost."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.cli.test_export_import import as_json, exported, imported, openai_types, validated

# ── Any object that the types accept ────────────────────────────────────────────────────────────────────

text = st.text(st.characters(codec="utf-8"), max_size=6)
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    str: text,
    int: st.integers(0, 2**40),
    float: st.floats(0, 1),
    bool: st.booleans(),
    NoneType: st.none(),
    object: st.recursive(
        st.none() | text | st.integers(), lambda items: st.lists(items, max_size=2), max_leaves=3
    ),
}


@cache
def accepted_by(kind: Any) -> st.SearchStrategy[Any]:
    """JSON of a type of the package, with all that its fields may hold."""
    if kind in SIMPLE:
        return SIMPLE[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return accepted_by(arguments[0])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, UnionType):
        return st.one_of([accepted_by(argument) for argument in arguments])
    if origin is list:
        return st.lists(accepted_by(arguments[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(text, accepted_by(arguments[1]), max_size=2)
    assert issubclass(kind, BaseModel), kind
    fields = {
        field.alias or name: (accepted_by(field.annotation), field.is_required())
        for name, field in kind.model_fields.items()
    }
    return st.fixed_dictionaries(
        {name: made for name, (made, is_required) in fields.items() if is_required},
        optional={name: made for name, (made, is_required) in fields.items() if not is_required},
    )


IDENTITY = {
    "thread": {"id": "T"},
    "thread.message": {"id": "M", "thread_id": "T"},
    "thread.run": {"id": "R", "thread_id": "T"},
    "thread.run.step": {"id": "S", "thread_id": "T", "run_id": "R"},
}


@st.composite
def objects(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A thread, a message, a run and a step of it, as OpenAI might have sent them."""
    made = [{**draw(accepted_by(openai_types()[kind])), **identity} for kind, identity in IDENTITY.items()]
    made[-1]["type"] = made[-1]["step_details"]["type"]  # Which the types do not connect.
    return made


@pytest.fixture(scope="module", autouse=True)
def _imported_types() -> None:
    openai_types()  # Not within the time of an example.


@settings(deadline=None, max_examples=100)
@given(objects())
def test_every_field_that_openais_types_accept_comes_back(given_objects: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        lines = exported(imported([as_json(made) for made in given_objects], directory), strict=True)
    for line, made in zip(lines, given_objects, strict=True):
        validated(line)
        assert json.loads(line) == {**json.loads(line), **made}


# ── What is easily forgotten ────────────────────────────────────────────────────────────────────────────

THREAD = {"id": "T", "object": "thread", "created_at": 1}
RUN = {
    "id": "R",
    "object": "thread.run",
    "created_at": 2,
    "thread_id": "T",
    "status": "completed",
    "model": "m",
}
STEP = {**RUN, "id": "S", "object": "thread.run.step", "run_id": "R", "type": "tool_calls"}
TOKENS = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


def strictly(*made: dict[str, Any]) -> dict[str, Any]:
    """The last object after it was imported and exported with the others."""
    with tempfile.TemporaryDirectory() as directory:
        lines = exported(imported([as_json(one) for one in made], directory), strict=True)
    validated(lines[-1])
    last: dict[str, Any] = json.loads(lines[-1])
    return last


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (
            "tools",
            [
                {
                    "type": "file_search",
                    "file_search": {
                        "max_num_results": 5,
                        "ranking_options": {"ranker": "auto", "score_threshold": 0.5},
                    },
                }
            ],
        ),
        (
            "response_format",
            {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}},
            },
        ),
        ("usage", {**TOKENS, "prompt_token_details": {"cached_tokens": 4}}),
        (
            "usage",
            {
                **TOKENS,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 1},
            },
        ),
    ],
)
def test_what_a_run_was_told_and_took_is_kept(name: str, value: Any) -> None:
    assert strictly(THREAD, {**RUN, name: value})[name] == value


def test_the_results_of_a_file_search_are_kept() -> None:
    found = {
        "file_id": "f",
        "file_name": "a.txt",
        "score": 0.9,
        "content": [{"type": "text", "text": "Oslo"}],
    }
    search = {"ranking_options": {"ranker": "default_2024_08_21", "score_threshold": 0.0}, "results": [found]}
    details = {
        "type": "tool_calls",
        "tool_calls": [{"id": "c", "type": "file_search", "file_search": search}],
    }
    assert strictly(THREAD, RUN, {**STEP, "step_details": details})["step_details"] == details


def test_a_field_that_the_types_do_not_have_costs_nothing_but_itself() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    run = {**RUN, "usage": {**TOKENS, "price": 0.1}, "tools": [{**tool, "icon": "x"}, {"type": "browser"}]}
    made = strictly(THREAD, run)
    assert made["usage"] == TOKENS
    assert made["tools"] == [tool]
