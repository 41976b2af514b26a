"""Conversations on their way into a store.

Each source is a module of its own with two functions: ``is_mine(value)`` says whether a JSON value begins a
file of it, ``conversations(items, file)`` makes `Conversation`s of the values in such a file. What is common
stands once:

    files, containers   FILEs, zips, directories, stdin
    pieces              large JSON, one value after the other
    recognising         which source a file is of, or what it looks like
    databases           SQLite files, from a copy
    zstd                files that are packed
    reader              ids for parts of sources that have none
    trees               the visible path of a tree, and the others
    conversations       what a source makes, and as which documents it is stored
    merging             comparing with what is stored, and extending that
    attached            the bytes of files, with ``--files``
    session             one import, from FILEs to the summary
"""

from __future__ import annotations

# How the ids of each source begin, and its module. They are asked in this order whether a file is theirs.
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
