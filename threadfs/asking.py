"""What a question is made of: the message, and the run that answers it."""

from __future__ import annotations

from contextlib import suppress

from store import ContentBlock, Damaged, MessageRole, NotFound, Run, RunStatus, Store, ThreadMessage


def question(store: Store, thread_id: str, text: str, model: str | None = None) -> tuple[ThreadMessage, Run]:
    """For `Store.ask`. Without a *model* it is the thread's. Raises NotFound."""
    message = ThreadMessage(role=MessageRole.user, content=[ContentBlock.of_text(text)])
    return message, Run(model=model_of(store, thread_id) if model is None else model)


def model_of(store: Store, thread_id: str) -> str:
    """The model that a thread asks for in its ``metadata``; empty: the worker's.

    An imported thread names the model of another place. It has that of the last run that was answered here.
    """
    metadata = store.get_thread(thread_id).metadata
    if not isinstance(metadata, dict):
        return ""
    if "source" not in metadata:
        model = metadata.get("model")
        return model if isinstance(model, str) else ""
    answered: list[Run] = []
    for run_id in store.list_run_ids(thread_id):
        with suppress(NotFound, Damaged):
            run = store.get_run(thread_id, run_id)
            if run.status is RunStatus.completed and run.tries:
                answered.append(run)
    return max(answered, key=lambda run: run.completed_at or 0).model if answered else ""
