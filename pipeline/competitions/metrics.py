"""The competitions' metrics, each as one number per row, so that two models can be compared row by row.

A new metric is a function and a row of METRICS, or of FAMILIES for one with a k, for one that is no mean of rows, too:
see `Metric`. The Kaggle kernel ships this file: it needs NumPy alone.

The arrays, by the competition's outcome:

- `classes`, `choice`: labels (rows,) are class indices; answers (rows, classes) probabilities, or (rows,) decisions
- `labels`: labels (rows, columns) are 0 or 1, NaN where unknown; answers (rows, columns) probabilities, or 0 or 1
- `ordered`: labels (rows, 1) are whole numbers; answers (rows, 1) expected or decided scores
- `numbers`: labels and answers (rows, columns)

A cell without a label does not count, nor does a column without any. Where a metric needs positive rows, they are those
of class 1 of two, or of a label of 0.5 and above.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import numpy as np

from pipeline.competitions.family import SMALLEST_LIKELIHOOD, log_losses
from pipeline.errors import PodiumError, nearest


@dataclass(frozen=True)
class Metric:
    """A competition's score, told as one number per row whose mean it is.

    For a score that is no mean over rows, such as the area under a curve, a row's number is the score plus the row's
    influence on it (Hampel 1974, "The influence curve and its role in robust estimation"): influences have mean zero,
    and standard errors and paired comparisons hold to first order. The numbers belong to the rows that they were
    computed from; some of these rows alone need a call of their own.
    """

    per_row: Callable[..., np.ndarray]
    """labels, answers, and groups where `grouped` -> (rows,); all NaN where the rows have no score."""
    greater_is_better: bool
    wants: Literal["mean", "decided"] = "mean"
    """Whether the answers are means (probabilities, expected scores) or decisions made from them."""
    outcomes: tuple[str, ...] = ("classes", "choice")
    """The competitions' outcomes for which the metric makes sense."""
    grouped: bool = False
    """Whether the score needs a group per row."""

    @property
    def sign(self) -> float:
        """1 where a greater score is better, else -1."""
        return 1.0 if self.greater_is_better else -1.0

    def score(self, labels: np.ndarray, answers: np.ndarray, groups: np.ndarray | None = None) -> float:
        """Returns the competition's score of the answers; groups count only where the metric is `grouped`."""
        if not self.grouped:
            return float(self.per_row(labels, answers).mean())
        if groups is None:
            raise PodiumError("metric: expected a group per row, found none")
        return float(self.per_row(labels, answers, groups).mean())

    def better(self, first: float, second: float) -> bool:
        """Returns whether the score `first` beats `second`."""
        return first > second if self.greater_is_better else first < second


# Tools: a score plus influences, of some rows, of columns, of a ratio.


def among(kept: np.ndarray, one: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    """Returns the numbers, (rows,), of a score that `one` computes from the rows where the boolean `kept` holds.

    A row outside has no influence. One inside has more than among its own kind, as these are fewer.
    """
    if not kept.any():
        return np.full(len(kept), np.nan)
    found = one(*(each[kept] for each in arrays))
    if kept.all():
        return found
    result = np.full(len(kept), found.mean())
    result[kept] += (found - found.mean()) / kept.mean()
    return result


def by_column(one: Callable[..., np.ndarray], labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Returns the numbers (rows,) of the mean over the columns of (rows, columns) labels, each scored by `one`.

    Rows without a label in a column do not count in it, columns without any do not count at all.
    """
    known = ~np.isnan(labels)
    columns = np.flatnonzero(known.any(axis=0))
    if not len(columns):
        return np.full(len(labels), np.nan)
    truth, said = labels.astype(np.float64), answers.astype(np.float64)
    return np.mean([among(known[:, each], one, truth[:, each], said[:, each]) for each in columns], axis=0)


def ratio(numerators: np.ndarray, denominators: np.ndarray, undefined: float = np.nan) -> np.ndarray:
    """Returns the numbers of mean(numerators) / mean(denominators), (rows,) or (rows, columns) like the arguments.

    Where the denominators are all zero, the score is `undefined`.
    """
    weight = denominators.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = numerators.mean(axis=0) / weight
        found = score + (numerators - score * denominators) / weight
    return np.where(weight == 0, undefined, found)


def below(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns for each row the summed weight of the rows with a lower value, and half that of the rows with its own."""
    _, place = np.unique(values, return_inverse=True)
    each = np.bincount(place, weights)
    return (np.cumsum(each) - each / 2)[place]


def constant(values: np.ndarray) -> bool:
    """Whether all of the values (rows,) are equal: exact, where a computed variance is not."""
    return bool((values == values[0]).all())


def only_column(metric: str, array: np.ndarray, instead: str = "") -> np.ndarray:
    """Returns the one column, (rows,), of (rows, 1) labels or answers; several raise a PodiumError."""
    if array.shape[1] != 1:
        raise PodiumError(f"{metric}: expected one label column, found {array.shape[1]}{instead}")
    return array[:, 0]


def two_sided(metric: str, labels: np.ndarray, answers: np.ndarray, instead: str = "") -> tuple[np.ndarray, ...]:
    """Returns which rows have a label, which are positive, and the probabilities of that, each (rows,).

    Works for one label column and for two classes; others raise a PodiumError.
    """
    if labels.ndim == 2:
        labels, scores = only_column(metric, labels, instead), only_column(metric, answers, instead)
    elif answers.shape[1] == 2:
        scores = answers[:, 1]
    else:
        raise PodiumError(f"{metric}: expected two classes, found {answers.shape[1]}")
    return ~np.isnan(labels), labels >= 0.5, scores


def decided(metric: str, labels: np.ndarray, answers: np.ndarray, instead: str = "") -> tuple[np.ndarray, ...]:
    """Returns which rows have a label, the labels, and the classes that were answered, each (rows,).

    Works for classes, of which probabilities (rows, classes) stand for the likeliest, and for one label column; several
    raise a PodiumError.
    """
    if labels.ndim == 2:
        labels, answers = only_column(metric, labels, instead), only_column(metric, answers, instead)
    elif answers.ndim == 2:
        answers = answers.argmax(axis=1)
    return ~np.isnan(labels), labels, answers


# Means over rows.


def hits(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns 1.0 where the likeliest class is the true one, else 0.0, (rows,), from (rows, classes) probabilities."""
    return (probabilities.argmax(axis=1) == labels).astype(np.float64)


def binary_log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns the log loss of each probability of a 1, in nats, all (rows,)."""
    one, zero = (np.log(np.clip(each, SMALLEST_LIKELIHOOD, 1.0)) for each in (probabilities, 1.0 - probabilities))
    return -(labels * one + (1.0 - labels) * zero)


def log_loss(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Log loss in nats; of label columns, the mean over the columns of their binary log loss.

    The classes' shares, as a constant answer, score their entropy: 0.693 for two equal classes.
    """
    return log_losses(labels, answers) if labels.ndim == 1 else by_column(binary_log_losses, labels, answers)


def squares(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Returns the squared errors (rows,)."""
    return (labels - answers) ** 2


def brier(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Brier score (Brier 1950, "Verification of forecasts expressed in terms of probability"), from 0 to 2.

    The sum over the classes of the squared differences from 1 for the true and 0 for the other classes. Of label
    columns, the mean over the columns of the squared difference, from 0 to 1: of one column half of what two classes
    score.
    """
    if labels.ndim == 2:
        return by_column(squares, labels, answers)
    return ((answers - (labels[:, None] == np.arange(answers.shape[1]))) ** 2).sum(axis=1)


def accuracy(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Share of right answers: of the rows for classes, of the cells with a label for columns.

    A constant answer scores the share of its class.
    """
    if labels.ndim == 1:
        return hits(labels, answers) if answers.ndim == 2 else (answers == labels).astype(np.float64)
    known = ~np.isnan(labels)
    return ratio((answers == labels).sum(axis=1), known.sum(axis=1))


def mae(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Mean absolute error; of several columns, the mean over the columns. The median is the best constant."""
    return by_column(lambda truth, said: np.abs(truth - said), labels, answers)


def true_ranks(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Returns the rank of each true class by its probability, (rows,) from 1; of equal ones the lower index is first.

    A row with a NaN has the rank NaN: it must not pass for a good one.
    """
    own = answers[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(answers.shape[1]) < labels[:, None]
    ranks = 1.0 + ((answers > own) | ((answers == own) & earlier)).sum(axis=1)
    return np.where(np.isnan(answers).any(axis=1), np.nan, ranks)


def reciprocal_ranks(labels: np.ndarray, answers: np.ndarray, k: int) -> np.ndarray:
    """Mean average precision of the k likeliest classes, one of which is true: 1 / its rank, 0 after the k-th."""
    ranks = true_ranks(labels, answers)
    return np.where(ranks > k, 0.0, 1.0 / ranks)


def discounted_gains(labels: np.ndarray, answers: np.ndarray, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain of the k likeliest classes (Järvelin and Kekäläinen 2002, "Cumulated
    gain-based evaluation of IR techniques"), one of which is true: 1 / log2(1 + its rank), 0 after the k-th.
    """
    ranks = true_ranks(labels, answers)
    return np.where(ranks > k, 0.0, 1.0 / np.log2(1.0 + ranks))


def hits_at(labels: np.ndarray, answers: np.ndarray, k: int) -> np.ndarray:
    """Share of the rows whose true class is one of the k likeliest, scikit-learn's top-k accuracy."""
    ranks = true_ranks(labels, answers)
    return np.where(np.isnan(ranks), np.nan, ranks <= k)


def exact_match(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Share of the rows in which every label is right, scikit-learn's accuracy of several labels."""
    known = ~np.isnan(labels)
    right = ((answers == labels) | ~known).all(axis=1).astype(np.float64)
    return among(known.any(axis=1), lambda each: each, right)


# Functions of the table of true and answered classes.


def recalls(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Returns the numbers of the mean recall over the classes that occur in the labels, all (rows,)."""
    true = labels[:, None] == np.unique(labels)
    return ratio(true & (answers == labels)[:, None], true).mean(axis=1)


def balanced_accuracy(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Balanced accuracy: the mean recall over the classes that occur. A constant scores 1 / classes."""
    known, truth, said = decided("balanced_accuracy", labels, answers)
    return among(known, recalls, truth, said)


def positives_f1(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Returns the numbers of the F1 score, 0 without a positive, from labels and answers of 0 or 1, all (rows,)."""
    true, said = labels >= 0.5, answers >= 0.5
    return ratio(2.0 * (true & said), 1.0 * true + said, undefined=0.0)


def classes_f1(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Returns the numbers of the mean F1 score over the classes that occur in labels or answers, all (rows,)."""
    classes = np.union1d(labels, answers)
    true, said = labels[:, None] == classes, answers[:, None] == classes
    return ratio(2.0 * (true & said), 1.0 * true + said).mean(axis=1)


def f1(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """F1 score of the positive class, 0 where neither labels nor answers have one.

    All positive is the best constant: 2s / (1 + s) for a share s of positives.
    """
    instead = "; macro_f1 and micro_f1 take several"
    known, truth, said = decided("f1", labels, answers, instead)
    if labels.ndim == 1 and max(truth.max(initial=0), said.max(initial=0)) > 1:
        raise PodiumError(f"f1: expected two classes, found class {max(truth.max(), said.max())}{instead}")
    return among(known, positives_f1, truth, said)


def macro_f1(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Macro F1 as scikit-learn counts it: the mean over the classes, of one label column over its two classes.

    Of several label columns, the mean over the columns of the F1 score of the ones, 0 in a column without any.
    """
    if labels.ndim == 2 and labels.shape[1] > 1:
        return by_column(positives_f1, labels, answers)
    known, truth, said = decided("macro_f1", labels, answers)
    return among(known, classes_f1, truth, said)


def micro_f1(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Micro F1 as scikit-learn counts it: of classes and of one label column it is the accuracy.

    Of several label columns, the F1 score of the ones over all cells with a label, 0 without any.
    """
    if labels.ndim == 1 or labels.shape[1] == 1:
        return accuracy(labels, answers)
    true, said = labels >= 0.5, (answers >= 0.5) & ~np.isnan(labels)
    return ratio(2.0 * (true & said).sum(axis=1), (1.0 * true + said).sum(axis=1), undefined=0.0)


def weighted_f1(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Weighted F1 as scikit-learn counts it: the mean over the classes, each with its share of the rows as its weight.

    Of one label column it is that of its two classes.
    """
    known, truth, said = decided("weighted_f1", labels, answers)
    return among(known, weighted_classes_f1, truth, said)


def weighted_classes_f1(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Returns the numbers of the F1 score of the classes in the labels, weighted by their shares, all (rows,)."""
    classes = np.unique(labels)
    true, said = labels[:, None] == classes, answers[:, None] == classes
    each = ratio(2.0 * (true & said), 1.0 * true + said)
    score, share = each.mean(axis=0), true.mean(axis=0)
    return (score * true + share * (each - score)).sum(axis=1)  # of a product of two means


def samples_f1(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Mean F1 of Kaggle, scikit-learn's `samples`: each row's F1 score of its labels, 0 without any on either side."""
    true, said = labels >= 0.5, (answers >= 0.5) & ~np.isnan(labels)
    hits, total = (true & said).sum(axis=1), true.sum(axis=1) + said.sum(axis=1)
    found = np.where(total > 0, 2.0 * hits / np.maximum(total, 1), 0.0)
    return among(~np.isnan(labels).all(axis=1), lambda each: each, found)


def correlations_of_classes(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Returns the numbers of Matthews' coefficient, 0 where labels or answers are constant, all (rows,)."""
    if constant(labels) or constant(answers):
        return np.zeros(len(labels))
    classes = np.union1d(labels, answers)
    true, said = labels[:, None] == classes, answers[:, None] == classes
    t, s, hit = true.mean(axis=0), said.mean(axis=0), answers == labels
    covariance, true_variance, said_variance = hit.mean() - t @ s, 1.0 - t @ t, 1.0 - s @ s
    # the influences on the covariance and on the two variances, then the quotient rule
    on_covariance = hit - hit.mean() - (true - t) @ s - (said - s) @ t
    on_true, on_said = -2.0 * (true - t) @ t, -2.0 * (said - s) @ s
    scale = np.sqrt(true_variance * said_variance)
    score = covariance / scale
    return score + on_covariance / scale - score / 2.0 * (on_true / true_variance + on_said / said_variance)


def mcc(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Matthews' correlation coefficient, of several classes by Gorodkin (2004, "Comparing two K-category assignments by
    a K-category correlation coefficient"). A constant scores 0.
    """
    known, truth, said = decided("mcc", labels, answers)
    return among(known, correlations_of_classes, truth, said)


def kappas(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Returns the numbers of the quadratic weighted kappa, all (rows,); NaN where all of both are one score."""
    true, said = labels - labels.mean(), answers - answers.mean()
    gap = labels.mean() - answers.mean()
    error = ((labels - answers) ** 2).mean()
    by_chance = (true**2).mean() + (said**2).mean() + gap**2  # the error of the same scores, shuffled
    if by_chance == 0:
        return np.full(len(labels), np.nan)
    on_error = (labels - answers) ** 2 - error
    on_chance = true**2 - (true**2).mean() + said**2 - (said**2).mean() + 2.0 * gap * (true - said)
    return 1.0 - error / by_chance - (on_error - error / by_chance * on_chance) / by_chance


def qwk(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Quadratic weighted kappa (Cohen 1968, "Weighted kappa"), by the distances between scores as Kaggle counts it.

    scikit-learn counts by the distances between the places of the scores that occur: the same without gaps. A constant
    scores 0, and NaN where it and all labels are one score. Of several columns, the mean over the columns.
    """
    return by_column(kappas, labels, answers)


# Areas under curves.


def aucs_of_groups(positive: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns the numbers of the mean over the groups with both classes of the area under the ROC curve, all (rows,).

    A row's influence is its placement, the share of its group's other class that it is ranked right of (DeLong, DeLong
    and Clarke-Pearson 1988, "Comparing the areas under two or more correlated receiver operating characteristic
    curves"). A group's rows share how far the group is from the mean, so that errors clustered by group hold, too.
    """
    _, group = np.unique(groups, return_inverse=True)
    good, bad = (np.bincount(group, each) for each in (positive, ~positive))
    both = (good > 0) & (bad > 0)
    if not both.any() or np.isnan(scores).any():
        return np.full(len(scores), np.nan)
    _, place = np.unique(scores, return_inverse=True)
    place = place + group * len(scores)  # sorts by group first: what is below then is all of the earlier groups, too
    with np.errstate(divide="ignore", invalid="ignore"):
        over_bad = (below(place, ~positive) - (np.cumsum(bad) - bad)[group]) / bad[group]
        under_good = 1.0 - (below(place, positive) - (np.cumsum(good) - good)[group]) / good[group]
        placements = np.where(positive, over_bad, under_good)
        area = np.bincount(group, np.where(positive, placements, 0.0)) / good
        within = (placements - area[group]) / np.where(positive, good[group], bad[group])
    score = area[both].mean()
    influences = within + ((area - score) / (good + bad))[group]
    return score + np.where(both[group], influences, 0.0) * len(scores) / both.sum()


def auc(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the numbers of the area under the ROC curve, NaN unless labels of both kinds occur, all (rows,)."""
    return aucs_of_groups(labels >= 0.5, scores, np.zeros(len(scores), dtype=np.int64))


def roc_auc(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Area under the ROC curve; of more than two classes, the mean over the classes of each against the rest.

    A constant scores 0.5. NaN where a class does not occur. Several label columns raise a PodiumError.
    """
    if labels.ndim == 1 and answers.shape[1] > 2:
        return np.mean([auc(labels == each, answers[:, each]) for each in range(answers.shape[1])], axis=0)
    known, positive, scores = two_sided("roc_auc", labels, answers, "; mean_auc takes the mean over columns")
    return among(known, auc, positive, scores)


def mean_auc(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Mean over the label columns of the area under the ROC curve; a constant scores 0.5.

    A column in which one class alone occurs does not count; NaN where no column is left.
    """
    both = (labels >= 0.5).any(axis=0) & (labels < 0.5).any(axis=0)
    return by_column(auc, labels[:, both], answers[:, both])


def group_auc(labels: np.ndarray, answers: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mean over the groups (rows,) that hold both classes of the area under the ROC curve; a constant scores 0.5.

    The groups are taken for a sample of many: standard errors are to be clustered by group, or by something larger.
    """
    known, positive, scores = two_sided("group_auc", labels, answers)
    return among(known, aucs_of_groups, positive, scores, groups)


def average_precisions(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the numbers of the average precision, 0 without a positive, all (rows,)."""
    if np.isnan(scores).any():
        return np.full(len(scores), np.nan)
    if not positive.any():
        return np.zeros(len(scores))
    _, place = np.unique(scores, return_inverse=True)
    hit = np.bincount(place, positive)
    reached = np.cumsum(np.bincount(place)[::-1])[::-1]  # the rows that have a score at least as high
    precisions = np.cumsum(hit[::-1])[::-1] / reached
    score = (hit * precisions).sum() / hit.sum()
    # A row also moves the precision at every positive that it is ranked with or above.
    gain, cost = np.cumsum(hit / reached), np.cumsum(hit * precisions / reached)
    influences = positive * (precisions[place] - score + gain[place]) - cost[place]
    return score + influences / positive.mean()


def pr_auc(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Area under the precision-recall curve as scikit-learn's average precision, 0 without a positive.

    A constant scores the positives' share.
    """
    known, positive, scores = two_sided("pr_auc", labels, answers)
    return among(known, average_precisions, positive, scores)


# Errors and correlations of numbers.


def roots(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Returns the numbers of the root mean squared error, all (rows,)."""
    found = squares(labels, answers)
    root = np.sqrt(found.mean())
    return found if root == 0 else root + (found - found.mean()) / (2.0 * root)


def rmse(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Root mean squared error over all cells; `mcrmse` takes the mean over the columns.

    The labels' mean, as a constant answer, scores their standard deviation.
    """
    known = ~np.isnan(labels)
    errors = np.where(known, squares(labels.astype(np.float64), answers.astype(np.float64)), 0.0)
    found = ratio(errors.sum(axis=1), known.sum(axis=1))
    root = np.sqrt(found.mean())
    return found if root == 0 else root + (found - found.mean()) / (2.0 * root)


def mcrmse(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Mean over the columns of their root mean squared errors."""
    return by_column(roots, labels, answers)


def rmsle(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Root mean squared error of log(1 + number), over all cells; a number below 0 counts as 0."""
    truth, said = (np.log1p(np.maximum(each.astype(np.float64), 0.0)) for each in (labels, answers))
    return rmse(truth, said)


def determinations(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Returns the numbers of R², all (rows,); 0 or 1 for constant labels, NaN for a single row, as scikit-learn."""
    if len(labels) < 2:
        return np.full(len(labels), np.nan)
    errors, spreads = squares(labels, answers), (labels - labels.mean()) ** 2
    if constant(labels):
        return np.full(len(labels), 0.0 if errors.any() else 1.0)
    return 1.0 - ratio(errors, spreads)


def r2(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Coefficient of determination, 1 - squared error / variance; of several columns, the mean over the columns.

    The mean, as a constant answer, scores 0, and others less. Constant labels score 0, or 1 if all answers are right.
    """
    return by_column(determinations, labels, answers)


def correlations(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Returns the numbers of Pearson's correlation, NaN if either is constant, all (rows,)."""
    if constant(labels) or constant(answers):
        return np.full(len(labels), np.nan)
    x, y = ((each - each.mean()) / each.std() for each in (labels, answers))
    score = (x * y).mean()
    return x * y - score * ((x**2 + y**2) / 2.0 - 1.0)


def pearson(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Pearson's correlation; of several columns, the mean over the columns. NaN if any column is constant."""
    return by_column(correlations, labels, answers)


def rank_correlations(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Returns the numbers of Spearman's correlation, NaN if either is constant, all (rows,).

    The ranks, as shares of the rows, depend on all rows: each row has an influence on the ranks of the others, too
    (Croux and Dehon 2010, "Influence functions of the Spearman and Kendall correlation measures").
    """
    if constant(labels) or constant(answers) or np.isnan(answers).any():
        return np.full(len(labels), np.nan)
    equal = np.full(len(labels), 1.0 / len(labels))
    x, y = below(labels, equal), below(answers, equal)

    def on_moment(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Returns the influences on the mean product of two columns of ranks."""
        product = (first * second).mean()
        above_first, above_second = (
            second.mean() - below(first, second * equal),
            first.mean() - below(second, first * equal),
        )
        return first * second + above_first + above_second - 3.0 * product

    scale = x.std() * y.std()
    score = ((x - x.mean()) * (y - y.mean())).mean() / scale
    on_variances = on_moment(x, x) / x.var() + on_moment(y, y) / y.var()
    return score + on_moment(x, y) / scale - score / 2.0 * on_variances


def spearman(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation, equal values with their mean rank; of several columns, the mean over the columns.

    NaN if any column is constant.
    """
    return by_column(rank_correlations, labels, answers)


SIDES = ("classes", "labels")
SCORES = ("ordered", "numbers", "labels")

METRICS = {
    "log_loss": Metric(log_loss, False, outcomes=("classes", "choice", "labels")),
    "accuracy": Metric(accuracy, True, "decided", ("classes", "choice", "labels", "ordered")),
    "brier": Metric(brier, False, outcomes=("classes", "choice", "labels")),
    "balanced_accuracy": Metric(balanced_accuracy, True, "decided", SIDES),
    "f1": Metric(f1, True, "decided", SIDES),
    "macro_f1": Metric(macro_f1, True, "decided", SIDES),
    "micro_f1": Metric(micro_f1, True, "decided", SIDES),
    "weighted_f1": Metric(weighted_f1, True, "decided", SIDES),
    "exact_match": Metric(exact_match, True, "decided", ("labels",)),
    "samples_f1": Metric(samples_f1, True, "decided", ("labels",)),
    "mcc": Metric(mcc, True, "decided", SIDES),
    "roc_auc": Metric(roc_auc, True, outcomes=SIDES),
    "mean_auc": Metric(mean_auc, True, outcomes=("labels",)),
    "group_auc": Metric(group_auc, True, outcomes=SIDES, grouped=True),
    "pr_auc": Metric(pr_auc, True, outcomes=SIDES),
    "qwk": Metric(qwk, True, "decided", ("ordered",)),
    "rmse": Metric(rmse, False, outcomes=SCORES),
    "mcrmse": Metric(mcrmse, False, outcomes=("numbers", "labels")),
    "rmsle": Metric(rmsle, False, outcomes=("numbers",)),
    "mae": Metric(mae, False, outcomes=SCORES),
    "r2": Metric(r2, True, outcomes=SCORES),
    "pearson": Metric(pearson, True, outcomes=SCORES),
    "spearman": Metric(spearman, True, outcomes=SCORES),
    "mean_spearman": Metric(spearman, True, outcomes=("numbers", "labels")),
}
FAMILIES: dict[str, Callable[..., np.ndarray]] = {
    "map": reciprocal_ranks,
    "ndcg": discounted_gains,
    "hit": hits_at,
}
ELSEWHERE = {
    **dict.fromkeys(("auc", "auroc", "roc", "gini"), "roc_auc"),
    **dict.fromkeys(("cross_entropy", "bce", "logloss", "nll"), "log_loss"),
    **dict.fromkeys(("average_precision", "ap", "auprc"), "pr_auc"),
    **dict.fromkeys(("kappa", "quadratic_weighted_kappa", "quadratic_kappa", "cohen_kappa"), "qwk"),
    **dict.fromkeys(("top_k_accuracy", "recall@k", "precision@k"), "hit@k"),
    **dict.fromkeys(("subset_accuracy", "exact_match_ratio"), "exact_match"),
    **{"mse": "rmse", "mrr": "map@k", "hamming_loss": "accuracy", "mean_f1": "samples_f1", "matthews": "mcc"},
}
"""What others call a metric -> our name of it, or of one that orders answers alike."""


def known_metrics() -> list[str]:
    """Returns the names of all metrics, for messages: "log_loss", ..., "map@k"."""
    return [*METRICS, *(f"{family}@k" for family in FAMILIES)]


@cache
def family_metric(family: str, k: int) -> Metric:
    """Returns the metric of a family in FAMILIES that looks at the k likeliest classes; the same object each time."""
    return Metric(partial(FAMILIES[family], k=k), True)


def metric_named(name: str) -> Metric:
    """Returns the metric "log_loss", "map@3", "ndcg@5", ...; an unknown name raises a PodiumError."""
    if name in METRICS:
        return METRICS[name]
    family, _, k = name.partition("@")
    if family in FAMILIES and k.isascii() and k.isdecimal() and k[0] != "0":
        return family_metric(family, int(k))
    known, plain = known_metrics(), re.sub(r"[-\s]+", "_", name.lower())
    plain = re.sub(r"(?<=@)[0-9]+$", "k", plain)
    near = nearest(ELSEWHERE.get(plain, plain), known)
    raise PodiumError(f'metric: expected one of {", ".join(known)}, found "{name}"{near}')


def decisive_log_loss(labels: np.ndarray, probabilities: np.ndarray, classes: tuple[int, ...]) -> float:
    """Returns the log loss on the rows whose label is in `classes`, with probabilities renormalised over these classes.

    A coin scores 0.693 with two classes, however many ties the set has.
    """
    rows = np.isin(labels, classes)
    chosen = probabilities[rows][:, list(classes)]
    index = np.searchsorted(np.asarray(classes), labels[rows])
    return float(log_losses(index, chosen / chosen.sum(axis=1, keepdims=True)).mean())
