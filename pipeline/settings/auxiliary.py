"""Tasks of other competitions that a network learns beside its own, on one backbone."""

from __future__ import annotations

from typing import Annotated, Literal

from pipeline.section import Checked, Limits, section
from pipeline.settings.paths import BelowExternal, Name, known_or_external


@section
class AuxiliaryTask:
    """The labelled rows of one other competition; it has no folds."""

    path: BelowExternal
    """The folder with its training file."""
    competition: Annotated[str, Checked(known_or_external)]
    """A name in pipeline/competitions/, or a path to a YAML file of the same form."""
    weight: Annotated[float, Limits(ge=0)] = 1.0
    """Of its loss, that of the scored task being 1; 0 leaves the task out."""


@section
class Auxiliary:
    """Each has a head of its own, and steps of its own between those of the scored task, which are as many as without.
    Only the scored task's head is kept."""

    tasks: Annotated[dict[Name, AuxiliaryTask], Limits(min_length=1)]
    """By name. Their order means nothing."""
    sampling: Literal["round_robin", "proportional", "annealed"] = "round_robin"
    """Steps of a task for each one of the scored task. `round_robin`: one; `proportional`: as many as it has rows for
    each scored one; `annealed`: that number to the power of 1 in the first epoch, down to 0.2 in the last (Stickland &
    Murray 2019, arXiv 1902.02671)."""
    until: Annotated[float, Limits(gt=0, le=1)] = 1.0
    """Share of the scored task's steps after which it is learned alone."""

    @property
    def learned(self) -> dict[str, AuxiliaryTask]:
        """The tasks that weigh something, by name, in the order of their names."""
        return {name: each for name, each in sorted(self.tasks.items()) if each.weight}
