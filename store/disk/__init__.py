"""The store on a disk, byte-compatible with what ``FORMAT.md`` describes."""
