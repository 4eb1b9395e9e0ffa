"""How weights are moved: seeds, learning rate and batches, for fine-tuning and pretraining alike."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pipeline.errors import PodiumError
from pipeline.section import Limits, from_json, section

Attention = Literal["fast", "huggingface"]
"""`fast`: our attention in a DeBERTa (pipeline/models/deberta/) and our dropout; `huggingface`: none of ours.

The first gives the same within rounding, the second draws other masks at the same rate."""


Seed = Annotated[int, Limits(ge=0, lt=2**31)]
"""What NumPy, torch and LightGBM take alike."""


@section
class Seeds:
    """Separate streams, so that one can be changed while the others stay."""

    head: Seed = 0
    """Fresh weights: head, pooling, LoRA."""
    order: Seed = 0
    """Order of the rows, and the inner slice."""
    dropout: Seed = 0


@section
class Reference:
    """A rate that is known to work with another number of rows per step, often the one of pre-training."""

    rate: Annotated[float, Limits(gt=0)]
    rows: Annotated[int, Limits(ge=1)]
    """Per step, at that rate."""
    rule: Literal["linear", "sqrt"] = "sqrt"
    """`linear` in the rows (Goyal et al. 2017, arXiv 1706.02677, for SGD), or in their square root, which suits Adam
    (Malladi et al. 2022, arXiv 2205.10287)."""

    def rate_for(self, rows: int) -> float:
        """Returns the rate for so many rows per step."""
        return self.rate * (rows / self.rows) ** (1.0 if self.rule == "linear" else 0.5)


@section
class RateSchedule:
    """Learning rate over the optimiser's steps."""

    rate: Annotated[float, Limits(gt=0)]
    """At its peak, for the top of the network. Left out where `reference` gives it."""
    reference: Reference | None = None
    warmup: Annotated[float, Limits(ge=0, lt=1)] = 0.1
    """Share of the steps over which the rate rises from 0."""
    decay: Literal["linear", "cosine", "exponential", "none"] = "linear"
    """From the peak to 0 (linear, cosine), or by `decay_per_epoch` in each epoch."""
    decay_per_epoch: Annotated[float, Limits(gt=0, le=1)] = 0.5


@section
class Batches:
    """What a step of the optimiser sees, and how much of it stands in memory at a time."""

    rows_per_step: Annotated[int, Limits(ge=1)] = 32
    tokens_per_batch: Annotated[int, Limits(ge=16)] = 8192
    """Padding included. Lower it where memory runs out: a step is then put together from more batches, and learns the
    same."""


def with_rate(given: dict[str, Any], usual: Batches) -> dict[str, Any]:
    """Returns `given`, the raw value of a section with schedule and batches, with the rate of `schedule.reference`.

    Raises: ValueError where another rate is given as well.
    """
    schedule = given.get("schedule")
    if not isinstance(schedule, dict) or not schedule.get("reference"):
        return given
    try:
        batches = from_json(Batches, asdict(usual) | dict(given.get("batches") or {}))
        rate = from_json(Reference, schedule["reference"]).rate_for(batches.rows_per_step)
    except (TypeError, ValueError, PodiumError):
        raise ValueError("schedule.reference: expected {rate: …, rows: …, rule: linear or sqrt}") from None
    if schedule.get("rate") not in (None, rate):
        raise ValueError(f"schedule.reference gives a rate of {rate:.3g} already: leave out schedule.rate")
    return given | {"schedule": schedule | {"rate": rate}}
