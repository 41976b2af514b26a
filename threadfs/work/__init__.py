"""Answers queued runs."""
