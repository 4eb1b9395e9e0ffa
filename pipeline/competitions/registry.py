"""Finds a competition's YAML file by name (`lmsys`) or by path (`my/competition.yaml`) and checks it."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.competitions.metrics import METRICS
from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError, nearest
from pipeline.validation import read_yaml, validated

FOLDER = Path(__file__).parent
OURS = ("id", "label", "model")
"""Columns that stand beside those of the classes in the tables between two stages."""


def load_competition(name: str) -> Competition:
    """Returns the competition that `data.competition` in params.yaml names.

    Raises: PodiumError for an unknown name or an inconsistent file.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
    if path.parent == FOLDER and path.stem not in known:
        raise PodiumError(
            f'params.yaml: data.competition: no competition "{name}"{nearest(name, known)}, '
            f"known are {', '.join(known)}, or a path to a YAML file"
        )
    competition = validated(Competition, read_yaml(path), str(path))
    _check(competition, str(path))
    return competition


def _check(competition: Competition, source: str) -> None:
    fields, label = competition.kind.fields, competition.label
    if competition.metric not in METRICS:
        near = nearest(competition.metric, METRICS)
        raise PodiumError(f'{source}: metric: expected one of {", ".join(METRICS)}, found "{competition.metric}"{near}')
    if set(competition.texts) != set(fields):
        raise PodiumError(
            f"{source}: texts: a {competition.task} task needs exactly {', '.join(fields)}, "
            f"found {', '.join(competition.texts)}"
        )
    if len(competition.classes) < 2 or len(set(competition.classes)) < len(competition.classes):
        raise PodiumError(
            f"{source}: classes: expected at least two different names, found {list(competition.classes)}"
        )
    for name in competition.classes:
        if name in (*OURS, competition.id) or not name.strip():
            raise PodiumError(
                f'{source}: classes: no class can be named "{name}": expected a name that is neither empty, nor the id '
                f"column's ({competition.id}), nor one of Podium's own columns ({', '.join(OURS)})"
            )
    if competition.kind.mirror and len(competition.classes) != len(competition.kind.mirror):
        raise PodiumError(
            f"{source}: classes: a {competition.task} task has {len(competition.kind.mirror)} "
            f"(first side, second side, tie), found {len(competition.classes)}"
        )
    if (label.one_hot is None) == (label.column is None):
        raise PodiumError(f"{source}: label: give either one_hot or column")
    columns = {"id": competition.id}
    columns |= {f"texts.{field}": column for field, column in competition.texts.items()}
    columns |= {"label.column": label.column} if label.column is not None else {}
    columns |= {f"label.one_hot.{place}": column for place, column in enumerate(label.one_hot or ())}
    for key, column in columns.items():
        first = next(other for other in columns if columns[other] == column)
        if first != key:
            raise PodiumError(f'{source}: {key}: expected a column of its own, found "{column}", which is {first} too')
    named = label.one_hot or label.values or competition.classes
    if len(named) != len(competition.classes):
        raise PodiumError(f"{source}: label: {len(named)} entries for {len(competition.classes)} classes")
    if len(set(named)) < len(named):
        raise PodiumError(f"{source}: label: expected different entries, found {list(named)}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", competition.name):
        found = f'expected Kaggle\'s slug (letters, digits, hyphens), found "{competition.name}"'
        raise PodiumError(f"{source}: name: {found}")
    for key in ("train", "test", "sample_submission"):
        file = Path(getattr(competition, key))
        if not file.name or file.is_absolute() or ".." in file.parts:
            raise PodiumError(f'{source}: {key}: expected a file of the data folder, found "{file}"')
    if competition.hidden_rows is not None and competition.hidden_rows < 1:
        raise PodiumError(f"{source}: hidden_rows: expected a positive number, found {competition.hidden_rows}")
