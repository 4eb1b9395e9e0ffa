"""Rows from elsewhere that members learn beside the fold's own."""

from __future__ import annotations

from typing import Annotated, Literal

from pipeline.section import Checked, Limits, section
from pipeline.settings.paths import BelowExternal, known_or_external


@section
class ExtraRows:
    """One source: rows of the scored competition's form. They join what a fold model learns, and are never scored."""

    path: BelowExternal
    """The folder with its training file."""
    competition: Annotated[str, Checked(known_or_external)]
    """A name in pipeline/competitions/, or a path to a YAML file: how that file is read. Its fields and outcome are
    those of the scored competition."""
    labels: Literal["given", "soft", "none"] = "given"
    """`given`: as in a training file; `soft`: a column per output, as in a submission of means; `none`: what the
    teachers of a student say of each row, fold by fold."""
    made: bool = False
    """Whether a model has written the rows: their file says by whom, and what a judge thinks of each
    (pipeline/members/beside/made.py)."""
    weight: Annotated[float, Limits(gt=0)] = 1.0
    """What the loss of a row counts; that of the fold's own rows is 1."""
    confidence: Annotated[float, Limits(ge=0, lt=1)] = 0.0
    """With `labels: none`: a row is left out where the teachers' two likeliest answers are no further apart; of labels
    and ordered scores, where |2 p - 1| is no larger on average."""

    def __post_init__(self) -> None:
        if self.made and self.labels != "given":
            raise ValueError(f"made rows have answers of their own: labels is given, found {self.labels}")
        if self.confidence and self.labels != "none":
            raise ValueError("confidence is of what teachers say: leave it out unless labels is none")
