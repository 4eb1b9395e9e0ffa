"""The ladder: stackers for growing sets of members, so that the kernel can answer with whatever has run so far.

The first rung is the prior and needs no member; each later rung adds one; the last has them all. A row is answered by
the highest rung whose members have all spoken for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition
from pipeline.ensemble import stackers
from pipeline.ensemble.calibration import UNCALIBRATED, Calibration, calibration_from_dict
from pipeline.ensemble.level1 import build_level1
from pipeline.files import read_json, write_json

PRIOR = "prior"
FILE = "ladder.json"


@dataclass(frozen=True)
class Rung:
    """A set of members and the stacker that was fitted for exactly this set."""

    name: str
    members: tuple[str, ...]
    model: stackers.Stacker | None
    """None for the prior."""
    calibration: Calibration = UNCALIBRATED

    @property
    def stacker(self) -> str:
        """`prior`, or a candidate of pipeline/ensemble/fitting.py."""
        return self.model.name if self.model else PRIOR

    @property
    def wants_features(self) -> bool:
        """Whether the stacker reads the text features beside the members' logits."""
        return isinstance(self.model, stackers.Boosted)


@dataclass(frozen=True)
class Ladder:
    """The rungs from the prior to the full set."""

    rungs: tuple[Rung, ...]
    prior: tuple[float, ...]
    """Class shares of the training rows, (classes,)."""
    competition: Competition

    def predict(self, available: dict[str, np.ndarray], rows: pl.DataFrame) -> tuple[np.ndarray, list[str]]:
        """(rows, classes) probabilities, and the name of the rung that answered each row.

        `available` holds a (rows, classes) array per member that has run; a row that it lacks is NaN.
        """
        result = np.tile(np.asarray(self.prior), (len(rows), 1))
        answered = np.full(len(rows), PRIOR, dtype=object)
        has = {name: np.isfinite(each).all(axis=1) for name, each in available.items()}
        open_rows = np.ones(len(rows), dtype=bool)
        for rung in reversed(self.rungs):
            if rung.model is None or not set(rung.members) <= set(has):
                continue
            mine = open_rows & np.all([has[name] for name in rung.members], axis=0)
            if not mine.any():
                continue
            probabilities = [available[name][mine] for name in rung.members]
            level1 = build_level1(probabilities, rows.filter(pl.Series(mine)), self.competition, rung.wants_features)
            result[mine] = rung.calibration.apply(stackers.predict(rung.model, level1, self.competition))
            answered[mine] = rung.name
            open_rows &= ~mine
        return result, list(answered)


def save_ladder(ladder: Ladder, folder: Path) -> None:
    """Writes ladder.json and one text file per LightGBM stacker into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    saved: list[dict[str, Any]] = []
    for number, rung in enumerate(ladder.rungs):
        entry: dict[str, Any] = {"name": rung.name, "members": list(rung.members)}
        model = rung.model
        entry |= stackers.save(model, folder, f"rung{number}.txt") if model else {"stacker": PRIOR}
        saved.append(entry | {"calibration": rung.calibration.as_dict()})
    write_json(folder / FILE, {"prior": list(ladder.prior), "rungs": saved})


def load_ladder(folder: Path, competition: Competition, threads: int = 2) -> Ladder:
    """The ladder that `save_ladder` wrote into `folder`."""
    saved = read_json(folder / FILE)
    rungs = tuple(
        Rung(
            entry["name"],
            tuple(entry["members"]),
            None if entry["stacker"] == PRIOR else stackers.load(entry, folder, threads),
            calibration_from_dict(entry["calibration"]),
        )
        for entry in saved["rungs"]
    )
    return Ladder(rungs, tuple(saved["prior"]), competition)
