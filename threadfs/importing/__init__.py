"""Conversations on their way into a store.

Each source is a module of its own with two functions: ``is_mine(value)`` says whether a JSON value begins a
file of it, ``conversations(items, file)`` makes `Conversation`s of the values in such a file. What is common
stands once:

    files, containers   FILEs, zips, directories, stdin
    pieces              large JSON, one value after the other
    recognising         whose a file is, and what it looks like if nobody's
    trees               the visible path of a tree, and the others
    conversations       what a source makes, and as which documents it is stored
    merging             comparing with what is stored, and extending that
    attached            the bytes of files, with ``--files``
    session             one import, from FILEs to the summary
"""

from __future__ import annotations

# Each source, by the name that its ids begin with, and its module. The first that says yes has a file.
SOURCES = {
    "chatgpt": "chatgpt",
    "claude": "claude",
    "claude-code": "claude_code",
    "codex": "codex",
    "openwebui": "openwebui",
    "librechat": "librechat",
    "lmstudio": "lmstudio",
    "llm": "llm",
    "sharegpt": "sharegpt",
    "chat": "chat",
    "openai": "openai_objects",
}
