"""The leak probe: the same build on shuffled labels, where nothing can be learned and so nothing may be gained.

Two small tabular members go through the real fold training, the real checks and the real stack, in a folder of their
own. If a fold's labels reach its own predictions on any of these ways, the stack beats the class shares.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import Stack, member_settings
from pipeline.data.folds import group_keys
from pipeline.data.split import split_rows
from pipeline.ensemble.nested import compare_candidates
from pipeline.ensemble.oof import collect
from pipeline.ensemble.table import read_oof
from pipeline.ensemble.uncertainty import cluster_error
from pipeline.files import write_json, write_parquet
from pipeline.members.context import Start
from pipeline.members.fold import train_fold

MEMBERS: dict[str, dict[str, Any]] = {
    "probe-words": {"model": "logistic", "features": False, "words": {"longest": 1, "max_features": 5000}},
    "probe-shape": {"model": "lightgbm", "boosting": {"max_trees": 60, "patience": 20}},
}
"""Settings of the members that are retrained; the build's own, which may be large, are not needed to find a leak.
No member of params.yaml can bear these names, so that the probe never waits for a run of the build."""

MOST_ROWS = 4000
ERRORS = 2.0
"""A gain of more than that many standard errors is a leak; chance alone does that in about 2 % of builds."""


def shuffled(rows: pl.DataFrame, folds: pl.DataFrame, competition: Competition, seed: int) -> pl.DataFrame:
    """Returns whole prompts of `rows` (train.parquet), MOST_ROWS rows or a few more, with fold and shuffled label.

    Labels change places within a fold only, so that every fold keeps its class shares.
    """
    rng = np.random.default_rng(seed)
    prompts = group_keys(rows, competition.kind).rank("dense").to_numpy()
    turns = rng.permutation(prompts.max() + 1)[prompts]
    last = np.sort(turns)[min(MOST_ROWS, len(rows)) - 1]
    chosen = rows.with_columns(folds["fold"]).filter(pl.Series(turns <= last))
    order = np.arange(len(chosen))
    for fold in np.unique(chosen["fold"]):
        places = np.flatnonzero(chosen["fold"] == fold)
        order[places] = rng.permutation(places)
    return chosen.with_columns(chosen["label"].gather(order))


def run_probe(
    artifacts: Artifacts, copy: Artifacts, competition: Competition, folds: list[int], threads: int, stack: Stack
) -> dict[str, Any]:
    """Builds members and stack on shuffled labels in `copy` (a temporary folder) and says what they gain.

    Returns metrics/probe.json: rows, prior, score (level-2 nested, both losses of the answers), gain, standard_error,
    leak.
    """
    noise = shuffled(artifacts.train().collect(), artifacts.folds(), competition, stack.seed)
    assigned = noise.select("id", "fold")
    noise = noise.drop("fold")
    write_json(copy.competition_file, {"competition": asdict(competition)})
    write_parquet(noise, copy.train_file)
    write_parquet(assigned, copy.folds_file)
    for name, settings in MEMBERS.items():
        about = {"kind": "tabular", "backbone": "none", "seed": stack.seed}
        start = Start(name, member_settings(about | settings), competition, threads)
        write_json(copy.start(name), asdict(start))
        for fold in folds:
            with redirect_stdout(io.StringIO()):
                train_fold(split_rows(noise, assigned, fold), start, fold, copy)
    both = collect(copy, list(MEMBERS), folds, competition)
    write_parquet(both.oof, copy.oof_file)
    oof = read_oof(copy, list(MEMBERS), competition)
    with redirect_stdout(io.StringIO()):
        comparison = compare_candidates(oof, list(MEMBERS), stack.candidates, competition, threads, stack.seed)
    means = comparison.nested[comparison.chosen].means
    return verdict(comparison.table.labels, means, comparison.second.groups, competition)


def verdict(labels: np.ndarray, means: np.ndarray, groups: np.ndarray, competition: Competition) -> dict[str, Any]:
    """Returns what (rows, outputs) means gain over the constant predictor, and whether by more than chance."""
    family = competition.family
    constant = np.tile(family.prior(labels), (len(labels), 1))
    prior, score = (family.losses(labels, each) for each in (constant, means))
    gain, error = float((prior - score).mean()), cluster_error(prior - score, groups)
    return {
        "rows": len(labels),
        "prior": float(prior.mean()),
        "score": float(score.mean()),
        "gain": gain,
        "standard_error": error,
        "leak": gain > ERRORS * error,
    }
