"""What is compared: each strategy is the plain recipe with some of its settings changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.stability.protocol import PLAIN
from pipeline.settings.finetuning import Training
from pipeline.validation import validated


@dataclass(frozen=True)
class Strategy:
    """One way to train."""

    changed: dict[str, Any] = field(default_factory=dict)
    """The settings of the plain recipe that change, key by key."""
    attempts: int = 0
    """How many the guard allows; 0 where none watches."""
    passes: float = 1.0
    """Forward and backward passes of a batch, where it is not one."""
    against: str = "plain"
    """The strategy that it is measured by, with the same epochs and steps; its own name for one that is such."""

    def settings(self, rate: float, seed: int) -> Training:
        """Returns `training` of a member, at a peak rate, with the seed of all three streams."""
        schedule = PLAIN["schedule"] | self.changed.get("schedule", {}) | {"rate": rate}
        seeds = {"head": seed, "order": seed, "dropout": seed}
        given = PLAIN | self.changed | {"schedule": schedule, "seeds": seeds}
        return validated(Training, given, "strategy")


QUIET: dict[str, Any] = {"schedule": {"warmup": 0.1}}

TEN: dict[str, Any] = {"epochs": 10, "batches": PLAIN["batches"] | {"rows_per_step": 8}}
"""1,250 steps, for which DENI's schedule was published."""

WIDE = {"space": "normalised", "noise": 1.0e-2, "step": 0.3, "radius": 0.3}
"""Moves that can be felt: the paper's 1e-5 is nothing beside embeddings of any size; most public code moves by 1."""

STRATEGIES = {
    "plain": Strategy(),
    "guard": Strategy(attempts=4),
    "warmup": Strategy(QUIET),
    "cosine": Strategy({"schedule": {"decay": "cosine"}}),
    "exponential": Strategy({"schedule": {"decay": "exponential"}}),
    "smoothing": Strategy({"label_smoothing": 0.2}),
    "no dropout": Strategy({"dropout": 0.0}),
    "layer decay": Strategy({"layer_decay": 0.8}),
    "layer cosine": Strategy({"layer_floor": 0.1}),
    "frozen words": Strategy({"freeze_embeddings": True}),
    "head first": Strategy({"head_first": {"epochs": 3, "rate": 1.0e-3}}),
    "re-init": Strategy({"reinit_layers": 1}),
    "ema": Strategy({"ema": 0.1}),
    "swa": Strategy({"swa": 0.5}),
    "soup of 3": Strategy({"runs": 3}),
    "awp": Strategy({"awp": {}}, passes=2.0),
    "fgm": Strategy({"fgm": {}}, passes=2.0),
    "smart": Strategy({"smart": {}}, passes=3.0),
    "smart, wide": Strategy({"smart": WIDE}, passes=3.0),
    "sift": Strategy({"smart": {"form": "sift"}}, passes=3.0),
    "proximal": Strategy({"proximal": {}}, passes=1.33),
    "r-drop": Strategy({"r_drop": {}}, passes=2.0),
    "mixout": Strategy({"mixout": {}}),
    "dsgd": Strategy({"dsgd": {}}),
    "dsgd, strong": Strategy({"dsgd": {"strength": 0.9}}),
    "dsgd, guard": Strategy({"dsgd": {}}, attempts=4),
    "patient": Strategy({"epochs": 20, **QUIET}),
    "smooth-mlm": Strategy({"label_smoothing": 0.2, "dropout": 0.0, **QUIET}),
    "smooth-mlm, awp": Strategy(
        {"label_smoothing": 0.2, "dropout": 0.0, "awp": {"step": 1.0e-4, "box": 1.0e-2}, **QUIET}, passes=2.0
    ),
    "do-no-harm": Strategy(
        {"head_first": {"epochs": 3, "rate": 1.0e-3}, "freeze_embeddings": True, "layer_floor": 0.1, **QUIET}
    ),
    "smart, proximal": Strategy(
        {"smart": {}, "proximal": {}, "schedule": {"warmup": 0.1, "decay": "exponential"}}, passes=3.33
    ),
    "ten epochs": Strategy(TEN, against="ten epochs"),
    "deni": Strategy(TEN | {"deni": {}}, against="ten epochs"),
}

BEST = "smooth-mlm"
"""The quiet strategy with the highest mean on the choice half of the screening at the cost of one run."""
GENTLE = ("dsgd", "dsgd, strong", "dsgd, guard")
ATTACKS = (
    *("awp", "fgm", "smart", "smart, wide", "sift", "proximal", "r-drop", "mixout"),
    *("smooth-mlm, awp", "smart, proximal"),
)
