"""Spread, failures, disagreement and cost of a group of runs, tests against another group, and a null check.

Scores are macro F1 on the half of the development rows that no choice has seen.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

DRAWS = 10_000
NULL_DRAWS = 1_000
LEVEL = 0.05


def cell(runs: list[dict[str, Any]], probabilities: np.ndarray | None, single: float) -> dict[str, Any]:
    """Returns one strategy's figures at one rate on one set.

    `probabilities` are (runs, rows, classes); a run of `single` batches costs 1.
    """
    f1 = np.array([each["score"]["f1"] for each in runs])
    low, high = interval(f1)
    return {
        "runs": len(runs),
        "f1": f1.round(5).tolist(),
        "mean": float(f1.mean()),
        "sd": float(f1.std(ddof=1)),
        "sd_interval": [low, high],
        "min": float(f1.min()),
        "median": float(np.median(f1)),
        "max": float(f1.max()),
        "log_loss": float(np.mean([each["score"]["log_loss"] for each in runs])),
        "accuracy": float(np.mean([each["score"]["accuracy"] for each in runs])),
        "choice": float(np.mean([each["choice"]["f1"] for each in runs])) if "choice" in runs[0] else None,
        "failed": {name: sum(each["score"]["failed"][name] for each in runs) for name in ("majority", "chance")},
        "failed_runs": [each["score"]["failed"]["majority"] for each in runs],
        "disagreement": None if probabilities is None else disagreement(probabilities),
        "cost": float(np.mean([each["cost"] for each in runs])) / single,
        "restarted": sum(len(each["attempts"]) > 1 and each["attempts"][0]["stopped"] is not None for each in runs),
    }


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Returns, by a bootstrap over the runs, the middle 95 % of the standard deviation."""
    draw = np.random.default_rng(seed).integers(0, len(values), (DRAWS, len(values)))
    low, high = np.quantile(values[draw].std(axis=1, ddof=1), [0.025, 0.975])
    return float(low), float(high)


def ratio(values: np.ndarray, others: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Returns the SD of `values` over that of `others` of the same seeds, drawn together, and the middle 95 %."""
    draw = np.random.default_rng(seed).integers(0, len(values), (DRAWS, len(values)))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = values[draw].std(axis=1, ddof=1) / others[draw].std(axis=1, ddof=1)
    low, high = np.quantile(found[np.isfinite(found)], [0.025, 0.975])
    return {"ratio": float(values.std(ddof=1) / others.std(ddof=1)), "low": float(low), "high": float(high)}


def ratio_of_groups(values: np.ndarray, others: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Returns `ratio` for values that have no seeds in common: each side is drawn on its own."""
    draw = np.random.default_rng(seed)
    one, other = (
        each[draw.integers(0, len(each), (DRAWS, len(each)))].std(axis=1, ddof=1) for each in (values, others)
    )
    low, high = np.quantile((one / other)[np.isfinite(one / other)], [0.025, 0.975])
    return {"ratio": float(values.std(ddof=1) / others.std(ddof=1)), "low": float(low), "high": float(high)}


def disagreement(probabilities: np.ndarray) -> float:
    """Returns the share of rows on which two runs differ, over all pairs (Du & Nguyen 2023, arXiv 2302.07778).

    The tables tell what remains, the consistency of Zhou et al. 2025 (arXiv 2503.07329): scores that are alike may come
    of other answers.
    """
    answers = probabilities.argmax(axis=2)
    return float(np.mean([(one != other).mean() for one, other in combinations(answers, 2)]))


def p_values(values: np.ndarray, plain: np.ndarray, failed: int, plain_failed: int) -> dict[str, float]:
    """Returns p of the same spread (Brown-Forsythe), mean (Wilcoxon, paired by seed) and failures (Fisher)."""
    runs = len(values)
    table = [[failed, runs - failed], [plain_failed, runs - plain_failed]]
    same = np.allclose(values, plain)
    sizes = np.abs(values - plain)
    method = "exact" if sizes.all() and len(np.unique(sizes)) == runs else "asymptotic"  # ties have no exact table
    return {
        "spread": 1.0 if same else float(stats.levene(values, plain, center="median").pvalue),
        "mean": 1.0 if same else float(stats.wilcoxon(values, plain, method=method).pvalue),
        "failures": float(stats.fisher_exact(table)[1]),
    }


def holm(p: dict[str, float]) -> dict[str, float]:
    """Returns p adjusted over all strategies (Holm 1979)."""
    order, worst = sorted(p, key=lambda name: p[name]), 0.0
    adjusted = {}
    for place, name in enumerate(order):
        worst = max(worst, min(1.0, p[name] * (len(p) - place)))
        adjusted[name] = worst
    return adjusted


def null_check(pool: np.ndarray, failed: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Returns how often the tests reject at 5 % between disjoint halves of a pool: about 5 % at most, if sound."""
    draw, half = np.random.default_rng(seed), len(pool) // 2
    rejected = dict.fromkeys(("spread", "mean", "failures"), 0)
    for _ in range(NULL_DRAWS):
        order = draw.permutation(len(pool))
        one, other = order[:half], order[half : 2 * half]
        for name, p in p_values(pool[one], pool[other], int(failed[one].sum()), int(failed[other].sum())).items():
            rejected[name] += p < LEVEL
    return {name: count / NULL_DRAWS for name, count in rejected.items()}
