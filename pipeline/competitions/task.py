"""What a competition is: its columns, inputs, outcome and submission. Needs NumPy and SciPy alone: the kernel ships it.

A competition is inputs x outcome: `task` says what a row consists of (one text or several, a pair, two answers to a
prompt, a question with options), `outcome` what is to be said of it (classes, labels, scores, numbers, an option).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.competitions.family import Bernoulli, Categorical, Family, Gaussian, Ordinal
from pipeline.section import from_json

SIDES = ("a", "b")
"""Our names of the two texts of a pair, and of the two answers of a preference."""
TAKEN = ("id", "label", "model")
"""Columns that stand beside those of the answers in the tables of predictions."""
OURS = (*TAKEN, "fold", "group", "time")
"""Columns that stand beside those of the texts in the tables between two stages."""
SCORED = ("metric", "answers", "join", "medals", "hidden_rows", "submission")
"""Keys that say what is made of the answers."""
WRITTEN = (
    *(
        "separator",
        "quotes",
        "encoding",
        "train",
        "test",
        "sample_submission",
        "ignored",
        "lookup",
        "train_id",
        "submission_id",
        "parts",
        "left_out",
        "renamed",
    ),
)
"""Keys that say how rows are written down."""
NUMBERED = "#"
"""In place of the id column of train.csv: it has none, and its rows are numbered."""
WINNER = "#winner"
"""The column that says which side of a training row is the better, where `label.winner` makes it."""
AUTO = ("auto",)
"""In place of the classes: the values found in train.csv, sorted. `prepare` puts them there."""


@dataclass(frozen=True)
class Task:
    """What a row consists of, and how its answer moves when parts of it change places."""

    fields: tuple[str, ...]
    """Our names of the text columns, in every parquet file, in reading order."""
    group: str | None
    """The field whose first turn must not cross folds; None where train.parquet has a column `group` instead."""
    sides: tuple[str, str] | None = None
    """The two fields that stand beside one another, or None."""
    options: tuple[str, ...] = ()
    """The fields of which one is the answer; their order means nothing."""
    mirror: tuple[int, ...] | None = None
    """The order of the outputs after a swap of the sides; None where a swapped row is another row."""
    decisive: tuple[int, ...] | None = None
    """Outputs of rows that name a winner; scored on their own as well. None where the idea has no meaning."""

    @property
    def common(self) -> tuple[str, ...]:
        """The fields that are neither a side nor an option: what these have in common."""
        return tuple(name for name in self.fields if name not in (*(self.sides or ()), *self.options))


@dataclass(frozen=True)
class Label:
    """Where train.csv keeps the answer."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    column: str | None = None
    """One column: of class values, scores, or an option's name."""
    one_hot: tuple[str, ...] | None = None
    """One column of 0 and 1 per class, in the order of `classes`; exactly one of them is 1."""
    columns: tuple[str, ...] | None = None
    """One column per label (0, 1, or a share between; empty where it is not known) or per number."""
    log: bool = False
    """Of `numbers` from 0, such as prices and counts: what is learned is log(1 + number)."""
    listed: str | None = None
    """Of `labels`: one column that lists the labels of a row, of which `classes` names some; others do not count."""
    joined: tuple[str, ...] | None = None
    """Several columns that make one class value together."""
    winner: Literal["a", "b"] | None = None
    """Of a `preference` whose training rows have the better side in one column: that side. The sides of every other
    row change places."""
    join: str = ":"
    """Stands between the cells of `joined`, or between the labels of `listed`."""
    empty: str = "NA"
    """Stands for an empty cell of `joined`."""
    values: tuple[str, ...] | None = None
    """What stands in `column`, in the order of the classes or options; by default their own names."""
    also: dict[str, str] = field(default_factory=dict)
    """What may stand in `column`, too -> the value that it means: classes that are one."""
    low: int | None = None
    """The lowest score of an `ordered` outcome."""
    high: int | None = None
    """The highest."""


@dataclass(frozen=True)
class Lookup:
    """A file beside train and test with a part of each row: its columns join those of the row with an equal `key`."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    key: str
    """A column of train and test, and of the file."""
    train: str
    """A table of the data folder; or the place of a text file, in which `{}` stands for the key: `train/{}.txt`."""
    test: str = ""
    """The same for the test rows; by default it is the same file."""
    column: str = ""
    """Of text files: the name of the column that holds their text."""
    only: Literal["", "train"] = ""
    """`train`: the test rows have no such part, as where the labels stand in a file of their own."""

    def place(self, part: Literal["train", "test"]) -> str:
        """Returns the table of a part's rows, or the place of its text files."""
        return (self.test or self.train) if part == "test" else self.train

    def mounted(self, part: Literal["train", "test"]) -> str:
        """Returns the file, or the folder with the text files, that a part's rows need."""
        place = self.place(part)
        return place.partition("{}")[0].rpartition("/")[0] if "{}" in place else place


@dataclass(frozen=True)
class Competition:
    """Schema, inputs, outcome, metric and submission of one contest, as its YAML file states them."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    name: str
    """Kaggle's slug, which is also the folder name under /kaggle/input."""
    task: Literal["text", "pair", "preference", "choices"]
    metric: str
    """A name that metrics.metric_named knows."""
    id: str
    """The id column of train, test and submission."""
    texts: dict[str, str]
    """Our field name -> the column's name in the files, in reading order."""
    label: Label
    outcome: Literal["classes", "labels", "ordered", "numbers", "choice"] = "classes"
    classes: tuple[str, ...] = ()
    """The names of the classes (outcome `classes`), or of the labels that `label.listed` lists: without `answers` the
    submission's columns after the id. `auto`: the values found in train.csv, sorted."""
    options: tuple[str, ...] = ()
    """Of `choices`: the fields of which one is the answer, as it is named in the submission."""
    symmetric: bool = False
    """Of a pair: the answer is the same when its two texts change places."""
    group: tuple[str, ...] = ()
    """Columns whose rows must not cross folds where they are equal; by default the first turn of the first field, and
    of a pair whatever has a text in common."""
    time: str | None = None
    """A column by which folds are cut: each is a stretch of time, the holdout the last one."""
    turns: Literal["json", "plain"] = "plain"
    """`json`: a text cell is a JSON list of turns; `plain`: it is the text."""
    candidates: str = ""
    """Of `classes`: the field whose text tells which of them a row can have (models/candidates.py)."""
    ignored: tuple[str, ...] = ()
    """Columns that may stand in the files and are not read (model names, running numbers); `*`: all that are not
    named."""
    prompt: str = ""
    """What decoders that answer in tokens are told first; by default one sentence."""
    submission: Literal["code", "file"] = "code"
    """`code`: a kernel is submitted, and run by Kaggle on the hidden rows; `file`: a submission.csv is uploaded."""
    answers: dict[str, str] = field(default_factory=dict)
    """The submission's columns after the id -> what stands in each: `mean`, `label`, `top 3`, or an output's name for
    its mean; by default each output's mean under the output's own name."""
    join: str = " "
    """Stands between the labels of a `top k`."""
    medals: dict[str, float] = field(default_factory=dict)
    """`gold`, `silver`, `bronze` -> the private score that won one, where known; the report compares."""
    hidden_rows: int | None = None
    """About how many rows the hidden test file has, where that is known."""
    separator: str = ","
    quotes: Literal["doubled", "backslash", "none"] = "doubled"
    """A quote inside a quoted cell: `doubled`, as in RFC 4180, or after a `backslash`, which makes any next character a
    plain one. `none`: a quote is a character as any other."""
    encoding: Literal["utf-8", "latin-1", "cp1252"] = "utf-8"
    submission_id: str | None = None
    """The id column of the submission, where it has another name than in test.csv."""
    train_id: str | None = None
    """The id column of train.csv, where it has another name than in test and submission; `#`: it has none."""
    lookup: tuple[Lookup, ...] = ()
    """Files beside train and test that hold a part of their rows."""
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Column of lists or records in JSON, and keys after dots -> the columns that its items become, or its value."""
    left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Column of train.csv -> what stands there in rows that are not read."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Column of test.csv -> its name in train.csv."""
    train: str = "train.csv"
    test: str = "test.csv"
    sample_submission: str = "sample_submission.csv"
    centre: tuple[float, ...] = ()
    """Of `numbers`: the training rows' means; `prepare` fills them in."""
    spread: tuple[float, ...] = ()
    """Of `numbers`: the training rows' standard deviations; `prepare` fills them in."""
    grouped: str = ""
    """The field whose first turn groups rows where it is not the first, which holds categories; `prepare` fills it in.
    """

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the numbers that an answer consists of: columns of every file of predictions."""
        if self.outcome == "classes" or self.label.listed is not None:
            return self.classes
        if self.outcome == "choice":
            return self.options
        if self.outcome == "ordered":
            return tuple(f"{self.label.column}>{score}" for score in self.scores[:-1])
        # In the tables of predictions a column of that name stands beside it.
        return tuple(f"{name}_" if name in TAKEN else name for name in self.label.columns or ())

    @property
    def answered(self) -> tuple[str, ...]:
        """The outputs as train.csv and the submission name them."""
        return self.label.columns or self.outputs

    @property
    def scores(self) -> range:
        """The scores of an `ordered` outcome, the lowest first."""
        assert self.label.low is not None and self.label.high is not None
        return range(self.label.low, self.label.high + 1)

    def looked_up(self, part: Literal["train", "test"]) -> tuple[Lookup, ...]:
        """Returns the other files that hold a part of these rows."""
        return tuple(each for each in self.lookup if part == "train" or not each.only)

    def as_filed(self) -> Competition:
        """Returns it without what is not in a file itself: `plain_rows` then has its own rows and columns alone."""
        kept: dict[str, tuple[str, ...]] = dict.fromkeys(self.parts, ())  # lists stay JSON
        label = replace(self.label, winner=None)
        return replace(self, lookup=(), train_id=None, parts=kept, left_out={}, renamed={}, label=label)

    def part(self, path: Path) -> Literal["train", "test", "sample_submission"] | None:
        """Returns which of the three tables `path` is, by its name."""
        for part in ("train", "test", "sample_submission"):
            if path.parts[-len(own := PurePath(getattr(self, part)).parts) :] == own:
                return part
        return None

    def id_column(self, path: Path) -> str:
        """Returns the id column of a file of the competition."""
        part = self.part(path)
        if part == "sample_submission":
            return self.submitted_id
        return self.train_id if self.train_id is not None and part == "train" else self.id

    @property
    def submitted_id(self) -> str:
        """The id column of the submission."""
        return self.id if self.submission_id is None else self.submission_id

    @property
    def label_values(self) -> tuple[str, ...]:
        """What stands in the label column of a class or option, in the order of the outputs."""
        return self.label.values or self.outputs

    @cached_property
    def kind(self) -> Task:
        """What a row consists of."""
        fields = tuple(self.texts)
        group = None if self.group or self.task == "pair" else self.grouped or fields[0]
        sides = SIDES if self.task in ("pair", "preference") else None
        mirror = None
        if self.task == "preference":
            mirror = (1, 0, 2)[: len(self.classes)]
        elif self.symmetric:
            mirror = tuple(range(len(self.outputs)))
        return Task(fields, group, sides, self.options, mirror, (0, 1) if mirror == (1, 0, 2) else None)

    @cached_property
    def family(self) -> Family:
        """What an answer is in numbers."""
        if self.outcome == "numbers":
            return Gaussian(self.centre, self.spread, self.label.log)
        if self.outcome == "ordered":
            return Ordinal(len(self.outputs), self.scores[0])
        if self.outcome == "labels":
            return Bernoulli(len(self.outputs))
        return Categorical(len(self.outputs), exchangeable=self.outcome == "choice")

    def as_learned(self) -> Competition:
        """Returns all of it that every training reads: another metric, or files written otherwise, train nothing anew,
        and another prompt only who reads it."""
        plain = Competition("", "text", "", "", {}, Label())
        return replace(self, **{name: getattr(plain, name) for name in (*SCORED, *WRITTEN, "prompt")})

    def mirrored_labels(self, labels: np.ndarray) -> np.ndarray:
        """Returns the labels of the swapped rows."""
        return np.asarray(self.kind.mirror)[labels] if self.kind.mirror and self.outcome == "classes" else labels

    def mirrored(self, means: np.ndarray) -> np.ndarray:
        """Returns (rows, outputs) means of the swapped rows in the original order of sides."""
        return means[:, list(self.kind.mirror)] if self.kind.mirror else means


def competition_from_json(value: dict[str, Any]) -> Competition:
    """Returns the competition that `dataclasses.asdict` and JSON have made `value` of."""
    return from_json(Competition, value)
