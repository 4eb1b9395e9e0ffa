from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from learners import learner_of

from pipeline.competitions.task import Competition
from pipeline.training.gradients import Learner


@pytest.fixture
def made(backbones: Path, lmsys: Competition) -> Any:
    """learners.learner_of, with training settings by name."""

    def of(kind: str = "encoder", budget: int = 4096, rows: int = 16, **training: Any) -> Learner:
        return learner_of(backbones, lmsys, kind, budget, rows, training)

    return of
