"""What stands in each column of a submission, as text. Needs NumPy alone; package and kernel write the same cells.

pipeline/kernel/submission.py writes the file and checks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.competitions.metrics import Metric, metric_named
from pipeline.errors import PodiumError, nearest

if TYPE_CHECKING:
    from pipeline.competitions.task import Competition

MEAN, LABEL, LABELS, TOP = "mean", "label", "labels", "top "
SMALLEST_PROBABILITY = 1.0e-7
"""No class is ruled out: a zero would cost a log loss without bound."""


def submission_columns(competition: Competition) -> dict[str, str]:
    """Returns the columns after the id, in the YAML's order -> what stands in each: a word, or an output's name."""
    if competition.answers:
        return dict(competition.answers)
    decided = metric_named(competition.metric).wants == "decided"
    if competition.outcome == "ordered":
        return {competition.label.column or "": LABEL if decided else MEAN}
    if competition.outcome == "labels" and decided:
        return dict.fromkeys(competition.answered, LABEL)
    return dict(zip(competition.answered, competition.outputs, strict=True))


def check_answers(competition: Competition, metric: Metric) -> None:
    """Raises PodiumError for an answer that the outcome does not have, or that the metric does not score."""
    outputs = competition.outputs
    ranked, named = competition.outcome in ("classes", "choice"), competition.answered
    for column, what in competition.answers.items():
        key = f"answers.{column}"
        if column == competition.submitted_id or not column.strip():
            raise PodiumError(f'{key}: expected a column beside the id, found "{column}"')
        if what.startswith(TOP):
            count = what.removeprefix(TOP)
            if not ranked or not count.isdecimal() or not 1 <= int(count) <= len(outputs):
                raise PodiumError(f'{key}: expected "top k" of {len(outputs)} classes or options, found "{what}"')
        elif what == LABELS and competition.outcome == "labels":
            if metric.wants != "decided":
                raise PodiumError(f"{key}: metric {competition.metric} scores means; give a column for each label")
            if inside := [name for name in outputs if competition.join in name]:
                raise PodiumError(f'join: expected what parts the labels of {column}, "{inside[0]}" holds it')
        elif what not in (MEAN, LABEL, *outputs):
            words = [MEAN, LABEL, *([LABELS] if competition.outcome == "labels" else ["top 3"]), *outputs[:10]]
            raise PodiumError(f'{key}: expected one of {", ".join(words)}, found "{what}"{nearest(what, words)}')
        elif what == MEAN and column not in named and competition.outcome != "ordered" and len(outputs) > 1:
            raise PodiumError(f"{key}: which mean? Name one of {', '.join(outputs[:10])}")
        elif what == LABEL and competition.outcome == "numbers":
            raise PodiumError(f"{key}: outcome numbers has no labels; write mean")
        elif what == LABEL and competition.outcome == "labels" and column not in named and len(outputs) > 1:
            raise PodiumError(f"{key}: which label? Give one column for each of {', '.join(outputs[:10])}")
        if what == LABEL and metric.wants != "decided" and not ranked:
            raise PodiumError(f"{key}: metric {competition.metric} scores means; write mean, not label")
        if not what.startswith(TOP) and what not in (LABEL, LABELS) and metric.wants == "decided":
            raise PodiumError(f"{key}: metric {competition.metric} scores labels; write label, not {what}")


def as_submitted(means: np.ndarray, competition: Competition) -> np.ndarray:
    """Returns (rows, outputs) means as a submission may hold them: those of classes are clipped and sum to 1."""
    if competition.outcome not in ("classes", "choice"):
        return np.clip(means, 0.0, 1.0) if competition.family.bounded else competition.family.expected(means)
    clipped = np.clip(means, SMALLEST_PROBABILITY, 1.0)
    return clipped / clipped.sum(axis=1, keepdims=True)


def submission_cells(means: np.ndarray, decided: np.ndarray, competition: Competition) -> dict[str, list[str]]:
    """Returns column after the id -> the cell of each row, with all the digits that a number has.

    means: (rows, outputs); decided: what pipeline/competitions/decision.py made of them.
    """
    means = as_submitted(means, competition)
    return {
        column: _cells(column, what, means, decided, competition)
        for column, what in submission_columns(competition).items()
    }


def _cells(column: str, what: str, means: np.ndarray, decided: np.ndarray, competition: Competition) -> list[str]:
    outputs, answered = competition.outputs, competition.answered
    if what.startswith(TOP):
        best = np.argsort(-means, axis=1, kind="stable")[:, : int(what.removeprefix(TOP))]
        values = competition.label_values
        return [competition.join.join(values[place] for place in row) for row in best.tolist()]
    if what == LABELS:
        return [competition.join.join(np.array(outputs)[row >= 0.5].tolist()) for row in decided]
    if what == LABEL:
        if competition.outcome in ("classes", "choice"):
            return [competition.label_values[place] for place in decided.tolist()]
        place = answered.index(column) if column in answered else 0
        return [str(int(value)) for value in decided[:, place].tolist()]
    if what == MEAN:
        column_values = competition.family.expected(means)[:, answered.index(column) if column in answered else 0]
    else:
        column_values = means[:, outputs.index(what)]
    return [repr(value) for value in column_values.tolist()]
