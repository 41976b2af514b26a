"""The store on a disk, byte-compatible with what ``FORMAT.md`` describes."""

from store.disk.thread_store import ThreadStore

__all__ = ["ThreadStore"]
