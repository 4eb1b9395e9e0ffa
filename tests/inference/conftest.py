from __future__ import annotations

from pathlib import Path

import pytest
from fold_models import FOLDS, ROWS
from networks import ready
from support import preference_rows

from pipeline.competitions.task import Competition


@pytest.fixture
def artifacts(tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty rows, the backbones, no member yet."""
    monkeypatch.chdir(tmp_path)
    return ready(tmp_path, preference_rows(ROWS), lmsys, FOLDS, backbones)
