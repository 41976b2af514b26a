"""Endpoints for the tests of the worker: one that does as it is told, and one with a real model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.work.scripted import ScriptedEndpoint, scripted


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with scripted() as served:
        yield served
