"""Fixtures of all tests; see support.py for the small inputs that they use."""

from __future__ import annotations

import pytest

from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition


@pytest.fixture(scope="session")
def lmsys() -> Competition:
    return load_competition("lmsys")


@pytest.fixture(scope="session")
def spooky() -> Competition:
    return load_competition("spooky")
