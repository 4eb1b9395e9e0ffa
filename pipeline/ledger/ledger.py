"""lb.json, the score of one submitted commit, and ledger.csv, one line for each commit that was ever scored."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.artifacts import CV_METRICS
from pipeline.errors import PodiumError

LB = Path("lb.json")
LEDGER = Path("ledger.csv")

KEYS = ("submission", "commit", "public", "private", "runtime_seconds", "status")
"""lb.json's keys. `runtime_seconds` is the dress rehearsal's on Kaggle: nobody is told that of the scored rerun."""


@dataclass(frozen=True)
class Entry:
    """What is known of one submission."""

    submission: int
    commit: str
    date: str = ""
    status: str = ""
    """`complete` or `error`; `pending` where no score has been synced."""
    cv: float | None = None
    """The chosen stack's level-2 nested score."""
    cv_error: float | None = None
    """Its standard error."""
    public: float | None = None
    private: float | None = None
    runtime_seconds: float | None = None
    predicted_seconds: float | None = None
    budget_seconds: float | None = None
    changes: str = ""
    """The params that differ from those of the submission before, in words."""

    @property
    def gap(self) -> float | None:
        """Public score minus CV."""
        return None if self.public is None or self.cv is None else self.public - self.cv


COLUMNS = [field.name for field in fields(Entry)]


def nested_score(text: str, source: str) -> tuple[float, float | None]:
    """Returns the chosen stack's level-2 nested score and its standard error, from the text of metrics/cv.json.

    Raises: PodiumError naming `source` where the text has no such score.
    """
    try:
        stack = json.loads(text)["stack"]
        return float(stack["score"]), stack.get("standard_error")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise PodiumError(f"{source}: expected stack.score, a number, found none; run `dvc repro stack`") from None


def present_cv() -> float | None:
    """Returns the level-2 nested score of the working tree; None where there is none yet."""
    if not CV_METRICS.is_file():
        return None
    return nested_score(CV_METRICS.read_text(encoding="utf-8"), str(CV_METRICS))[0]


def lb_text(values: dict[str, Any]) -> str:
    """Returns the text of lb.json; what `values` does not name is null."""
    return json.dumps({key: values.get(key) for key in KEYS}, indent=2) + "\n"


NO_SCORE = lb_text({})
"""lb.json of a commit that has no score yet."""


def parse_ledger(text: str) -> list[Entry]:
    """Returns the entries of ledger.csv's text, in their order. Raises: PodiumError naming line and column."""
    header, *rows = list(csv.reader(io.StringIO(text))) or [[]]
    if header != COLUMNS:
        raise PodiumError(f"{LEDGER}: line 1: expected {','.join(COLUMNS)}, found {','.join(header)}")
    entries = []
    for number, row in enumerate(rows, start=2):
        if len(row) != len(COLUMNS):
            raise PodiumError(f"{LEDGER}: line {number}: expected {len(COLUMNS)} cells, found {len(row)}")
        values: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
        for field in fields(Entry):
            cell = values[field.name]
            try:
                if field.type != "str":
                    values[field.name] = int(cell) if field.type == "int" else float(cell) if cell else None
            except ValueError:
                raise PodiumError(f"{LEDGER}: line {number}: {field.name}: expected a number, found {cell}") from None
        entries.append(Entry(**values))
    return entries


def ledger_text(entries: list[Entry]) -> str:
    """Returns ledger.csv's text; numbers keep every digit, and None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *(asdict(entry).values() for entry in entries)])
    return text.getvalue()


def with_entries(entries: list[Entry], new: list[Entry]) -> list[Entry]:
    """Returns `entries` with `new` in place of those of the same submission, ordered by submission."""
    merged = {entry.submission: entry for entry in [*entries, *new]}
    return [merged[number] for number in sorted(merged)]


def decimals(value: float | None) -> str:
    """Returns a score with five decimals, a dash where there is none."""
    return "–" if value is None else f"{value:.5f}"


def clock(seconds: float) -> str:
    """Returns seconds as `42 s`, `12 min 05 s` or `2 h 07 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
