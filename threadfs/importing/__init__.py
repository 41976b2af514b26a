"""Conversations on their way into a store."""
