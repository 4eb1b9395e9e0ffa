"""What an answer is, as an exponential family: its natural parameters, its mean, its loss, its constant predictor.

Members and stackers compute with natural parameters (logits, log odds, standardised numbers); files, teammates and
people see means (probabilities, numbers). Everything between them is a function of one potential A: the loss is
A(eta) - eta . t for the statistic t of a label, and the mean is A's derivative (Barndorff-Nielsen 1978,
"Information and Exponential Families"). Needs NumPy and SciPy alone, because the kernel ships it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from scipy.special import expit, logit, softmax

SMALLEST = 1.0e-6
"""Probabilities below this are equal to a stacker; it keeps one over-sure member from outvoting all others."""
LARGEST = 700.0
"""A logarithm whose number is finite."""
SMALLEST_LIKELIHOOD = 1.0e-15
"""The clip of scikit-learn's and Kaggle's log loss."""


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns minus the log probability of each true class, (rows,) in nats, from (rows, classes) probabilities."""
    return -np.log(np.clip(probabilities[np.arange(len(labels)), labels], SMALLEST_LIKELIHOOD, 1.0))


class Family(Protocol):
    """One kind of answer of `outputs` numbers. Means and natural parameters are (rows, outputs); NaN rows stay NaN."""

    @property
    def outputs(self) -> int:
        """Numbers per answer."""

    @property
    def bounded(self) -> bool:
        """Whether a mean is a probability."""

    @property
    def exchangeable(self) -> bool:
        """Whether the outputs are a row's own options, so that no output may be treated unlike another."""

    def statistic(self, labels: np.ndarray) -> np.ndarray:
        """Returns t (rows, outputs) float64 of labels as train.parquet has them; NaN where a label is not known."""

    def link(self, means: np.ndarray) -> np.ndarray:
        """Returns the natural parameters of means."""

    def means(self, eta: np.ndarray) -> np.ndarray:
        """Returns the means of natural parameters."""

    def potential(self, eta: np.ndarray) -> np.ndarray:
        """Returns A, summed over the outputs, which are the first axis here. It may overwrite `eta`."""

    def loss_and_slope(self, eta: np.ndarray, statistic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the loss (rows,) in nats, but for what no answer changes, and its derivative (rows, outputs).

        It may overwrite `eta`.
        """

    def losses(self, labels: np.ndarray, means: np.ndarray) -> np.ndarray:
        """Returns the loss of each row, (rows,), in nats."""

    def prior(self, labels: np.ndarray) -> np.ndarray:
        """Returns the constant predictor's mean, (outputs,)."""

    def uncertainty(self, means: np.ndarray) -> np.ndarray:
        """Returns how unsure each answer is, (rows,): its expected loss in nats, but for a constant."""

    def divergence(self, better: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Returns the loss (rows,) that `present` is expected to have above that of `better`, if `better` is right."""

    def expected(self, means: np.ndarray) -> np.ndarray:
        """Returns what a metric that wants means is given, and what a submission of means holds."""

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Returns an integer per row, (rows,): every fold gets its share of each."""


def average(family: Family, parts: list[np.ndarray]) -> np.ndarray:
    """Returns the average of fold models, by the mean of their natural parameters; each is (rows, outputs) means."""
    return family.means(np.mean([family.link(part) for part in parts], axis=0))


@dataclass(frozen=True)
class Categorical:
    """One of several classes: probabilities that sum to 1, and centred logits."""

    outputs: int
    exchangeable: bool = False
    bounded: ClassVar[bool] = True

    def statistic(self, labels: np.ndarray) -> np.ndarray:
        return np.eye(self.outputs)[labels]

    def link(self, means: np.ndarray) -> np.ndarray:
        logs = np.log(np.clip(means, SMALLEST, 1.0))
        return logs - logs.mean(axis=-1, keepdims=True)

    def means(self, eta: np.ndarray) -> np.ndarray:
        return softmax(eta, axis=-1)

    def potential(self, eta: np.ndarray) -> np.ndarray:
        top = eta.max(axis=0)
        eta -= top
        top += np.log(np.exp(eta, out=eta).sum(axis=0))
        return top

    def loss_and_slope(self, eta: np.ndarray, statistic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        eta -= eta.max(axis=1, keepdims=True)
        of_truth = (eta * statistic).sum(axis=1)
        np.exp(eta, out=eta)
        total = eta.sum(axis=1)
        eta /= total[:, None]
        eta -= statistic
        return np.log(total) - of_truth, eta

    def losses(self, labels: np.ndarray, means: np.ndarray) -> np.ndarray:
        return log_losses(labels, means)

    def prior(self, labels: np.ndarray) -> np.ndarray:
        if self.exchangeable:
            return np.full(self.outputs, 1.0 / self.outputs)
        return np.bincount(labels, minlength=self.outputs) / len(labels)

    def uncertainty(self, means: np.ndarray) -> np.ndarray:
        clipped = np.clip(means, SMALLEST, 1.0)
        return -(clipped * np.log(clipped)).sum(axis=1)

    def divergence(self, better: np.ndarray, present: np.ndarray) -> np.ndarray:
        better, present = np.clip(better, SMALLEST, 1.0), np.clip(present, SMALLEST, 1.0)
        return (better * (np.log(better) - np.log(present))).sum(axis=1)

    def expected(self, means: np.ndarray) -> np.ndarray:
        return means

    def strata(self, labels: np.ndarray) -> np.ndarray:
        return labels


@dataclass(frozen=True)
class Bernoulli:
    """Several labels, each 0 or 1 (or a share between): a probability each, and log odds. The loss is their mean."""

    outputs: int
    exchangeable: ClassVar[bool] = False
    bounded: ClassVar[bool] = True

    def statistic(self, labels: np.ndarray) -> np.ndarray:
        return np.asarray(labels, dtype=np.float64)

    def link(self, means: np.ndarray) -> np.ndarray:
        return logit(np.clip(means, SMALLEST, 1.0 - SMALLEST))

    def means(self, eta: np.ndarray) -> np.ndarray:
        return expit(eta)

    def potential(self, eta: np.ndarray) -> np.ndarray:
        return np.logaddexp(np.zeros(1, eta.dtype), eta).sum(axis=0)

    def loss_and_slope(self, eta: np.ndarray, statistic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        unknown = np.isnan(statistic)
        small = np.exp(-np.abs(eta))  # both the loss and its slope come of this one exponential, which never overflows
        losses = np.maximum(eta, 0.0) + np.log1p(small) - eta * statistic
        slope = np.where(eta >= 0, 1.0, small) / (1.0 + small) - statistic
        losses[unknown] = slope[unknown] = 0.0
        return losses.mean(axis=1), slope / self.outputs

    def losses(self, labels: np.ndarray, means: np.ndarray) -> np.ndarray:
        truth = self.statistic(labels)
        known, means = np.isfinite(truth), np.clip(means, SMALLEST_LIKELIHOOD, 1.0 - SMALLEST_LIKELIHOOD)
        each = -(truth * np.log(means) + (1 - truth) * np.log1p(-means))
        # What is not known has no loss, and what is not answered none that is known.
        return np.where(known | ~np.isfinite(means), each, 0.0).mean(axis=1)

    def prior(self, labels: np.ndarray) -> np.ndarray:
        truth = self.statistic(labels)
        known = np.isfinite(truth)
        return np.where(known, truth, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)

    def uncertainty(self, means: np.ndarray) -> np.ndarray:
        return np.log(2.0) - self.divergence(means, np.full_like(means, 0.5))  # the mean entropy

    def divergence(self, better: np.ndarray, present: np.ndarray) -> np.ndarray:
        b, p = (np.clip(each, SMALLEST, 1.0 - SMALLEST) for each in (better, present))
        return (b * (np.log(b) - np.log(p)) + (1 - b) * (np.log1p(-b) - np.log1p(-p))).mean(axis=1)

    def expected(self, means: np.ndarray) -> np.ndarray:
        return means

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """A row counts for its rarest label; the folds then share out the others nearly as evenly."""
        truth = np.nan_to_num(self.statistic(labels)) > 0.5
        rarest_first = np.argsort(truth.sum(axis=0), kind="stable")
        ordered = truth[:, rarest_first]
        return np.where(ordered.any(axis=1), ordered.argmax(axis=1) + 1, 0)


@dataclass(frozen=True)
class Ordinal(Bernoulli):
    """Integer scores from `low` to `low + outputs`: the probabilities that the score exceeds low, low + 1, ...

    A staircase of binary questions under one loss (Frank and Hall 2001, "A simple approach to ordinal classification").
    Their sum is the expected score, whatever order the single answers have.
    """

    low: int = 0

    def statistic(self, labels: np.ndarray) -> np.ndarray:
        steps = self.low + np.arange(self.outputs)
        labels = np.asarray(labels, dtype=np.float64).reshape(-1, 1)
        return np.where(np.isfinite(labels), labels > steps, np.nan)

    def expected(self, means: np.ndarray) -> np.ndarray:
        return self.low + means.sum(axis=1, keepdims=True)

    def strata(self, labels: np.ndarray) -> np.ndarray:
        return (np.nan_to_num(np.asarray(labels, dtype=np.float64).reshape(-1)) - self.low).astype(np.int64).clip(0)


@dataclass(frozen=True)
class Gaussian:
    """One number or several: the mean in the competition's units, and in units of the training rows' spread.

    `log`: numbers from 0 that are learned as log(1 + number), whose centre and spread are meant.
    """

    centre: tuple[float, ...]
    spread: tuple[float, ...]
    log: bool = False
    exchangeable: ClassVar[bool] = False
    bounded: ClassVar[bool] = False

    @property
    def outputs(self) -> int:
        """Numbers per answer."""
        return len(self.centre)

    def statistic(self, labels: np.ndarray) -> np.ndarray:
        numbers = np.asarray(labels, dtype=np.float64)
        if self.log:
            numbers = np.log1p(np.maximum(numbers, SMALLEST - 1.0))
        return (numbers - np.array(self.centre)) / np.array(self.spread)

    def link(self, means: np.ndarray) -> np.ndarray:
        return self.statistic(means)

    def means(self, eta: np.ndarray) -> np.ndarray:
        found = eta * np.array(self.spread) + np.array(self.centre)
        return np.expm1(np.minimum(found, LARGEST)) if self.log else found

    def potential(self, eta: np.ndarray) -> np.ndarray:
        return 0.5 * (eta**2).sum(axis=0)

    def loss_and_slope(self, eta: np.ndarray, statistic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        away = np.where(np.isfinite(statistic), eta - statistic, 0.0)
        return 0.5 * (away**2).mean(axis=1), away / self.outputs

    def losses(self, labels: np.ndarray, means: np.ndarray) -> np.ndarray:
        truth = self.statistic(labels)
        away = self.link(means) - truth
        return 0.5 * np.where(np.isfinite(truth) | ~np.isfinite(means), away**2, 0.0).mean(axis=1)

    def prior(self, labels: np.ndarray) -> np.ndarray:
        numbers = self.statistic(labels) if self.log else np.asarray(labels, dtype=np.float64)
        nothing = ~np.isfinite(numbers).any(axis=0)  # of an output of which these rows know nothing
        mean = np.nanmean(np.where(nothing, 0.0 if self.log else np.array(self.centre), numbers), axis=0)
        return self.means(mean) if self.log else mean

    def uncertainty(self, means: np.ndarray) -> np.ndarray:
        """How far an answer is from the common one: all that is known without a variance of its own."""
        return 0.5 * (self.link(means) ** 2).mean(axis=1)

    def divergence(self, better: np.ndarray, present: np.ndarray) -> np.ndarray:
        return 0.5 * ((self.link(better) - self.link(present)) ** 2).mean(axis=1)

    def expected(self, means: np.ndarray) -> np.ndarray:
        return np.maximum(means, 0.0) if self.log else means

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Tenths of the rows by the mean of their standardised numbers."""
        values = np.nan_to_num(self.statistic(labels)).mean(axis=1)
        return np.searchsorted(np.unique(np.quantile(values, np.linspace(0.1, 0.9, 9))), values)
