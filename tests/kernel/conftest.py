"""What only the tests of the kernel need."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def files(mounted: Path) -> Path:
    """The competition's folder in `mounted`."""
    return mounted / "lmsys-chatbot-arena"


@pytest.fixture
def working(tmp_path: Path) -> Path:
    return tmp_path / "working"
