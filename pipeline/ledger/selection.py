"""What each submitted commit said out-of-fold, from DVC's cache, and which two submissions to select by it.

python -m stages.choose --public 0.3
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.metrics import metric_named
from pipeline.competitions.task import Competition
from pipeline.data.folds import group_keys
from pipeline.ensemble.scoring import crossed, row_scores
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.ledger.choose import Choice, History, choose, paired_errors
from pipeline.ledger.chosen import Candidate, Selection
from pipeline.ledger.compare import submitted_entries
from pipeline.ledger.ledger import Entry, decimals

SECONDS = 120.0
"""DVC gets so long for one commit's file."""
SEED = 0
ASSUMED = (
    "assumed: CV and test rows tell submissions apart alike; CV is off by one shift for all, and by something of each "
    "submission's own; public and private rows are different ones, drawn from one test set"
)


def selection(public_share: float, artifacts: Artifacts) -> Selection:
    """Returns the submissions and the two to select.

    Raises: PodiumError where fewer than two submissions can be compared.
    """
    if not 0 < public_share < 1:
        raise PodiumError(f"PUBLIC: expected the share of the test rows behind the public score, found {public_share}")
    competition, rows = artifacts.competition(), artifacts.train().collect()
    entries = submitted_entries()
    scores, missing = _row_scores(entries, rows, competition, artifacts)
    told = [f"submission {entry.submission} is left out: {why}" for entry, why in missing]
    kept = [entry for entry in entries if entry.submission in scores]
    if len(kept) < 2:
        raise PodiumError("; ".join([f"two submissions are needed to choose from, found {len(kept)}", *told]))
    ids = scores[kept[0].submission].select("id")
    for entry in kept:
        ids = ids.join(scores[entry.submission].select("id"), on="id", how="semi")
    common = rows.join(ids, on="id", how="semi", maintain_order="left")
    each = [
        common.select("id").join(scores[one.submission], on="id", how="left", maintain_order="left") for one in kept
    ]
    table = np.stack([one["score"].to_numpy() for one in each], axis=1)
    sign = -1.0 if metric_named(competition.metric).greater_is_better else 1.0
    groups = group_keys(common, competition.kind).rank("dense").to_numpy()
    test_rows = competition.hidden_rows or read_json(artifacts.competition_file)["rows"]["test"]
    public = np.array([np.nan if entry.public is None else entry.public for entry in kept])
    history = History(
        sign * table.mean(axis=0),
        paired_errors(table, groups),
        len(table),
        sign * public,
        round(public_share * test_rows),
        round((1 - public_share) * test_rows),
    )
    choice = choose(history, SEED)
    candidates = [
        Candidate(
            submission=entry.submission,
            cv=sign * float(history.cv[place]),
            public=entry.public,
            expected=sign * float(choice.expected[place]),
            best=float(choice.best[place]),
            selected=place in choice.pair,
        )
        for place, entry in enumerate(kept)
    ]
    sentences = (*_sentences(kept, history, choice, sign), *told, ASSUMED)
    return Selection(candidates=tuple(candidates), sentences=sentences)


def _sentences(entries: list[Entry], history: History, choice: Choice, sign: float) -> list[str]:
    """Returns what the two to select, and those of other ways to choose, are expected to bring."""
    first, second = (entries[place].submission for place in choice.pair)
    lines = [f"select {first} and {second}: the better one is expected at {decimals(sign * choice.value)}"]
    for name, given in (("CV", history.cv), ("public LB", history.public)):
        if np.isfinite(given).sum() >= 2:
            one, other = np.argsort(np.where(np.isfinite(given), given, np.inf), kind="stable")[:2].tolist()
            numbers = f"{entries[one].submission} and {entries[other].submission}"
            lines.append(f"the two best by {name}, {numbers}: {decimals(sign * choice.best_of(one, other))}")
    lines.append(f"{history.rows} rows behind the CV, {history.public_rows} public, {history.private_rows} private")
    return lines


def _row_scores(
    entries: list[Entry], rows: pl.DataFrame, competition: Competition, artifacts: Artifacts
) -> tuple[dict[int, pl.DataFrame], list[tuple[Entry, str]]]:
    """Returns submission -> id and score of each row, from the stack's nested answers, and why others are left out."""
    found: dict[int, pl.DataFrame] = {}
    missing: list[tuple[Entry, str]] = []
    wanted = {"id", "fold", *competition.outputs}
    with tempfile.TemporaryDirectory(prefix="podium-choose-") as folder:
        for entry in entries:
            file = Path(folder) / f"{entry.submission}.parquet"
            if why := _fetch(f"sub-{entry.submission}", artifacts.level2_file, file):
                missing.append((entry, why))
                continue
            said = pl.read_parquet(file)
            if not wanted <= set(said.columns):
                missing.append((entry, "its answers have other columns than today's competition"))
                continue
            answered = rows.join(said.select(sorted(wanted)), on="id", how="inner", maintain_order="left")
            labels, parts = answered["label"].to_numpy(), answered["fold"].to_numpy()
            means = answered.select(competition.outputs).to_numpy()
            groups = group_keys(answered, competition.kind).rank("dense").to_numpy()
            scores = row_scores(labels, crossed(labels, means, parts, competition), groups, competition)
            found[entry.submission] = pl.DataFrame({"id": answered["id"], "score": scores})
    return found, missing


def _fetch(revision: str, path: Path, target: Path) -> str:
    """Brings a file of a commit from DVC's cache to `target`; returns why that failed, or nothing."""
    command = [sys.executable, "-m", "dvc", "get", "-q", ".", str(path), "--rev", revision, "-o", str(target)]
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"DVC gave no answer for {SECONDS:g} s"
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return f"dvc: {said[-1].removeprefix('ERROR: ')}"
    return ""
