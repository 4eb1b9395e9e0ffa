"""Do the intervals of metrics that are no mean over rows hold the truth as often as they say?

python -m benchmarks.stack.coverage      # two minutes; writes benchmarks/results/coverage.json and coverage.md

Two models answer rows that come in groups of two which err together. Their scores and the difference of these are known
from 400,000 rows; 200 draws of 600 rows each give intervals of 1.96 clustered standard errors by influences.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from benchmarks.result import command_line, markdown, write
from pipeline.competitions.metrics import metric_named
from pipeline.ensemble.uncertainty import cluster_error

POPULATION, ROWS, DRAWS, REACH = 400_000, 600, 200, 1.96
METRICS = (
    *("accuracy", "macro_f1", "mcc", "map@3", "roc_auc", "pr_auc", "mean_auc", "f1"),
    *("qwk", "rmse", "mcrmse", "pearson", "spearman", "r2"),
)


def answers(name: str, rng: np.random.Generator, rows: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns labels and two models' answers in the form that the metric wants; the second model is the worse one."""
    shared = np.repeat(rng.normal(size=(rows // 2, 5)), 2, axis=0)
    truth = rng.normal(size=(rows, 5)) + 0.7 * shared
    hard = np.repeat(rng.normal(size=(rows // 2, 5)), 2, axis=0)
    noisy = [0.8 * truth + noise * (rng.normal(size=(rows, 5)) + hard) for noise in (0.6, 0.75)]
    if name in ("accuracy", "macro_f1", "mcc", "map@3"):
        labels = (softmax(truth, axis=1).cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
        means = [softmax(each, axis=1) for each in noisy]
        return labels, means if name == "map@3" else [each.argmax(axis=1) for each in means]
    if name in ("roc_auc", "pr_auc", "f1", "mean_auc"):
        count = 3 if name == "mean_auc" else 1
        labels = (expit(truth[:, :count] - 2.0) > rng.random((rows, count))).astype(float)
        means = [expit(each[:, :count] - 2.0) for each in noisy]
        return labels, [(each > 0.25).astype(float) for each in means] if name == "f1" else means
    if name == "qwk":
        return np.clip(np.round(truth[:, :1] + 3), 1, 5), [np.clip(np.round(each[:, :1] + 3), 1, 5) for each in noisy]
    count = 3 if name == "mcrmse" else 1
    return truth[:, :count], [each[:, :count] for each in noisy]


def covered(name: str) -> dict[str, Any]:
    """Returns how often intervals hold the first model's true score, and the true difference of both models."""
    metric, rng = metric_named(name), np.random.default_rng(7)
    labels, said = answers(name, rng, POPULATION)
    true = [metric.score(labels, each) for each in said]
    groups = np.arange(ROWS) // 2
    held = np.zeros(2, dtype=int)
    errors, found = [], []
    for _ in range(DRAWS):
        labels, said = answers(name, rng, ROWS)
        rows = [metric.per_row(labels, each) for each in said]
        for place, (values, right) in enumerate(((rows[0], true[0]), (rows[0] - rows[1], true[0] - true[1]))):
            held[place] += abs(values.mean() - right) <= REACH * cluster_error(values, groups)
        errors.append(cluster_error(rows[0] - rows[1], groups))
        found.append((rows[0] - rows[1]).mean())
    return {
        "score": true[0],
        "difference": true[0] - true[1],
        "covers_score": held[0] / DRAWS,
        "covers_difference": held[1] / DRAWS,
        "mean_error": float(np.mean(errors)),
        "spread": float(np.std(found)),
    }


def main(output: Path) -> None:
    table = {name: covered(name) for name in METRICS}
    write("coverage", {"metrics": table}, output, draws=DRAWS, rows=ROWS)
    columns = ("metric", "true score", "covered", "true difference", "covered", "mean error", "spread of the draws")
    rows = [
        [
            *(name, f"{each['score']:.4f}", f"{each['covers_score']:.1%}", f"{each['difference']:.4f}"),
            *(f"{each['covers_difference']:.1%}", f"{each['mean_error']:.4f}", f"{each['spread']:.4f}"),
        ]
        for name, each in table.items()
    ]
    text = markdown(columns, rows)
    (output / "coverage.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(command_line(__doc__).parse_args().output)
