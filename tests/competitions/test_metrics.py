from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import sklearn.metrics as library
from scipy import stats

from pipeline.competitions.metrics import ELSEWHERE, METRICS, Metric, known_metrics, metric_named
from pipeline.errors import PodiumError

Draw = tuple[np.ndarray, ...]
SIZES = (2, 5, 200)


@pytest.fixture(autouse=True)
def quiet_library() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # ours are silent, on degenerate input, too
        for module in ("sklearn", "scipy"):
            warnings.filterwarnings("ignore", module=module)
        warnings.simplefilter("ignore", category=stats.ConstantInputWarning)
        yield


# Draws: labels, answers and, for the grouped metrics, groups; `steps` makes ties.


def probabilities(rng: np.random.Generator, rows: int, classes: int, steps: int | None = None) -> Draw:
    logits = rng.normal(size=(rows, classes)) * 1.2
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (true.cumsum(axis=1)[:, :-1] < rng.random((rows, 1))).sum(axis=1)
    said = true**0.8 if steps is None else np.round(true * steps) + 0.5
    return labels, said / said.sum(axis=1, keepdims=True)


def columns(rng: np.random.Generator, rows: int, count: int, steps: int | None = None, unknown: float = 0.0) -> Draw:
    true = rng.beta(0.7, 1.3, size=(rows, count))
    labels = (rng.random((rows, count)) < true).astype(np.float64)
    labels[rng.random((rows, count)) < unknown] = np.nan
    return labels, true if steps is None else np.round(true * steps) / steps


def numbers(rng: np.random.Generator, rows: int, count: int, steps: int | None = None) -> Draw:
    labels = rng.gamma(2.0, size=(rows, count))
    answers = 0.6 * labels + rng.normal(size=(rows, count))
    return (labels, answers) if steps is None else (np.round(labels * steps), np.round(answers * steps))


def essays(rng: np.random.Generator, rows: int) -> Draw:
    labels = np.clip(np.round(rng.normal(3.0, 1.2, size=(rows, 1))), 1, 6)
    return labels, np.clip(np.round(0.7 * labels + 1.2 + rng.normal(0.0, 0.9, size=(rows, 1))), 1, 6)


def decided(draw: Draw) -> Draw:
    labels, answers = draw
    return (labels, answers.argmax(axis=1)) if labels.ndim == 1 else (labels, (answers >= 0.45).astype(np.float64))


def one_by_one(score: Callable[..., float], draw: Draw) -> float:
    labels, answers = draw
    known = [~np.isnan(each) for each in labels.T]
    return float(
        np.mean([score(t[k], p[k]) for t, p, k in zip(labels.T, answers.T, known, strict=True) if k.any()], axis=0)
    )


def plain_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    pairs = scores[labels == 1][:, None] - scores[labels == 0]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean()) if pairs.size else np.nan


def agree(name: str, expected: float, *draw: np.ndarray) -> None:
    metric = metric_named(name)
    each = metric.per_row(*draw)
    assert each.shape == draw[0].shape[:1]
    assert each.dtype == np.float64
    assert metric.score(*draw) == pytest.approx(expected, rel=1e-11, abs=1e-12, nan_ok=True)
    assert each.mean() == pytest.approx(expected, rel=1e-11, abs=1e-12, nan_ok=True)
    if np.isnan(expected):
        assert np.isnan(each).all()


def draws(seeds: int = 2) -> Iterator[tuple[np.random.Generator, int, int | None]]:
    for rows in SIZES:
        for seed in range(seeds):
            for steps in (None, 4):
                yield np.random.default_rng(1000 * rows + seed), rows, steps


# Each metric against scikit-learn or SciPy.


def test_classes_against_the_library() -> None:
    for rng, rows, steps in draws():
        for classes in (2, 3, 5):
            labels, answers = draw = probabilities(rng, rows, classes, steps)
            every = list(range(classes))
            agree("log_loss", library.log_loss(labels, answers, labels=every), *draw)
            scaled = library.brier_score_loss(labels, answers, labels=every, scale_by_half=False)
            agree("brier", scaled, *draw)
            _, said = decided(draw)
            agree("accuracy", library.accuracy_score(labels, said), labels, said)
            agree("balanced_accuracy", library.balanced_accuracy_score(labels, said), labels, said)
            agree("macro_f1", library.f1_score(labels, said, average="macro"), labels, said)
            agree("micro_f1", library.f1_score(labels, said, average="micro"), labels, said)
            agree("weighted_f1", library.f1_score(labels, said, average="weighted"), labels, said)
            agree("mcc", library.matthews_corrcoef(labels, said), labels, said)
            if classes == 2:
                agree("f1", library.f1_score(labels, said, zero_division=0), labels, said)
                agree("roc_auc", library.roc_auc_score(labels, answers[:, 1]), *draw)
                agree("pr_auc", library.average_precision_score(labels, answers[:, 1]), *draw)
            else:
                area = library.roc_auc_score(labels, answers, multi_class="ovr", labels=every)
                agree("roc_auc", area, *draw)


def test_choices_against_the_library() -> None:
    for rng, rows, steps in draws():
        labels, answers = draw = probabilities(rng, rows, 6, steps)
        order = np.argsort(-answers, axis=1, kind="stable")
        ranks = (order == labels[:, None]).argmax(axis=1) + 1
        for k in (1, 3, 5, 9):
            agree(f"map@{k}", np.where(ranks <= k, 1 / ranks, 0).mean(), *draw)
            agree(f"ndcg@{k}", np.where(ranks <= k, 1 / np.log2(1 + ranks), 0).mean(), *draw)
            agree(
                f"hit@{k}",
                library.top_k_accuracy_score(labels, answers - 1e-9 * np.arange(6), k=k, labels=range(6)),
                *draw,
            )
            if steps is None:
                relevant = np.eye(6)[labels]
                agree(f"ndcg@{k}", library.ndcg_score(relevant, answers, k=k), *draw)
        agree("map@6", library.label_ranking_average_precision_score(np.eye(6)[labels], -order.argsort()), *draw)


def test_equal_probabilities_rank_by_index() -> None:
    labels, answers = np.array([0, 1, 2, 2]), np.array([[0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [0.3, 0.4, 0.3], [0, 0, 1.0]])
    assert metric_named("map@3").per_row(labels, answers).tolist() == [1, 1 / 2, 1 / 3, 1]
    assert metric_named("map@2").per_row(labels, answers).tolist() == [1, 1 / 2, 0, 1]
    assert metric_named("ndcg@3").per_row(labels, answers).tolist() == [1, 1 / np.log2(3), 1 / 2, 1]


def test_label_columns_against_the_library() -> None:
    for rng, rows, steps in draws():
        for count, unknown in ((1, 0.0), (1, 0.3), (4, 0.0), (4, 0.3)):
            labels, answers = draw = columns(rng, rows, count, steps, unknown)
            known = ~np.isnan(labels)
            if not known.any():
                continue
            inside = (labels, np.clip(answers, 1e-6, 1 - 1e-6))  # at 0 and 1 the library clips at another place
            agree("log_loss", one_by_one(lambda t, p: library.log_loss(t, p, labels=[0, 1]), inside), *inside)
            agree("brier", one_by_one(lambda t, p: np.mean((t - p) ** 2), draw), *draw)
            _, said = decided(draw)
            agree("accuracy", library.accuracy_score(labels[known], said[known]), labels, said)
            if count == 1:
                one_column_against_the_library(labels[known], answers[known], draw)
                continue
            one = one_by_one(lambda t, p: library.f1_score(t, p, zero_division=0), (labels, said))
            agree("macro_f1", one, labels, said)
            agree("micro_f1", library.f1_score(labels[known], said[known], zero_division=0), labels, said)
            areas = [plain_auc(t, p) for t, p in zip(labels.T, answers.T, strict=True)]
            areas = [each for each in areas if not np.isnan(each)]
            agree("mean_auc", np.mean(areas) if areas else np.nan, *draw)
            if unknown == 0:
                agree("macro_f1", library.f1_score(labels, said, average="macro", zero_division=0), labels, said)
                agree("micro_f1", library.f1_score(labels, said, average="micro", zero_division=0), labels, said)
                agree("samples_f1", library.f1_score(labels, said, average="samples", zero_division=0), labels, said)
                agree("exact_match", library.accuracy_score(labels, said), labels, said)


def one_column_against_the_library(truth: np.ndarray, scores: np.ndarray, draw: Draw) -> None:
    labels, answers = draw
    _, cells = decided(draw)
    said = (scores >= 0.45).astype(np.float64)
    for name, expected in (
        ("f1", library.f1_score(truth, said, zero_division=0)),
        ("balanced_accuracy", library.balanced_accuracy_score(truth, said)),
        ("macro_f1", library.f1_score(truth, said, average="macro", zero_division=0)),
        ("micro_f1", library.f1_score(truth, said, average="micro", zero_division=0)),
        ("weighted_f1", library.f1_score(truth, said, average="weighted", zero_division=0)),
        ("mcc", library.matthews_corrcoef(truth, said)),
    ):
        agree(name, expected, labels, cells)
    agree("roc_auc", library.roc_auc_score(truth, scores), labels, answers)
    agree("mean_auc", library.roc_auc_score(truth, scores), labels, answers)
    agree("pr_auc", library.average_precision_score(truth, scores), labels, answers)


def test_log_loss_is_clipped() -> None:
    labels, answers = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    agree("log_loss", -np.log(1e-15), labels, answers)
    agree("log_loss", 0.0, labels, 1 - answers)
    agree("log_loss", -np.log(1e-15), np.array([1]), np.array([[1.0, 0.0]]))


def test_grouped_metrics_against_the_library() -> None:
    for rng, rows, steps in draws():
        for unknown in (0.0, 0.2):
            labels, answers = columns(rng, rows, 1, steps, unknown)
            known, groups = ~np.isnan(labels[:, 0]), rng.integers(0, 1 + rows // 6, size=rows)
            truth, scores = labels[known, 0], answers[known, 0]
            areas = [plain_auc(truth[groups[known] == g], scores[groups[known] == g]) for g in np.unique(groups)]
            areas = [each for each in areas if not np.isnan(each)]
            agree("group_auc", np.mean(areas) if areas else np.nan, labels, answers, groups)
            agree("group_auc", plain_auc(truth, scores), labels, answers, np.full(rows, "one"))
            if unknown == 0 and rows == 200:
                both = np.hstack([1 - answers, answers])
                agree("group_auc", np.mean(areas), labels[:, 0].astype(int), both, groups)


def test_ordered_scores_against_the_library() -> None:
    for rng, rows, _ in draws(8):
        labels, answers = draw = essays(rng, rows)
        kappa = library.cohen_kappa_score(labels[:, 0], answers[:, 0], weights="quadratic", labels=[*range(1, 7)])
        agree("qwk", kappa, *draw)
        agree("accuracy", library.accuracy_score(labels, answers), *draw)
        agree("rmse", library.root_mean_squared_error(labels, answers), *draw)


def test_numbers_against_the_library() -> None:
    for rng, rows, steps in draws():
        for count in (1, 3):
            labels, answers = draw = numbers(rng, rows, count, steps)
            agree("rmse", library.root_mean_squared_error(labels.ravel(), answers.ravel()), *draw)
            agree("mcrmse", library.root_mean_squared_error(labels, answers), *draw)
            positive = np.maximum(answers, 0)
            told = library.root_mean_squared_log_error(labels.ravel(), positive.ravel())
            agree("rmsle", told, *draw)
            agree("mae", library.mean_absolute_error(labels, answers), *draw)
            agree("r2", library.r2_score(labels, answers), *draw)
            agree("pearson", one_by_one(lambda t, p: stats.pearsonr(t, p)[0], draw), *draw)
            for name in ("spearman", "mean_spearman"):
                agree(name, one_by_one(lambda t, p: stats.spearmanr(t, p)[0], draw), *draw)


def test_numbers_without_a_label_do_not_count() -> None:
    labels, answers = numbers(np.random.default_rng(5), 60, 3)
    labels[:20, 0] = labels[:, 1] = np.nan
    known = [(labels[20:, 0], answers[20:, 0]), (labels[:, 2], answers[:, 2])]
    agree("mcrmse", np.mean([library.root_mean_squared_error(*each) for each in known]), labels, answers)
    cells = [np.concatenate(side) for side in zip(*known, strict=True)]
    agree("rmse", library.root_mean_squared_error(*cells), labels, answers)
    agree("spearman", np.mean([stats.spearmanr(*each)[0] for each in known]), labels, answers)


# Degenerate input.


def test_one_class_alone() -> None:
    rng = np.random.default_rng(0)
    scores, ones = rng.random((6, 1)), np.ones((6, 1))
    said = (scores > 0.5).astype(np.float64)
    for labels in (ones, ones * 0, ones * np.nan):
        for name in ("roc_auc", "mean_auc"):
            agree(name, np.nan, labels, scores)
        agree("group_auc", np.nan, labels, scores, np.arange(6))
    agree("roc_auc", np.nan, np.array([0, 1, 0, 1]), np.full((4, 3), 1 / 3))  # class 2 does not occur
    agree("pr_auc", 1.0, ones, scores)
    agree("pr_auc", 0.0, ones * 0, scores)
    agree("f1", 0.0, ones * 0, ones * 0)
    agree("f1", 0.0, ones * 0, said)
    agree("macro_f1", 1.0, ones * 0, ones * 0)
    agree("mcc", 0.0, ones, said)
    agree("mcc", 0.0, ones, ones)
    agree("balanced_accuracy", float(said.mean()), ones, said)


def test_a_column_with_one_class_does_not_count_in_mean_auc() -> None:
    labels, answers = columns(np.random.default_rng(3), 50, 4)
    labels[:, 1], labels[:, 2] = 1.0, np.nan
    expected = (plain_auc(labels[:, 0], answers[:, 0]) + plain_auc(labels[:, 3], answers[:, 3])) / 2
    agree("mean_auc", expected, labels, answers)


def test_a_column_without_labels_does_not_count() -> None:
    labels, answers = columns(np.random.default_rng(4), 50, 3, unknown=0.2)
    empty = np.hstack([labels, np.full((50, 1), np.nan)])
    for name in (
        "log_loss",
        "brier",
        "accuracy",
        "macro_f1",
        "micro_f1",
        "samples_f1",
        "exact_match",
        "mean_auc",
        "rmse",
        "mcrmse",
    ):
        said = answers if metric_named(name).wants == "mean" else np.round(answers)
        agree(name, metric_named(name).score(labels, said), empty, np.hstack([said, said[:, :1]]))
    for name in ("log_loss", "brier", "accuracy", "mean_auc", "rmse", "mcrmse", "samples_f1", "exact_match"):
        agree(name, np.nan, empty[:, 3:], answers[:, :1])
    for name in ("f1", "macro_f1", "micro_f1", "weighted_f1", "mcc", "balanced_accuracy", "pr_auc", "roc_auc"):
        agree(name, np.nan, empty[:, 3:], np.round(answers[:, :1]))


@pytest.mark.parametrize("value", [0.1, 0.5, 1 / 3])
def test_constant_answers(value: float) -> None:
    rng = np.random.default_rng(1)
    labels, flat = columns(rng, 70, 1)[0], np.full((70, 1), value)
    for name in ("roc_auc", "mean_auc"):
        agree(name, 0.5, labels, flat)
    agree("group_auc", 0.5, labels, flat, np.arange(70) % 5)
    agree("pr_auc", float(labels.mean()), labels, flat)
    agree("mcc", 0.0, labels, np.ones((70, 1)))
    agree("balanced_accuracy", 0.5, labels, np.ones((70, 1)))
    share = labels.mean()
    agree("f1", 2 * share / (1 + share), labels, np.ones((70, 1)))
    wide, _ = numbers(rng, 70, 2)
    for name in ("pearson", "spearman", "mean_spearman"):
        agree(name, np.nan, wide[:, :1], flat)
        agree(name, np.nan, flat, wide[:, :1])
        agree(name, np.nan, wide, np.hstack([wide[:, :1], flat]))  # one column is enough
    mean = np.tile(wide.mean(axis=0), (70, 1))
    agree("r2", 0.0, wide, mean)
    agree("mcrmse", float(wide.std(axis=0).mean()), wide, mean)
    agree("rmse", float(np.sqrt(wide.var(axis=0).mean())), wide, mean)
    agree("r2", 0.0, flat, wide[:, :1])
    agree("r2", 1.0, flat, flat)
    agree("r2", np.nan, flat[:1], wide[:1, :1])
    for name in ("rmse", "mcrmse"):
        agree(name, 0.0, wide, wide)


def test_constant_scores_of_essays() -> None:
    labels = np.array([[1.0], [2.0], [4.0], [4.0]])
    four = np.full((4, 1), 4.0)
    agree("qwk", 0.0, labels, four)
    agree("qwk", 0.0, four, labels)
    agree("qwk", 0.0, four, four - 1)
    agree("qwk", np.nan, four, four)
    agree("qwk", 1.0, labels, labels)
    far = np.array([[1.0], [2.0], [4.0], [1.0]])  # the distance from 4 to 1 counts as 3, though no 3 occurs
    agree("qwk", library.cohen_kappa_score(labels, far, weights="quadratic", labels=[1, 2, 3, 4]), labels, far)


def test_a_missing_answer_never_passes_for_a_good_one() -> None:
    labels, answers = columns(np.random.default_rng(6), 40, 1)
    answers[3] = np.nan
    for name in ("log_loss", "brier", "roc_auc", "mean_auc", "pr_auc"):
        assert np.isnan(metric_named(name).score(labels, answers)), name
    assert np.isnan(METRICS["group_auc"].score(labels, answers, np.arange(40) % 4))
    for name in ("rmse", "mcrmse", "mae", "r2", "pearson", "spearman"):
        assert np.isnan(metric_named(name).score(*numbers(np.random.default_rng(6), 40, 1)[:1], answers)), name
    for name in ("map@3", "ndcg@3", "hit@3"):
        missing = np.array([[0.2, np.nan, 0.8]])
        assert np.isnan(metric_named(name).score(np.array([1]), missing))


# Standard errors.


def pick(draw: Draw, rows: np.ndarray) -> Draw:
    return tuple(each[rows] for each in draw)


def both_sides(draw: Draw) -> Draw:
    return draw[0][:, 0].astype(int), np.hstack([1 - draw[1], draw[1]])


def with_groups(rng: np.random.Generator, rows: int) -> Draw:
    return (*columns(rng, rows, 1, unknown=0.1), rng.integers(0, 60, size=rows))


SAMPLES: dict[str, Callable[[np.random.Generator, int], Draw]] = {
    "accuracy columns": lambda rng, n: decided(columns(rng, n, 3, unknown=0.3)),
    "log_loss columns": lambda rng, n: columns(rng, n, 3, unknown=0.5),
    "brier columns": lambda rng, n: columns(rng, n, 3, unknown=0.5),
    "balanced_accuracy": lambda rng, n: decided(probabilities(rng, n, 4)),
    "balanced_accuracy column": lambda rng, n: decided(columns(rng, n, 1, unknown=0.3)),
    "f1": lambda rng, n: decided(columns(rng, n, 1, unknown=0.3)),
    "f1 classes": lambda rng, n: decided(both_sides(columns(rng, n, 1))),
    "macro_f1": lambda rng, n: decided(probabilities(rng, n, 4)),
    "macro_f1 columns": lambda rng, n: decided(columns(rng, n, 3, unknown=0.3)),
    "micro_f1 columns": lambda rng, n: decided(columns(rng, n, 3, unknown=0.3)),
    "weighted_f1": lambda rng, n: decided(probabilities(rng, n, 4)),
    "weighted_f1 column": lambda rng, n: decided(columns(rng, n, 1, unknown=0.3)),
    "exact_match": lambda rng, n: decided(columns(rng, n, 4, unknown=0.3)),
    "samples_f1": lambda rng, n: decided(columns(rng, n, 4, unknown=0.3)),
    "mcc": lambda rng, n: decided(probabilities(rng, n, 4)),
    "mcc column": lambda rng, n: decided(columns(rng, n, 1, unknown=0.3)),
    "roc_auc": lambda rng, n: columns(rng, n, 1, unknown=0.3),
    "roc_auc ties": lambda rng, n: both_sides(columns(rng, n, 1, steps=4)),
    "roc_auc classes": lambda rng, n: probabilities(rng, n, 4),
    "mean_auc": lambda rng, n: columns(rng, n, 3, unknown=0.3),
    "pr_auc": lambda rng, n: columns(rng, n, 1, unknown=0.3),
    "pr_auc ties": lambda rng, n: columns(rng, n, 1, steps=4),
    "group_auc": with_groups,
    "qwk": essays,
    "rmse": lambda rng, n: numbers(rng, n, 1),
    "rmse columns": lambda rng, n: columns(rng, n, 3, unknown=0.3),
    "mcrmse": lambda rng, n: numbers(rng, n, 3),
    "rmsle": lambda rng, n: numbers(rng, n, 2),
    "r2": lambda rng, n: numbers(rng, n, 2),
    "pearson": lambda rng, n: numbers(rng, n, 1),
    "spearman": lambda rng, n: numbers(rng, n, 1),
    "spearman ties": lambda rng, n: numbers(rng, n, 1, steps=1),
    "mean_spearman": lambda rng, n: numbers(rng, n, 3),
}


@pytest.mark.parametrize("sample", SAMPLES)
def test_standard_errors_are_those_of_a_bootstrap(sample: str) -> None:
    metric, rng, rows = METRICS[sample.split()[0]], np.random.default_rng(7), 1500
    draw = SAMPLES[sample](rng, rows)
    error = metric.per_row(*draw).std() / np.sqrt(rows)
    drawn = [metric.score(*pick(draw, rng.integers(0, rows, size=rows))) for _ in range(300)]
    assert error == pytest.approx(np.std(drawn), rel=0.25)


def test_errors_of_group_auc_clustered_by_group_are_those_of_a_bootstrap_of_groups() -> None:
    rng = np.random.default_rng(8)
    groups = np.sort(rng.integers(0, 100, size=1500))
    labels, answers = columns(rng, 1500, 1)
    noise = rng.random(100)[groups, None]  # some groups are harder
    answers = (1 - noise) * answers + noise * rng.random((1500, 1))
    excess = METRICS["group_auc"].per_row(labels, answers, groups)
    excess = excess - excess.mean()
    error = np.sqrt((np.bincount(groups, excess) ** 2).sum()) / len(groups)
    drawn = []
    for _ in range(300):
        rows = [np.flatnonzero(groups == each) for each in rng.integers(0, 100, size=100)]
        copies = np.repeat(np.arange(100), [len(each) for each in rows])
        drawn.append(METRICS["group_auc"].score(*pick((labels, answers), np.concatenate(rows)), copies))
    assert error == pytest.approx(np.std(drawn), rel=0.25)


@pytest.mark.parametrize("sample", [each for each in SAMPLES if each != "group_auc"])  # its groups count, not its rows
def test_each_number_is_the_score_plus_the_rows_influence(sample: str) -> None:
    """A little more weight on a row moves the score by its influence: here 2 copies more among 50 of each row."""
    metric, rng, rows = METRICS[sample.split()[0]], np.random.default_rng(9), 200
    draw = SAMPLES[sample](rng, rows)
    each = metric.per_row(*draw)
    for row in range(0, rows, 17):
        more = np.append(np.repeat(np.arange(rows), 50), [row, row])
        influence = (each[row] - each.mean()) * 2 / len(more)
        tolerance = 5e-3 * each.std() * 2 / len(more)
        assert metric.score(*pick(draw, more)) - each.mean() == pytest.approx(influence, rel=0.02, abs=tolerance)


# The table and its names.


@pytest.mark.parametrize("name", [*METRICS, "map@3", "ndcg@10"])
def test_a_better_answer_scores_better(name: str) -> None:
    metric, rng = metric_named(name), np.random.default_rng(10)
    outcome = metric.outcomes[-1]
    if outcome in ("classes", "choice"):
        labels = rng.integers(0, 2, size=300)
        right = np.eye(2)[labels]
    elif outcome == "labels":
        labels = rng.integers(0, 2, size=(300, 1)).astype(float)
        right = labels
    else:
        labels = rng.integers(1, 7, size=(300, 1)).astype(float)
        right = labels + rng.normal(0.0, 0.01, size=(300, 1)) * (metric.wants == "mean")
    groups = np.arange(300) % 9 if name == "group_auc" else rng.random((300, 2)) < 0.5
    shuffled = rng.permutation(300)
    worse = np.where(rng.random((300, 1)) < 0.5, right[shuffled], right)
    if metric.wants == "decided" and right.shape[1] == 2:
        right, worse = right.argmax(axis=1), worse.argmax(axis=1)
    good, bad = (metric.score(labels, each, groups) for each in (right, worse))
    assert metric.better(good, bad)
    assert not metric.better(bad, good)
    assert metric.sign * good > metric.sign * bad
    assert metric.greater_is_better == (good > bad)


def test_every_outcome_of_the_table_is_one_that_the_metric_takes() -> None:
    rng = np.random.default_rng(11)
    for name in [*METRICS, "map@5", "ndcg@2"]:
        metric = metric_named(name)
        assert set(metric.outcomes) <= {"classes", "choice", "labels", "ordered", "numbers"}
        for outcome in metric.outcomes:
            draw = {
                "classes": probabilities(rng, 80, 2),
                "choice": probabilities(rng, 80, 5),
                "labels": columns(rng, 80, 1),
                "ordered": essays(rng, 80),
                "numbers": numbers(rng, 80, 2),
            }[outcome]
            if metric.wants == "decided" and outcome != "ordered":
                draw = decided(draw)
            groups = rng.integers(0, 8, size=80) if name == "group_auc" else rng.random((80, 3)) < 0.5
            assert np.isfinite(metric.score(*draw, groups)), (name, outcome)


def test_accuracy_takes_probabilities_of_classes_too() -> None:
    labels, answers = draw = probabilities(np.random.default_rng(12), 60, 3)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "micro_f1", "mcc"):
        agree(name, METRICS[name].score(labels, answers.argmax(axis=1)), *draw)


def test_names() -> None:
    assert metric_named("log_loss") is METRICS["log_loss"]
    assert metric_named("map@3") is metric_named("map@3")
    assert metric_named("map@3") != metric_named("map@5")
    assert metric_named("ndcg@5").outcomes == ("classes", "choice")
    assert known_metrics() == [*METRICS, "map@k", "ndcg@k", "hit@k"]
    for name in [*METRICS, "map@3"]:
        assert pickle.loads(pickle.dumps(metric_named(name))) is not None
    with pytest.raises(FrozenInstanceError):
        METRICS["log_loss"].grouped = True  # type: ignore[misc]


@pytest.mark.parametrize(
    "name", ["logloss", "map", "map@", "map@0", "map@03", "map@k", "map@-1", "map@2.5", "near@3", ""]
)
def test_an_unknown_name_is_one_line(name: str) -> None:
    with pytest.raises(PodiumError, match=r"^metric: expected one of log_loss, ") as caught:
        metric_named(name)
    assert f'map@k, ndcg@k, hit@k, found "{name}"' in str(caught.value)
    assert ('(did you mean "log_loss"?)' in str(caught.value)) == (name == "logloss")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "ours"),
    [("AUC", "roc_auc"), ("MSE", "rmse"), ("F1", "f1"), ("macro-f1", "macro_f1"), ("MAP@3", "map@k"), ("MRR", "map@k")],
)
def test_what_others_call_a_metric_is_known(name: str, ours: str) -> None:
    with pytest.raises(PodiumError, match=rf'found "{name}" \(did you mean "{ours}"\?\)$'):
        metric_named(name)


def test_every_other_name_leads_to_a_metric() -> None:
    assert set(ELSEWHERE.values()) <= set(known_metrics())
    assert not ELSEWHERE.keys() & set(known_metrics())


def test_what_a_metric_cannot_score_is_one_line() -> None:
    several = columns(np.random.default_rng(13), 30, 3)
    for name, hint in (
        ("roc_auc", "; mean_auc takes the mean over columns"),
        ("f1", "; macro_f1 and micro_f1 take several"),
        ("pr_auc", ""),
        ("mcc", ""),
        ("balanced_accuracy", ""),
    ):
        with pytest.raises(PodiumError, match=rf"^{name}: expected one label column, found 3{hint}$"):
            metric_named(name).score(*several)
    for name in ("group_auc",):
        with pytest.raises(PodiumError, match=rf"^{name}: expected one label column, found 3$"):
            metric_named(name).score(*several, np.zeros((30, 1)))
        with pytest.raises(PodiumError, match=r"^metric: expected a group per row, found none$"):
            metric_named(name).score(several[0][:, :1], several[1][:, :1])
    three = probabilities(np.random.default_rng(13), 30, 3)
    with pytest.raises(PodiumError, match=r"^pr_auc: expected two classes, found 3$"):
        metric_named("pr_auc").score(*three)
    with pytest.raises(
        PodiumError, match=r"^f1: expected two classes, found class 2; macro_f1 and micro_f1 take several$"
    ):
        metric_named("f1").score(*decided(three))


def test_a_metric_of_ones_own_needs_two_arguments() -> None:
    own = Metric(lambda labels, answers: answers[:, 0], True)
    assert (own.wants, own.outcomes, own.grouped) == ("mean", ("classes", "choice"), False)
    assert own.score(np.zeros(2, dtype=int), np.array([[1.0, 0.0], [0.0, 1.0]])) == 0.5
