"""Whose answers a network learns from, beside the labels."""

from __future__ import annotations

from typing import Annotated

from pipeline.section import Limits, section


@section
class Teachers:
    """Distillation (Hinton et al. 2015, arXiv 1503.02531): the loss of the labels, plus `weight` times that of what
    the teachers say.

    A fold model learns from the teachers' models of the same fold alone, which have not seen the fold either.
    """

    members: Annotated[tuple[str, ...], Limits(min_length=1)]
    """Names under `members`; several count as the mean of their answers."""
    weight: Annotated[float, Limits(ge=0)] = 1.0
    """Of T^2 KL(teacher || student) at temperature T, of numbers half the squared difference; that of the labels is
    1."""
    temperature: Annotated[float, Limits(gt=0)] = 2.0
    """Both sides' logits are divided by it. Teachers answer rows that they have learned, and are too sure of them."""
    cosine: Annotated[float, Limits(ge=0)] = 0.0
    """Of 1 - cos between the pooled states, which needs networks of one width (Sanh et al. 2019, arXiv 1910.01108)."""

    def __post_init__(self) -> None:
        if not self.weight and not self.cosine:
            raise ValueError("teachers: weight and cosine are both 0: nothing is learned from them")
        if len(set(self.members)) < len(self.members):
            raise ValueError(f"teachers.members: expected different names, found {list(self.members)}")
