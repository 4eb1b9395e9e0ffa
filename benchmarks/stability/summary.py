"""What a study's runs say, cell by cell: everything that its file in benchmarks/results/ holds beside the machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.stability.protocol import RATES, SEEDS, SETS, parts_of
from benchmarks.stability.runs import Asked, scores
from benchmarks.stability.statistics import cell, holm, null_check, p_values, ratio, ratio_of_groups
from benchmarks.stability.strategies import BEST, STRATEGIES

ENSEMBLE = 3
"""Runs whose probabilities are averaged; 25 are cut into disjoint groups."""
LARGE = 10
"""Runs that are averaged where 50 are a pool: DRAWN times that many of it, a draw's all different."""
DRAWN = 25
Runs = list[dict[str, Any]]


def summary(known: dict[Asked, dict[str, Any]], work: Path) -> dict[str, Any]:
    """Returns what the runs say that a study has asked for; their probabilities lie below `work`."""
    groups: dict[tuple[str, str, str], Runs] = {}
    for asked in sorted(known, key=_order):
        groups.setdefault((asked.data, asked.rate, asked.strategy), []).append(known[asked])
    cells: list[dict[str, Any]] = []
    for (data, rate, strategy), runs in groups.items():
        reference = groups[data, rate, STRATEGIES[strategy].against]
        single = float(np.mean([each["cost"] for each in reference]))
        here = {"data": data, "rate": rate, "strategy": strategy}
        cells.append(here | cell(runs, answers(runs, work), single) | against(runs, reference))
        quiet = groups.get((data, rate, BEST))
        if quiet and strategy not in (BEST, "plain", "guard"):
            cells[-1]["best"] = against(runs, quiet)
        if "main" in runs[0]:
            alone = [
                {key: each[key] for key in ("seed", "cost", "attempts")} | {"score": each["main"]} for each in runs
            ]
            told = here | {"strategy": f"{strategy}, main alone"}
            cells.append(told | cell(alone, None, single) | against(alone, reference))
        for name, averaged in averages(strategy, runs, reference, work, single).items():
            cells.append(here | {"strategy": name} | averaged)
    for data, rate in dict.fromkeys((each["data"], each["rate"]) for each in cells):
        adjust([each for each in cells if (each["data"], each["rate"]) == (data, rate)])
    pools = {
        f"{data}, {rate}, {strategy}": null_check(
            np.array([each["score"]["f1"] for each in runs]),
            np.array([each["score"]["failed"]["majority"] for each in runs]),
        )
        for (data, rate, strategy), runs in groups.items()
        if STRATEGIES[strategy].against == strategy and len(runs) > 20
    }
    return {"rates": RATES, "cells": cells, "null": pools, "deni": _delayed(cells)}


def _order(asked: Asked) -> tuple[int, int, int, int]:
    """Returns a key to sort by: sets, rates and strategies as they are listed, seeds counting up."""
    return (
        list(SETS).index(asked.data),
        list(RATES).index(asked.rate),
        list(STRATEGIES).index(asked.strategy),
        asked.seed,
    )


def against(runs: Runs, others: Runs) -> dict[str, Any]:
    """Returns the tests, the change of the mean and the ratio of the spreads, on the seeds that both have."""
    mine, theirs = ({each["seed"]: each["score"] for each in group} for group in (runs, others))
    seeds = sorted(mine.keys() & theirs.keys())
    values, given = (np.array([each[seed]["f1"] for seed in seeds]) for each in (mine, theirs))
    failed, theirs_failed = (sum(each[seed]["failed"]["majority"] for seed in seeds) for each in (mine, theirs))
    return {
        "p": p_values(values, given, failed, theirs_failed),
        "sd_ratio": ratio(values, given),
        "change": float((values - given).mean()),
        "log_loss_change": float(np.mean([mine[seed]["log_loss"] - theirs[seed]["log_loss"] for seed in seeds])),
        "plain_failed": theirs_failed,
    }


def adjust(cells: list[dict[str, Any]]) -> None:
    """Adds to the tests of one set and rate their p adjusted by Holm over its strategies, test by test."""
    for tests in (
        {each["strategy"]: each for each in cells if "p" in each and not _is_reference(each["strategy"])},
        {each["strategy"]: each["best"] for each in cells if "best" in each},
    ):
        for name in ("spread", "mean", "failures"):
            for strategy, p in holm({strategy: each["p"][name] for strategy, each in tests.items()}).items():
                tests[strategy].setdefault("holm", {})[name] = p


def _is_reference(strategy: str) -> bool:
    return strategy in STRATEGIES and STRATEGIES[strategy].against == strategy


def answers(runs: Iterable[dict[str, Any]], work: Path) -> np.ndarray:
    """Returns (runs, rows, classes) probabilities of the score half."""
    names = [Asked(*(each[key] for key in Asked._fields)).name for each in runs]
    return np.stack([np.load(work / "probabilities" / f"{name}.npy") for name in names])


def averages(strategy: str, runs: Runs, reference: Runs, work: Path, single: float) -> dict[str, dict[str, Any]]:
    """Returns what several seeds give together: cells of averaged probabilities, by name."""
    if len(runs) == len(SEEDS):
        groups = [range(at, at + ENSEMBLE) for at in range(0, len(runs) - ENSEMBLE + 1, ENSEMBLE)]
        return {f"{strategy}, {ENSEMBLE} averaged": _averaged(groups, runs, reference, work, single)}
    if len(runs) > len(SEEDS):
        draw = np.random.default_rng(0)
        groups = [draw.choice(len(runs), LARGE, replace=False) for _ in range(DRAWN)]
        return {f"{strategy}, {LARGE} averaged": _averaged(groups, runs, reference, work, single)}
    return {}


def _delayed(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns DENI's vote, and its main network alone, against the ensembles of ten runs, where a study has both."""
    named = {each["strategy"]: each for each in cells}
    ensemble = named.get(f"ten epochs, {LARGE} averaged")
    pairs = {"vote": named.get("deni"), "main alone": named.get("deni, main alone")}
    return {name: unpaired(each, ensemble) for name, each in pairs.items() if each and ensemble}


def _averaged(
    groups: Iterable[Iterable[int]], runs: Runs, reference: Runs, work: Path, single: float
) -> dict[str, Any]:
    found = answers(runs, work).astype(np.float64)
    found /= found.sum(axis=2, keepdims=True)
    labels = parts_of(runs[0]["data"]).score.labels
    members = [list(each) for each in groups]
    means = [found[each].mean(axis=0) for each in members]
    cost = float(np.mean([each["cost"] for each in runs])) * len(members[0])
    told = [{"score": scores(labels, each), "cost": cost, "attempts": [{"stopped": None}]} for each in means]
    result = cell(told, np.stack(means), single)
    singles = np.array([each["score"]["f1"] for each in reference])
    return result | {"sd_ratio": ratio_of_groups(np.array(result["f1"]), singles)}


def unpaired(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Returns one cell against another with no seed in common: Mann-Whitney, Brown-Forsythe, and the costs."""
    mine, theirs = np.array(one["f1"]), np.array(other["f1"])
    return {
        "change": float(mine.mean() - theirs.mean()),
        "mean": float(stats.mannwhitneyu(mine, theirs).pvalue),
        "spread": float(stats.levene(mine, theirs, center="median").pvalue),
        "sd_ratio": float(mine.std(ddof=1) / theirs.std(ddof=1)),
        "cost": one["cost"] / other["cost"],
    }
