"""Small real inputs for the tests: rows with a signal in their text, made from a seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.competitions.family import Categorical, average
from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.members.context import Start
from pipeline.settings.external import External

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
GOOD, BAD = "for example", "I cannot help"
TASKS = {"preference": load_competition("lmsys").kind, "text": load_competition("spooky").kind}
CLASSES = Categorical(3)
to_logits, from_logits = CLASSES.link, CLASSES.means


def geometric_mean(parts: list[np.ndarray]) -> np.ndarray:
    """The average of (rows, classes) probabilities, by the mean of their logits."""
    return average(CLASSES, parts)


def preference_rows(count: int, seed: int = 0) -> pl.DataFrame:
    """`count` normalised preference rows with labels: answers with more of GOOD and less of BAD tend to win."""
    rng = np.random.default_rng(seed)
    words = np.array(
        ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"]
    )

    def answer(quality: int) -> str:
        body = list(rng.choice(words, size=rng.integers(5, 40)))
        return " ".join(body + [GOOD] * max(quality, 0) + [BAD] * max(-quality, 0))

    qualities = rng.integers(-2, 3, size=(count, 2))
    scores = np.stack([qualities[:, 0], qualities[:, 1], qualities.mean(axis=1)], axis=1) + rng.gumbel(size=(count, 3))
    return pl.DataFrame(
        {
            "id": [str(1000 + i) for i in range(count)],
            "label": pl.Series(scores.argmax(axis=1), dtype=pl.Int16),
            "prompt": [[f"Question {i // 2}?"] for i in range(count)],
            "a": [[answer(q)] for q in qualities[:, 0]],
            "b": [[answer(q)] for q in qualities[:, 1]],
        }
    )


def probabilities(labels: np.ndarray, classes: int, sharpness: float, seed: int) -> np.ndarray:
    """(rows, classes) noisy probabilities that favour the true class."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(labels), classes)) + sharpness * np.eye(classes)[labels]
    each = np.exp(logits)
    return each / each.sum(axis=1, keepdims=True)


def run_module(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m ...` as a user runs it in the folder `cwd`, with this checkout's code."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def error_line(finished: subprocess.CompletedProcess[str]) -> str:
    """The one line of a bad-input error, after checking that it is one line with exit code 2 and no traceback."""
    assert finished.returncode == 2, finished.stdout + finished.stderr
    lines = [line for line in finished.stderr.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1, finished.stderr
    assert lines[0].startswith("error: "), finished.stderr
    return lines[0]


def write_artifacts(root: Path, rows: pl.DataFrame, competition: Competition, folds: np.ndarray) -> Path:
    """artifacts/ under `root` as prepare and folds leave it, for `rows` with labels; returns its path."""
    artifacts = root / "artifacts"
    (artifacts / "competition").mkdir(parents=True)
    rows.write_parquet(artifacts / "competition" / "train.parquet")
    rows.select("id").with_columns(pl.Series("fold", folds, dtype=pl.Int8)).write_parquet(artifacts / "folds.parquet")
    described = {"competition": asdict(competition), "rows": {"train": len(rows), "test": 0}}
    (artifacts / "competition" / "competition.json").write_text(json.dumps(described))
    return artifacts


def write_external(root: Path, name: str, rows: pl.DataFrame, competition: Competition, sharpness: float) -> Start:
    """A teammate's file external/<name>.csv for `rows`, and the start of the member that reads it."""
    labels = rows["label"].to_numpy()
    each = probabilities(labels, len(competition.outputs), sharpness, len(name))
    file = root / "external" / f"{name}.csv"
    file.parent.mkdir(exist_ok=True)
    columns = {column: each[:, c] for c, column in enumerate(competition.outputs)}
    pl.DataFrame({"id": rows["id"]} | columns).write_csv(file)
    return Start(name, External(kind="external", backbone="none", file=f"external/{name}.csv"), competition, 1)
