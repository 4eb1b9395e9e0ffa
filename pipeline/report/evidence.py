"""Reads from disk, once, what the report page is made from: everything that the other stages measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.artifacts import CV_METRICS, PROBE_METRICS, REHEARSAL_METRICS, Artifacts
from pipeline.competitions.metrics import Metric, metric_named
from pipeline.competitions.task import Competition, competition_from_json
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.ledger.chosen import CHOICE, Selection, read_selection
from pipeline.ledger.ledger import LEDGER, Entry, parse_ledger
from pipeline.report.charts import finite
from pipeline.report.sources import Brought, brought, read_measured
from pipeline.stage import SECONDS

STABILITY = Path("benchmarks/results/stability.json")
"""Podium's own benchmark: what the seed alone changes. The page shows it once, folded, beside the training."""


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
    """Receipts of networks' fold models, by member and fold."""
    pretraining: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Backbone -> the record of its pretraining; without those that were passed through."""
    sources: tuple[Brought, ...] = ()
    """What rows from elsewhere have brought to the members that learn some."""
    choice: Selection | None = None
    """The two submissions to select, as `make choose` named them last; None where it was not asked."""
    stability: dict[str, Any] | None = None
    """What the benchmark that came with this checkout says about seeds; None where it is missing."""

    @property
    def metric(self) -> Metric:
        return metric_named(self.competition.metric)

    def probabilities(self, member: str) -> np.ndarray:
        """Returns a member's OOF means (rows, outputs), NaN where it does not cover a row."""
        columns = [f"{member}/{name}" for name in self.competition.outputs]
        if not set(columns) <= set(self.oof.columns):
            return np.full((self.oof.height, len(columns)), np.nan)
        return float_array(self.oof.select(columns))


def load_evidence(root: Path) -> Evidence:
    """Reads metrics/, artifacts/, work/seconds/ and the ledger under `root`.

    Raises: PodiumError that names the stage to run, for a file that is missing or broken.
    """
    artifacts = Artifacts(root / Artifacts.root)

    def read(file: Path, stage: str) -> Any:
        name = file.relative_to(root).as_posix()
        if not file.is_file():
            raise PodiumError(f"{name}: missing; the stage `{stage}` writes it, run `dvc repro {stage}`")
        try:
            return pl.read_parquet(file) if file.suffix == ".parquet" else read_json(file)
        except (ValueError, pl.exceptions.ComputeError) as error:
            what = " ".join(str(error).split())
            hint = f"stage `{stage}` writes it, run `dvc repro -f {stage}`"
            raise PodiumError(f"{name}: broken ({what}); {hint}") from None

    prepared, cv = read(artifacts.competition_file, "prepare"), read(root / CV_METRICS, "stack")
    members = set(cv["members"]) | set(cv.get("dropped") or {})  # a receipt may be left of one that is gone
    receipts = [read(file, "finetune") for file in artifacts.receipts()]
    trained = [receipt for receipt in receipts if receipt["member"] in members and receipt.get("training")]
    ledger, stability = root / LEDGER, root / STABILITY
    return Evidence(
        competition=competition_from_json(prepared["competition"]),
        rows=prepared["rows"],
        cv=cv,
        rehearsal=read(root / REHEARSAL_METRICS, "rehearse"),
        oof=read(artifacts.oof_file, "oof"),
        level2=read(artifacts.level2_file, "stack"),
        seconds={file.stem: _seconds(file) for file in sorted((root / SECONDS).glob("*.json"))},
        probe=read(root / PROBE_METRICS, "probe"),
        diagnostics=read(artifacts.diagnostics_file, "diagnostics"),
        ledger=tuple(parse_ledger(ledger.read_text(encoding="utf-8"))) if ledger.is_file() else (),
        receipts=tuple(sorted(trained, key=lambda receipt: (receipt["member"], receipt["fold"]))),
        pretraining={file.parent.name: read(file, f"pretrain@{file.parent.name}") for file in artifacts.pretrainings()},
        sources=tuple(brought([each for each in receipts if each["member"] in members], read_measured(root))),
        choice=read_selection(read(root / CHOICE, "choose")) if (root / CHOICE).is_file() else None,
        stability=read(stability, "report") if stability.is_file() else None,
    )


def _seconds(file: Path) -> float:
    try:
        value = finite(float(read_json(file)))
    except (ValueError, TypeError):
        value = None
    if value is None:
        raise PodiumError(f"{SECONDS / file.name}: expected one number, the stage's seconds; delete the file")
    return value


def float_array(frame: pl.DataFrame) -> np.ndarray:
    """Returns (rows, columns) float64, NaN where a value is missing."""
    return frame.select(pl.all().cast(pl.Float64).fill_null(math.nan)).to_numpy()
