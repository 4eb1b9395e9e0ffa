"""Which rows a fold model has learned from, as one hash; and whether what a teacher says comes from such a model.

A teacher's out-of-fold answers must not teach: those to the rows of fold j come from a model that has learned fold k,
and carry its labels into student k. On labels of pure noise such a student had an accuracy of 0.70.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.errors import PodiumError


def learned_hash(rows: pl.DataFrame) -> str:
    """Returns hex SHA-256 of the ids of `rows`, in whichever order they stand."""
    return hashlib.sha256("\n".join(sorted(rows["id"])).encode()).hexdigest()


def check_lesson(file: Path, lesson: Mapping[str, Any], teacher: str, expected: Mapping[str, Any]) -> None:
    """Raises PodiumError where `lesson`, which stands in `file`, is not from a model that `expected` describes.

    Both hold `fold`, and the hashes `rows` (learned_hash of what the teacher has learned), `data`, `folds` and `start`
    (of the teacher).
    """
    if lesson.get("fold") != expected["fold"]:
        raise PodiumError(
            f"{file}: {teacher} teaches from its model of fold {lesson.get('fold')}, which has learned fold "
            f"{expected['fold']}: a student would see the labels of its own fold"
        )
    if lesson.get("rows") != expected["rows"]:
        raise PodiumError(
            f"{file}: {teacher} has learned other rows than those outside fold {expected['fold']} and holdout "
            f"({str(lesson.get('rows'))[:9]}, expected {expected['rows'][:9]})"
        )
    for name in ("data", "folds", "start"):
        if lesson.get(name) != expected[name]:
            found = str(lesson.get(name, "not noted"))[:9]
            raise PodiumError(
                f"{file}: stale, {teacher} was made from other {name} ({found}, now {expected[name][:9]}); "
                "run `dvc repro`"
            )
