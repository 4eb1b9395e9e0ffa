"""What is compared: each strategy is the plain recipe with some of its settings changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.stability.protocol import PLAIN
from pipeline.settings.neural import Training


@dataclass(frozen=True)
class Strategy:
    """One way to train."""

    changed: dict[str, Any] = field(default_factory=dict)
    """Of the plain recipe's settings, key by key."""
    attempts: int = 0
    """That the guard allows; 0 where none watches."""

    def settings(self, rate: float, seed: int) -> dict[str, Any]:
        """`training` of a member, at a peak rate, with the seed of all three streams."""
        schedule = PLAIN["schedule"] | self.changed.get("schedule", {}) | {"rate": rate}
        seeds = {"head": seed, "order": seed, "dropout": seed}
        given = PLAIN | self.changed | {"schedule": schedule, "seeds": seeds}
        return Training.model_validate(given).model_dump(mode="json")


QUIET: dict[str, Any] = {"schedule": {"warmup": 0.1}}

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
    "patient": Strategy({"epochs": 20, **QUIET}),
    "smooth-mlm": Strategy({"label_smoothing": 0.2, "dropout": 0.0, **QUIET}),
    "do-no-harm": Strategy(
        {"head_first": {"epochs": 3, "rate": 1.0e-3}, "freeze_embeddings": True, "layer_floor": 0.1, **QUIET}
    ),
}
