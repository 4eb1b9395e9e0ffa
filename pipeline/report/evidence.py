"""What the report page is made from: everything that the other stages measured, read from disk once.

python -m stages.report
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.competitions.metrics import METRICS, Metric
from pipeline.competitions.task import Competition, competition_from_json
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.ledger.ledger import LEDGER, Entry, parse_ledger
from pipeline.report.charts import known

STABILITY = "benchmarks/results/stability.json"


@dataclass(frozen=True)
class Evidence:
    """All that the page shows, as read from disk: `rows` of train and test, `seconds` per stage run where measured."""

    competition: Competition
    rows: dict[str, int]
    cv: dict[str, Any]
    rehearsal: dict[str, Any]
    oof: pl.DataFrame
    level2: pl.DataFrame
    seconds: dict[str, float]
    probe: dict[str, Any]
    diagnostics: dict[str, Any]
    ledger: tuple[Entry, ...] = ()
    receipts: tuple[dict[str, Any], ...] = ()
    """Of the fold models of neural members, by member and fold."""
    pretraining: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Backbone -> what its pretraining said; without those that were passed through."""

    stability: dict[str, Any] | None = None
    """What the benchmark that came with this checkout says about seeds; None where it is missing."""

    @property
    def metric(self) -> Metric:
        """The competition's metric."""
        return METRICS[self.competition.metric]

    def probabilities(self, member: str) -> np.ndarray:
        """A member's OOF probabilities (rows, classes), NaN where it does not cover a row."""
        columns = [f"{member}/{name}" for name in self.competition.classes]
        if not set(columns) <= set(self.oof.columns):
            return np.full((self.oof.height, len(columns)), np.nan)
        return array(self.oof.select(columns))


def load_evidence(root: Path) -> Evidence:
    """Reads metrics/, artifacts/ and work/seconds/ under `root`.

    Raises: PodiumError that names the stage to run, for a file that is missing or broken.
    """
    found = _read(root, "artifacts/competition/competition.json", "prepare")
    cv = _read(root, "metrics/cv.json", "stack")
    return Evidence(
        competition_from_json(found["competition"]),
        found["rows"],
        cv,
        _read(root, "metrics/rehearsal.json", "rehearse"),
        _read(root, "artifacts/oof/oof.parquet", "oof"),
        _read(root, "artifacts/stack/level2.parquet", "stack"),
        {path.stem: _seconds(path) for path in sorted((root / "work/seconds").glob("*.json"))},
        _read(root, "metrics/probe.json", "probe"),
        _read(root, "artifacts/diagnostics.json", "diagnostics"),
        tuple(parse_ledger(text.read_text(encoding="utf-8"))) if (text := root / LEDGER).is_file() else (),
        _receipts(root, set(cv["members"]) | set(cv.get("dropped") or {})),
        {
            path.parent.name: _read(root, path.relative_to(root).as_posix(), f"pretrain@{path.parent.name}")
            for path in sorted((root / "artifacts/pretrained").glob("*/pretraining.json"))
        },
        _read(root, STABILITY, "report") if (root / STABILITY).is_file() else None,
    )


def _receipts(root: Path, members: set[str]) -> tuple[dict[str, Any], ...]:
    """Those of networks; what is left of members that are gone is passed over."""
    files = sorted((root / "artifacts/receipts").glob("*.json"))
    found = [_read(root, path.relative_to(root).as_posix(), "finetune") for path in files]
    kept = [each for each in found if each["member"] in members and each.get("training")]
    return tuple(sorted(kept, key=lambda each: (each["member"], each["fold"])))


def _read(root: Path, name: str, stage: str) -> Any:
    path = root / name
    if not path.is_file():
        raise PodiumError(f"{name}: missing; the stage `{stage}` writes it, run `dvc repro {stage}`")
    try:
        return pl.read_parquet(path) if path.suffix == ".parquet" else read_json(path)
    except (ValueError, pl.exceptions.ComputeError) as error:
        told = " ".join(str(error).split())
        raise PodiumError(f"{name}: broken ({told}); stage `{stage}` writes it, run `dvc repro -f {stage}`") from None


def _seconds(path: Path) -> float:
    try:
        value = known(float(read_json(path)))
    except (ValueError, TypeError):
        value = None
    if value is None:
        raise PodiumError(f"work/seconds/{path.name}: expected one number, the stage's seconds; delete the file")
    return value


def array(frame: pl.DataFrame) -> np.ndarray:
    """(rows, columns) float64, NaN where a value is missing."""
    return frame.select(pl.all().cast(pl.Float64).fill_null(math.nan)).to_numpy()
