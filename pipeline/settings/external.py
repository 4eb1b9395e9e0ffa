"""The settings of a member of kind `external`."""

from __future__ import annotations

from typing import Annotated, Literal

from pipeline.section import Checked, section
from pipeline.settings.member import MemberSettings, below_external


@section
class External(MemberSettings):
    """A member of kind `external`: a teammate's predictions, read from a file in external/."""

    kind: Literal["external"]
    backbone: Literal["none"]
    file: Annotated[str, Checked(below_external())]
    """CSV or parquet under external/, see external/README.md: out-of-fold, holdout and test probabilities by id."""

    def files(self) -> dict[str, str]:
        return {"file": self.file}
