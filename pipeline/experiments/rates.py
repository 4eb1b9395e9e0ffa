"""A learning rate for a network member: one fold on the same rows in the same order, at a ladder of rates.

make rate MEMBER=siamese ROWS=1000 FOLD=0
make rate MEMBER=siamese RATES="1e-5 3e-5 1e-4"

Variants of LoRA come to the same score within 1 to 2 % once each has a rate of its own (Lee et al. 2026, arXiv
2602.04998): a rate is worth looking for first.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pipeline.artifacts import Artifacts
from pipeline.config import Params
from pipeline.errors import DivergedError, PodiumError
from pipeline.experiments.tries import check_member, look_at
from pipeline.settings.finetuning import NetworkSettings

FACTORS = (0.1, 0.32, 1.0, 3.2, 10.0)
"""Of the member's own rate: two trials for each power of ten."""
ERRORS = 1.0
"""A lower rate is as good as the best where it loses no more than that many standard errors, of paired differences."""


@dataclass(frozen=True)
class Trial:
    """One rate, and what came of it."""

    rate: float
    losses: np.ndarray | None
    """(rows,) in nats, on rows of the fold; None where the training loss was not finite."""
    constant: float
    """The constant predictor's mean loss on the same rows; NaN beside a None, as what follows."""
    score: float
    """The competition's."""
    seconds: float
    """Of training."""
    stopped: str | None
    """Why the guard stopped the run or called it fruitless, or that its loss was not finite."""

    @property
    def loss(self) -> float:
        """The mean loss, infinite for a run without one."""
        return math.inf if self.losses is None else float(self.losses.mean())

    @property
    def error(self) -> float:
        """The standard error of the mean loss, NaN for a run without one."""
        return math.nan if self.losses is None else float(self.losses.std() / math.sqrt(len(self.losses)))


@dataclass(frozen=True)
class Suggestion:
    """What the ladder says."""

    rate: float | None
    """None where no run has learned anything."""
    reason: str


def ladder_of(name: str, params: Params, asked: str) -> list[float]:
    """Returns the rates to try, the lowest first: those of `asked` ("1e-5 3e-5"), or FACTORS of the member's own.

    Raises: PodiumError for a member without a rate, or what is no list of rates.
    """
    check_member(name, params)
    settings = params.members[name]
    if not isinstance(settings, NetworkSettings):
        raise PodiumError(f"MEMBER: {name} is {settings.kind} and has no learning rate; name an encoder or a decoder")
    if not settings.training.epochs:
        raise PodiumError(f"MEMBER: {name} learns nothing (training.epochs 0): there is no rate to look for")
    if not asked.strip():
        return [settings.training.schedule.rate * factor for factor in FACTORS]
    try:
        rates = sorted({float(each) for each in asked.split()})
    except ValueError:
        rates = []
    if len(rates) < 2 or rates[0] <= 0 or not math.isfinite(rates[-1]):
        raise PodiumError(f'RATES: expected two rates or more, such as "1e-5 3e-5 1e-4", found "{asked}"')
    return rates


def climb(name: str, fold: int, rows: int, rates: list[float], params: Params, artifacts: Artifacts) -> Iterator[Trial]:
    """Trains the fold at each rate, keeps no model, and yields what came of it as soon as it is known.

    The guard may stop a run and does not restart it, which would lower its rate. Rows are shown once.
    """
    settings = params.members[name]
    assert isinstance(settings, NetworkSettings)
    guard = replace(params.guard, max_attempts=min(params.guard.max_attempts, 1))
    training = settings.training
    for number, rate in enumerate(rates):
        head = training.head_rate and training.head_rate * rate / training.schedule.rate
        schedule = replace(training.schedule, rate=rate, reference=None)
        member = replace(settings, training=replace(training, schedule=schedule, head_rate=head))
        asked = replace(params, members=params.members | {name: member}, guard=guard)
        try:
            with contextlib.redirect_stdout(io.StringIO()) if number else contextlib.nullcontext():
                look, _ = look_at(name, fold, rows, asked, artifacts)
        except DivergedError:
            yield Trial(rate, None, math.nan, math.nan, math.nan, "the loss is not finite")
            continue
        stopped = look.training["failed"] if look.training else None
        yield Trial(rate, look.losses, float(look.constant_losses.mean()), look.score, look.seconds, stopped)


def suggestion(trials: list[Trial]) -> Suggestion:
    """Returns the lowest rate that is as good as the best within its paired error, and why.

    Lower is safer: whole folds take more steps than a slice, and what fails at all fails at high rates.
    """
    sound = [each for each in trials if each.losses is not None and not each.stopped and each.loss < each.constant]
    if not sound:
        return Suggestion(None, "no rate did better than the constant predictor: give it more ROWS, or other RATES")
    best = min(sound, key=lambda each: each.loss)
    chosen = min((each for each in sound if _as_good(each, best)), key=lambda each: each.rate)
    reason = "it has the lowest loss"
    if chosen is not best:
        reason = f"no higher rate is certainly better; the lowest loss is that of {best.rate:.1e}"
    if best is trials[0] or best is trials[-1]:
        end = "lowest" if best is trials[0] else "highest"
        reason += f"; the best is the {end} that was tried: try others beyond it, with RATES"
    return Suggestion(chosen.rate, reason)


def table(trials: list[Trial], rate: float | None) -> str:
    """Returns a line per trial, the one of `rate` marked as the suggested one."""
    lines = [("rate", "loss", "error", "score", "seconds", "")]
    for each in trials:
        note = each.stopped or ("<- suggested" if each.rate == rate else "")
        figures = f"{each.loss:.4f}", f"{each.error:.4f}", f"{each.score:.5f}", f"{each.seconds:.0f}"
        if each.losses is None:
            figures = "-", "-", "-", "-"
        lines.append((f"{each.rate:.1e}", *figures, note))
    return "\n".join("  ".join([*(f"{value:>8}" for value in line[:-1]), line[-1]]).rstrip() for line in lines)


def _as_good(one: Trial, best: Trial) -> bool:
    assert one.losses is not None and best.losses is not None
    apart = one.losses - best.losses
    return bool(apart.mean() <= ERRORS * apart.std() / math.sqrt(len(apart)))
