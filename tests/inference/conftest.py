from __future__ import annotations

from pathlib import Path

import pytest
from fold_models import FOLDS, ROWS
from networks import ready
from support import preference_rows

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition


@pytest.fixture
def artifacts(tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    """Forty rows, the backbones, no member yet."""
    monkeypatch.chdir(tmp_path)
    return Artifacts(ready(tmp_path, preference_rows(ROWS), lmsys, FOLDS, backbones))
