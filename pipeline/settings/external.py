"""The settings of a member of kind `external`."""

from __future__ import annotations

from typing import Annotated, Literal

from pipeline.section import Limits, section
from pipeline.settings.member import MemberSettings
from pipeline.settings.paths import BelowExternal


@section
class External(MemberSettings):
    """A member of kind `external`: a teammate's predictions, read from a file in external/."""

    kind: Literal["external"]
    backbone: Literal["none"]
    file: BelowExternal
    """CSV or parquet under external/, see external/README.md: out-of-fold, holdout and test probabilities by id."""
    fold_files: Annotated[tuple[BelowExternal, ...], Limits(min_length=1)] | None = None
    """Needed of a teacher: a file of the same form for each of `folds.ids`, with what the model that has not learned
    that fold says of the rows of the others. Out-of-fold answers cannot teach: those to the other folds come from
    models that have learned it."""

    def __post_init__(self) -> None:
        if self.extra:
            raise ValueError("extra: a file of predictions learns nothing: leave it out")

    def files(self) -> dict[str, str]:
        return {"file": self.file} | {f"fold_files.{fold}": each for fold, each in enumerate(self.fold_files or ())}
