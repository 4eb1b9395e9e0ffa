"""A made-up run on disk for the tests of the report, and the page as a reader sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.special import softmax

from pipeline.competitions.metrics import METRICS, decisive_log_loss
from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.files import read_json, write_json, write_parquet
from pipeline.report.evidence import load_evidence
from pipeline.report.page import render

ROWS, FOLDS = 900, 4
WEIGHTS = {"words": (0.6, 0.5), "shape": (0.35, 0.4), "blend": (0.7, 0.5)}
"""How much of the truth and how much noise each made-up member's logits hold."""


def make_run(
    root: Path,
    competition: Competition | None = None,
    members: dict[str, tuple[float, float]] | None = None,
    rows: int = ROWS,
    trained: dict[str, tuple[int, ...]] | None = None,
    folds: int = FOLDS,
    bayes: bool = True,
) -> Path:
    """Writes all that the report reads under `root`; members in `trained` cover these folds only."""
    competition, members = competition or load_competition("lmsys"), members or WEIGHTS
    metric, classes = METRICS[competition.metric], len(competition.classes)
    rng = np.random.default_rng(20)
    truth = rng.normal(size=(rows, classes)) + np.linspace(0.3, -0.5, classes)
    true_probabilities = softmax(truth, axis=1)
    labels = (true_probabilities.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(max=classes - 1)
    fold = rng.integers(0, folds, rows)
    shares = np.bincount(labels, minlength=classes) / rows

    def scored(probabilities: np.ndarray, mask: np.ndarray) -> float:
        return metric.score(labels[mask], probabilities[mask])

    frame = pl.DataFrame({"id": [str(i) for i in range(rows)], "fold": fold, "label": labels}).cast(
        {"fold": pl.Int8, "label": pl.Int8}
    )
    told: dict[str, Any] = {}
    everything, decisive, logits = np.ones(rows, dtype=bool), {}, []
    for name, (signal, noise) in members.items():
        logit = signal * truth + noise * rng.normal(size=truth.shape)
        logits.append(logit)
        probabilities = softmax(logit, axis=1)
        covered = np.isin(fold, (trained or {}).get(name, range(folds)))
        frame = frame.with_columns(
            pl.Series(f"{name}/{one}", np.where(covered, probabilities[:, c], np.nan)).fill_nan(None)
            for c, one in enumerate(competition.classes)
        )
        told[name] = {
            "score": scored(probabilities, covered),
            "fold_scores": [scored(probabilities, fold == k) for k in range(folds) if covered[fold == k].any()],
            "holdout": scored(probabilities, everything) + 0.004,
            "attempts": 1,
            "collapsed": 0,
            "seconds": float(20 * rng.random() ** 3 + 0.3),
            "rows": int(covered.sum()),
        }
        if competition.kind.decisive:
            decisive[name] = decisive_log_loss(labels[covered], probabilities[covered], competition.kind.decisive)
    stacked = softmax(1.2 * np.mean(logits, axis=0), axis=1)
    score = scored(stacked, everything)
    sign = -1 if metric.greater_is_better else 1
    best = min(told, key=lambda name: sign * told[name]["score"])
    cv = {
        "competition": competition.name,
        "metric": competition.metric,
        "rows": rows,
        "prior": scored(np.tile(shares, (rows, 1)), everything),
        **({"bayes": scored(true_probabilities, everything)} if bayes else {}),
        "members": told,
        "stack": {
            "chosen": "logistic",
            "score": score,
            "standard_error": float(metric.per_row(labels, stacked).std() / np.sqrt(rows)),
            "holdout": score + sign * 0.0057,
            "temperature": 1.0,
            "candidates": {"mean": score + sign * 0.011, "logistic": score, "lightgbm": score + sign * 0.0042},
            "best_member": best,
        },
        "classes": dict(zip(competition.classes, shares.tolist(), strict=True)),
        "warnings": [],
    }
    if competition.kind.decisive:
        stack_score = decisive_log_loss(labels, stacked, competition.kind.decisive)
        cv["decisive"] = {"prior": 0.6926, "members": decisive, "stack": stack_score}
    rehearsal = {
        "budget_seconds": 32400,
        "elapsed_seconds": 7.31,
        "valid": True,
        "rungs": ["prior", "words+shape", "all"],
        "rows": 600,
        "rows_per_rung": {"prior": 0, "words+shape": 3, "all": 597},
        "parity": {name: {"max": 3.1e-13, "mean": 2.2e-15} for name in members},
        "parity_max_abs_diff": 3.1e-13,
        "network": "namespace",
        "plan": [
            {"member": name, "fold": k, "rows": 600, "seconds": 0.123456} for name in members for k in range(folds)
        ],
    }
    facts = {"competition": asdict(competition), "rows": {"train": rows + 100, "test": 600}, "data": "0" * 64}
    write_json(root / "artifacts/competition/competition.json", facts)
    write_json(root / "metrics/cv.json", cv)
    write_json(root / "metrics/rehearsal.json", rehearsal)
    write_parquet(frame, root / "artifacts/oof/oof.parquet")
    level2 = frame.select("id", "fold", "label").with_columns(
        pl.Series(one, stacked[:, c]) for c, one in enumerate(competition.classes)
    )
    write_parquet(level2, root / "artifacts/stack/level2.parquet")
    write_json(root / "metrics/probe.json", PROBE)
    write_json(root / "artifacts/diagnostics.json", make_diagnostics(competition, list(members), best))
    times = {
        "prepare": 0.412,
        "folds": 0.25,
        "start": 0.6,
        "oof": 0.31,
        "stack": 11.2,
        "package": 0.9,
        "rehearse": 9.75,
        "report": 1.5,
    }
    times |= {f"finetune@{name}-{k}": 1.25 + k + i for i, name in enumerate(members) for k in range(folds)}
    for name, seconds in times.items():
        write_json(root / f"work/seconds/{name}.json", seconds)
    return root


PROBE = {"rows": 450, "prior": 1.05, "score": 1.0516, "gain": -0.0016, "standard_error": 0.0013, "leak": False}


def make_diagnostics(competition: Competition, members: list[str], best: str) -> dict[str, Any]:
    """artifacts/diagnostics.json in the form of stages/diagnostics.py."""
    interval = {"mean": 0.0123, "low": 0.0045, "high": 0.0201}
    chance = {"mean": -0.0006, "low": -0.0031, "high": 0.0019}
    part = {"prior": 1.0412, "best_member": 0.9123, "stack": 0.9011, "gain": 0.0112, "standard_error": 0.0034}
    names = {"turns": ("one turn", "two turns"), "script": ("latin", "cjk")}
    even = np.full(len(competition.classes), 1 / len(competition.classes)).tolist()
    row = {"id": "r17", "label": 1, "texts": dict.fromkeys(competition.kind.fields, "Is 1 < 2 & 3?"), "divergence": 0.3}
    swap = [{"member": name, "difference": 2.2e-16, "lean": 0.0087, "lean_error": 0.0091} for name in members]
    return {
        "stacker": "weights",
        "marginal": [{"member": m, "left_out": interval, "added": chance, "best": m == best} for m in members],
        "slices": [{"family": f, "slice": n, "rows": 321} | part for f, each in names.items() for n in each],
        "disagreements": [row | {"members": dict.fromkeys(members, even), "stack": even}],
        "swap": swap if competition.kind.mirror else None,
    }


VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """A checked parse: every tag is closed in order; collects table rows and the text that a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if ("td" in self.open or "th" in self.open) and "svg" not in self.open:
            self.rows[-1][-1] += data.strip()

    def row(self, *starts: str) -> list[str]:
        """The one table row that starts with these cells."""
        (found,) = [row for row in self.rows if row[: len(starts)] == list(starts)]
        return found


def rendered(root: Path) -> str:
    return render(load_evidence(root))


def edit(root: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    value = read_json(root / name)
    change(value)
    write_json(root / name, value)
