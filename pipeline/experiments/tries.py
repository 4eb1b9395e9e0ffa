"""Tries: a member's fold on a slice of the rows, between two commits, and the table of what came out.

make try MEMBER=siamese ROWS=1000
make tries
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import Artifacts
from pipeline.config import Params
from pipeline.data.split import Split, split_rows
from pipeline.errors import PodiumError, nearest
from pipeline.files import sha256_file, write_json, write_text
from pipeline.members.context import Start, read_start
from pipeline.members.fold import Look, quick_look
from pipeline.members.start import resolve

TRIES = Path("work/tries.csv")
CURVE = 8
"""Points of the learning curve that are told."""
MISSING = object()


@dataclass(frozen=True)
class Try:
    """One line of the table."""

    time: str
    member: str
    fold: int
    rows: int
    score: float
    constant: float
    """The constant predictor's score on the same rows."""
    seconds_per_1000_rows: float
    """Of training, all epochs together; what is loaded once is a part of it."""
    full_minutes: float
    """What training all folds of the member would take at this pace."""
    curve: str
    """Mean training losses along the run, in nats per row; empty for a kind that keeps none."""
    changed: str
    """Settings that differ from the committed params.yaml."""


def opened(name: str, fold: int, params: Params, artifacts: Artifacts) -> tuple[Split, Start]:
    """Returns the rows of fold `fold` of a member, and what decides its training by the settings as they are now.

    Raises: PodiumError for an unknown member or fold.
    """
    check_member(name, params)
    if fold not in params.folds.ids:
        raise PodiumError(f"FOLD: expected one of {', '.join(map(str, params.folds.ids))}, found {fold}")
    return split_rows(artifacts.train().collect(), artifacts.folds(), fold), started(name, params, artifacts)[0]


def started(name: str, params: Params, artifacts: Artifacts) -> tuple[Start, str]:
    """Returns what decides a member's training by the settings as they are now, and the hash of such a start file."""
    with tempfile.TemporaryDirectory(prefix="podium-try-") as folder:
        file = Path(folder) / "start.json"
        write_json(file, resolve(name, params, artifacts.competition(), artifacts))
        return read_start(file), sha256_file(file)


def look_at(name: str, fold: int, rows: int, params: Params, artifacts: Artifacts) -> tuple[Look, int]:
    """Trains fold `fold` of a member on `rows` rows by the settings as they are now, and keeps no model.

    Returns what was found, and how many rows the whole fold model would learn from.

    Raises: PodiumError for an unknown member or fold, and what training itself raises.
    """
    split, start = opened(name, fold, params, artifacts)
    return quick_look(split, start, fold, rows, artifacts), len(split.train)


def check_member(name: str, params: Params) -> None:
    """Raises PodiumError where params.yaml knows no such member."""
    if name not in params.members:
        raise PodiumError(f'MEMBER: no member "{name}" in params.yaml{nearest(name, params.members)}')


def build_needed(name: str, params: Params) -> None:
    """Builds what a fold of the member is made of; nothing where it is there already.

    Raises: PodiumError for an unknown member, or where DVC could not build it.
    """
    check_member(name, params)
    extra = ["extra"] if params.members[name].extra else []
    build_stages("folds", *extra, f"pretrain@{params.members[name].backbone}")


def build_stages(*names: str) -> None:
    """Builds some stages; nothing where they are up to date. Raises: PodiumError where DVC could not."""
    if subprocess.run([sys.executable, "-m", "dvc", "repro", "-q", *names]).returncode:
        raise PodiumError(f"{', '.join(names)}: could not be built; see above")


def try_member(name: str, fold: int, rows: int, params: Params, changed: list[str], artifacts: Artifacts) -> Try:
    """Returns the line of one try; see `look_at`."""
    look, all_rows = look_at(name, fold, rows, params, artifacts)
    learned = min(rows, all_rows)
    pace = look.seconds / learned
    whole = sum(params.members[name].trains(each) for each in params.folds.ids) * all_rows
    losses = [loss for _, loss in look.training["curve"]] if look.training else []
    windows = np.array_split(losses, min(CURVE, len(losses))) if losses else []
    return Try(
        datetime.now().isoformat(" ", "seconds"),
        *(name, fold, learned, round(look.score, 5), round(look.constant, 5)),
        round(1000 * pace, 1),
        round(pace * whole / 60, 1),
        " ".join(f"{each.mean():.3f}" for each in windows),
        "; ".join(changed),
    )


def keep(one: Try, file: Path = TRIES) -> None:
    """Adds a line to the table."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [each.name for each in fields(Try)], lineterminator="\n")
    writer.writeheader()
    writer.writerows([*kept(file), asdict(one)])
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text.getvalue())


def kept(file: Path = TRIES) -> list[dict[str, str]]:
    """Returns the lines of the table, the oldest first; none where nothing was tried."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if row.keys() == {each.name for each in fields(Try)}]


def changed_settings(now: Mapping[str, Any], committed: Mapping[str, Any]) -> list[str]:
    """Returns `members.siamese.training.epochs 1 -> 2` for each setting that differs, in the order of `now`."""
    flat, before = _flat(now), _flat(committed)
    names = [*flat, *(name for name in before if name not in flat)]
    pairs = ((name, before.get(name, MISSING), flat.get(name, MISSING)) for name in names)
    return [f"{name} {_told(old)} -> {_told(new)}" for name, old, new in pairs if old != new]


def _flat(settings: Any, where: str = "") -> dict[str, Any]:
    if not isinstance(settings, Mapping) or not settings:
        return {where: settings}
    found: dict[str, Any] = {}
    for name, each in settings.items():
        found |= _flat(each, f"{where}.{name}" if where else str(name))
    return found


def _told(value: Any) -> str:
    return "(none)" if value is MISSING else str(value)
