"""Finds a competition's YAML file by name (`lmsys`) or by path (`my/competition.yaml`) and checks it."""

from __future__ import annotations

from pathlib import Path

from pipeline.competitions.metrics import METRICS
from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError, nearest
from pipeline.validation import read_yaml, validated

FOLDER = Path(__file__).parent


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
    if competition.kind.mirror and len(competition.classes) != len(competition.kind.mirror):
        raise PodiumError(
            f"{source}: classes: a {competition.task} task has {len(competition.kind.mirror)} "
            f"(first side, second side, tie), found {len(competition.classes)}"
        )
    if (label.one_hot is None) == (label.column is None):
        raise PodiumError(f"{source}: label: give either one_hot or column")
    named = label.one_hot or label.values or competition.classes
    if len(named) != len(competition.classes):
        raise PodiumError(f"{source}: label: {len(named)} entries for {len(competition.classes)} classes")
    if competition.hidden_rows is not None and competition.hidden_rows < 1:
        raise PodiumError(f"{source}: hidden_rows: expected a positive number, found {competition.hidden_rows}")
