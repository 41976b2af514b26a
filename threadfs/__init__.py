"""threadfs: a store of assistant conversations as a tree of files."""

__version__ = "0.1.0"
