"""A thread as a line of ShareGPT: ``{"id": …, "system": …, "conversations": [{"from": …, "value": …}]}``.

A call is ``function_call``, with ``{"name": …, "arguments": …}`` as its value, and what it gave
``observation``. The form has texts alone: pictures are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from store import MessageRole, Thread
from threadfs.exporting.turns import Call, Calls, Fields, Turn, instructions_of, json_line

_FROM = {MessageRole.user: "human", MessageRole.assistant: "gpt"}


def line(thread: Thread, turns: Iterable[Turn]) -> bytes | None:
    """``None`` for a thread in which nothing was said or called."""
    told: list[Fields] = []
    for turn in turns:
        if isinstance(turn, Calls):
            for call in turn.calls:
                told.append({"from": "function_call", "value": _call(call)})
                told.append({"from": "observation", "value": call.output})
        elif turn.text.strip():
            told.append({"from": _FROM[turn.role], "value": turn.text})
    if not told:
        return None
    instructions = instructions_of(thread)
    return json_line(
        {"id": thread.id} | ({"system": instructions} if instructions else {}) | {"conversations": told}
    )


def _call(call: Call) -> str:
    """Arguments that are an object stand there as one."""
    try:
        arguments = json.loads(call.arguments)
        value = json.dumps({"name": call.name, "arguments": arguments}, ensure_ascii=False)
        value.encode()  # Fails for half of a surrogate pair, which an escape in a text can be.
    except (ValueError, RecursionError):
        arguments = None
    if isinstance(arguments, dict):
        return value
    return json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
