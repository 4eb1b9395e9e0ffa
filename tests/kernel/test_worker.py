"""What a worker says about its fold model's errors: which are of the memory, which of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import NoMemoryError
from pipeline.kernel import worker
from pipeline.kernel.faults import Faults
from pipeline.kernel.request import open_rows
from pipeline.kernel.worker import Worker, WorkerSettings
from pipeline.planning.steps import Step


class Failing:
    """A fold model that fails whatever it is asked."""

    rescued, tokens_per_batch = 0, 1024

    def __init__(self, error: Exception) -> None:
        self.error = error

    def predict(self, rows: Any, which: str) -> np.ndarray:
        raise self.error

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "failed", "message"),
    [
        (NoMemoryError("out of memory on cuda:0 with a single row"), "memory", "out of memory on cuda:0 with a single"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "memory", "out of memory: CUDA error: CUBLAS_STATUS"),
        (RuntimeError("CUDA error: an illegal memory access"), "broken", "RuntimeError: CUDA error: an illegal"),
        (ValueError("one"), "broken", "ValueError: one"),
    ],
)
def test_memory_that_ran_out_is_not_a_broken_model(
    error: Exception,
    failed: str,
    message: str,
    package: Path,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "open_member", lambda *given: Failing(error))
    settings = WorkerSettings(str(package), str(files), True, {}, str(tmp_path), "cpu", False, Faults({}))
    opened, said = Worker(open_rows(package, files, True), settings).answer(Step("words", 0), np.arange(3))
    assert "opened" in opened
    assert said["failed"] == failed and said["message"].startswith(message)
