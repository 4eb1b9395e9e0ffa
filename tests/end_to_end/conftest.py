"""What the tests of whole builds share."""

from __future__ import annotations

from pathlib import Path

import pytest
from clones import ran, sh, small_clone


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone that is built once from raw data to the report."""
    target = small_clone(tmp_path_factory.mktemp("clone") / "podium")
    assert {"finetune@words-1", "rehearse", "report"} <= ran(sh("dvc repro", target))
    return target
