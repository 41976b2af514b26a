"""A store of assistant conversations: persistence and validation, and nothing of FUSE.

`ThreadStore` keeps a directory; ``store.api.Store`` says what any store offers.
"""

from store.api import DocumentKey, Info, RunContents, Store
from store.disk import ThreadStore
from store.errors import (
    AlreadyExists,
    Damaged,
    InvalidDocument,
    InvalidName,
    NotEmpty,
    NotFound,
    RunInProgress,
    RunInTerminalState,
    RunNotFound,
    RunStepInTerminalState,
    RunStepNotFound,
    StatusChanged,
    StorageFailed,
    StoreError,
    ThreadNotFound,
)
from store.models import (
    ContentBlock,
    MessageCreationStepDetails,
    MessageRole,
    Run,
    RunError,
    RunStatus,
    RunStep,
    RunStepStatus,
    RunStepType,
    TextContent,
    Thread,
    ThreadMessage,
)

__all__ = [
    "AlreadyExists",
    "ContentBlock",
    "Damaged",
    "DocumentKey",
    "Info",
    "InvalidDocument",
    "InvalidName",
    "MessageCreationStepDetails",
    "MessageRole",
    "NotEmpty",
    "NotFound",
    "Run",
    "RunContents",
    "RunError",
    "RunInProgress",
    "RunInTerminalState",
    "RunNotFound",
    "RunStatus",
    "RunStep",
    "RunStepInTerminalState",
    "RunStepNotFound",
    "RunStepStatus",
    "RunStepType",
    "StatusChanged",
    "StorageFailed",
    "Store",
    "StoreError",
    "TextContent",
    "Thread",
    "ThreadMessage",
    "ThreadNotFound",
    "ThreadStore",
]
