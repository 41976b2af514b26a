"""A store of assistant conversations: persistence and validation, and nothing of FUSE.

`ThreadStore` keeps a directory; ``store.api.Store`` says what any store offers.

What is named here is imported when it is first asked for. The models take longer than a shell may take to
complete a word, and not every module of this package needs them.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from store.api import DocumentKey, Info, RunContents, Store, Times
    from store.changes import Change, Part, Watch
    from store.disk.thread_store import ThreadStore
    from store.errors import (
        AlreadyExists,
        Damaged,
        Foreign,
        InvalidDocument,
        InvalidName,
        InvalidQuery,
        ModifiedSince,
        NotEmpty,
        NotFound,
        OutputIsSet,
        RunInProgress,
        RunInTerminalState,
        RunLost,
        RunNotFound,
        RunStepInTerminalState,
        RunStepNotFound,
        RunWaits,
        StatusChanged,
        StorageFailed,
        StoreError,
        ThreadNotFound,
        ToolCallNotFound,
        Unreachable,
    )
    from store.models import (
        ContentBlock,
        MessageCreationStepDetails,
        MessageRole,
        Run,
        RunError,
        RunStep,
        RunStepType,
        TextContent,
        Thread,
        ThreadMessage,
    )
    from store.statuses import RunStatus, RunStepStatus
    from store.waiting import WouldWait, without_waiting

__all__ = [
    "AlreadyExists",
    "Change",
    "ContentBlock",
    "Damaged",
    "DocumentKey",
    "Foreign",
    "Info",
    "InvalidDocument",
    "InvalidName",
    "InvalidQuery",
    "MessageCreationStepDetails",
    "MessageRole",
    "ModifiedSince",
    "NotEmpty",
    "NotFound",
    "OutputIsSet",
    "Part",
    "Run",
    "RunContents",
    "RunError",
    "RunInProgress",
    "RunInTerminalState",
    "RunLost",
    "RunNotFound",
    "RunStatus",
    "RunStep",
    "RunStepInTerminalState",
    "RunStepNotFound",
    "RunStepStatus",
    "RunStepType",
    "RunWaits",
    "StatusChanged",
    "StorageFailed",
    "Store",
    "StoreError",
    "TextContent",
    "Thread",
    "ThreadMessage",
    "ThreadNotFound",
    "ThreadStore",
    "Times",
    "ToolCallNotFound",
    "Unreachable",
    "Watch",
    "WouldWait",
    "without_waiting",
]

# Where it is, those first that import little.
_MODULES = ("errors", "statuses", "waiting", "changes", "api", "models", "disk.thread_store")

if not TYPE_CHECKING:

    def __getattr__(name):
        from importlib import import_module

        if name in __all__:
            for module in _MODULES:
                found = vars(import_module(f"store.{module}"))
                if name in found:
                    globals()[name] = found[name]
                    return found[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
