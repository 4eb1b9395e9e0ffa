"""What a competition is: its columns, classes and task type. Needs NumPy alone, because the kernel ships it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.section import from_json


@dataclass(frozen=True)
class Task:
    """A task type: which texts a row has, and how its classes move when the two sides change places."""

    fields: tuple[str, ...]
    """Our names of the text columns, in every parquet file."""
    group: str
    """The field whose first turn must not cross folds."""
    sides: tuple[str, str] | None
    """The two fields that can be swapped, or None."""
    mirror: tuple[int, ...] | None
    """Class order after a swap of the sides, or None."""
    decisive: tuple[int, ...] | None
    """Classes of rows that name a winner; scored on their own as well. None where the idea has no meaning."""


TASKS = {
    "preference": Task(("prompt", "a", "b"), "prompt", ("a", "b"), (1, 0, 2), (0, 1)),
    "single": Task(("text",), "text", None, None, None),
}


@dataclass(frozen=True)
class Label:
    """Where train.csv keeps the answer: either `one_hot` columns of 0 and 1, or one `column` of class values."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    one_hot: tuple[str, ...] | None = None
    """One column per class, in the order of `classes`."""
    column: str | None = None
    """A column that holds one of `values`."""
    values: tuple[str, ...] | None = None
    """What stands in `column`, in the order of `classes`; by default the class names themselves."""


@dataclass(frozen=True)
class Competition:
    """Schema, task, metric and submission format of one contest, as its YAML file states them."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    name: str
    """Kaggle's slug, which is also the folder name under /kaggle/input."""
    task: Literal["preference", "single"]
    metric: str
    """A name in metrics.METRICS."""
    id: str
    """The id column of train, test and submission."""
    texts: dict[str, str]
    """Our field name -> the column's name in the CSV files."""
    classes: tuple[str, ...]
    """The submission's columns after the id, in their order: one probability each."""
    label: Label
    turns: Literal["json", "plain"] = "plain"
    """`json`: a text cell is a JSON list of turns; `plain`: it is the text."""
    ignored: tuple[str, ...] = ()
    """Columns that may stand in the files and are not read (model names, running numbers)."""
    submission: Literal["code", "file"] = "code"
    """`code`: a kernel is submitted, and run by Kaggle on the hidden rows; `file`: a submission.csv is uploaded."""
    hidden_rows: int | None = None
    """About how many rows the hidden test file has, where that is known."""
    separator: str = ","
    quotes: Literal["doubled", "backslash"] = "doubled"
    """A quote inside a quoted cell: `doubled`, as in RFC 4180, or after a `backslash`, which makes any next character a
    plain one."""
    train: str = "train.csv"
    test: str = "test.csv"
    sample_submission: str = "sample_submission.csv"

    @property
    def kind(self) -> Task:
        """The task type's fixed facts."""
        return TASKS[self.task]

    def mirrored(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns (rows, classes) probabilities of the swapped rows in the original order of sides."""
        return probabilities[:, list(self.kind.mirror or range(len(self.classes)))]


def competition_from_json(value: dict[str, Any]) -> Competition:
    """Returns the competition that `dataclasses.asdict` and JSON have made `value` of."""
    return from_json(Competition, value)
