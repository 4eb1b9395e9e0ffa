"""What the stack is made of: what each member adds, where the scores are good and bad, and where members disagree.

python -m stages.diagnostics
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from pipeline.competitions.metrics import METRICS
from pipeline.competitions.task import Competition
from pipeline.ensemble.nested import Second, nested_predictions
from pipeline.ensemble.table import Table
from pipeline.ensemble.uncertainty import bootstrap, cluster_error
from pipeline.evaluation.slices import slices

STACKER = "weights"
"""Members are weighed with this stacker, whichever is chosen: it is quick, and cannot use the texts in their place."""

DISAGREEMENTS, EXCERPT = 12, 200


def marginal_gains(
    table: Table, second: Second, members: list[str], competition: Competition, threads: int, seed: int
) -> list[dict[str, Any]]:
    """Per member what the stack loses without it, and what the best member gains by it: 95 % intervals, paired by row.

    All scores are level-2 nested, so a member that only adds noise comes out below zero. The best member itself is
    measured against the class shares. Positive is better in either direction of the metric.
    """
    metric = METRICS[competition.metric]
    sign = 1.0 if metric.greater_is_better else -1.0

    def gains(chosen: list[int]) -> np.ndarray:
        if not chosen:
            shares = np.bincount(second.labels, minlength=len(competition.classes)) / len(second.labels)
            return sign * metric.per_row(second.labels, np.tile(shares, (len(second.labels), 1)))
        nested = nested_predictions(STACKER, second.members(chosen), competition, threads, seed)
        return sign * metric.per_row(second.labels, nested)

    everyone = list(range(len(members)))
    scores = [sign * metric.score(table.labels, table.probabilities[name]) for name in members]
    best = int(np.argmax(scores))
    full, alone, nobody = gains(everyone), gains([best]), gains([])
    differences = []
    for m in everyone:
        others = [other for other in everyone if other != m]
        left_out = full - (gains(others) if len(everyone) > 1 else nobody)
        added = alone - nobody if m == best else gains([best, m]) - alone
        differences += [left_out, added]
    found = bootstrap(np.stack(differences, axis=1), second.groups, seed)
    return [
        {"member": name, "left_out": asdict(found[2 * m]), "added": asdict(found[2 * m + 1]), "best": m == best}
        for m, name in enumerate(members)
    ]


def slice_scores(
    table: Table, stacked: np.ndarray, best: str, groups: np.ndarray, competition: Competition
) -> list[dict[str, Any]]:
    """The scores of class shares, best member and stack on every part of the rows, and what the stack gains there.

    The class shares are those of all rows, so a part's prior tells how its outcomes differ. The standard error is that
    of the paired gain over the best member.
    """
    metric = METRICS[competition.metric]
    sign = 1.0 if metric.greater_is_better else -1.0
    shares = np.bincount(table.labels, minlength=len(competition.classes)) / len(table.labels)
    prior, member, stack = (
        metric.per_row(table.labels, each)
        for each in (np.tile(shares, (len(table.labels), 1)), table.probabilities[best], stacked)
    )
    found = []
    for family, parts in slices(table.rows, table.labels, competition).items():
        for name, mask in parts.items():
            found.append(
                {
                    "family": family,
                    "slice": name,
                    "rows": int(mask.sum()),
                    "prior": float(prior[mask].mean()),
                    "best_member": float(member[mask].mean()),
                    "stack": float(stack[mask].mean()),
                    "gain": float(sign * (stack - member)[mask].mean()),
                    "standard_error": cluster_error((stack - member)[mask], groups[mask]),
                }
            )
    return found


def disagreements(
    table: Table, stacked: np.ndarray, members: list[str], competition: Competition
) -> list[dict[str, Any]]:
    """The rows on which the members differ most, with the start of their texts and what everybody says.

    The measure is the generalised Jensen-Shannon divergence (Lin 1991): entropy of the mean answer minus mean entropy.
    """
    answers = np.stack([table.probabilities[name] for name in members])
    divergence = _entropy(answers.mean(axis=0)) - _entropy(answers).mean(axis=0)
    fields = list(competition.kind.fields)
    found = []
    for row in np.argsort(-divergence, kind="stable")[:DISAGREEMENTS]:
        texts = {field: _excerpt(table.rows[field][int(row)]) for field in fields}
        says = {name: each[row].tolist() for name, each in zip(members, answers, strict=True)}
        about = {"id": table.rows["id"][int(row)], "label": int(table.labels[row]), "texts": texts}
        found.append(about | {"divergence": float(divergence[row]), "members": says, "stack": stacked[row].tolist()})
    return found


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    return -(probabilities * np.log(np.clip(probabilities, 1.0e-15, 1.0))).sum(axis=-1)


def _excerpt(turns: pl.Series | None) -> str:
    text = " ".join(" ".join(turn for turn in (turns if turns is not None else []) if turn).split())
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"


def swap_consistency(
    table: Table, members: list[str], receipts: dict[str, list[dict[str, Any]]], competition: Competition
) -> list[dict[str, Any]] | None:
    """Per member how far its answer moves when the sides change places, and whether it leans to one side.

    `difference` is the largest one that training measured (null where a file of predictions cannot be asked again);
    `lean` is how much more often the member expects the first side to win than it does. None for a task without sides.
    """
    if not competition.kind.mirror:
        return None
    first, second = competition.kind.decisive or (0, 1)
    won = (table.labels == first).astype(np.float64) - (table.labels == second)
    groups = table.groups(competition)
    found = []
    for name in members:
        told = [receipt["swap"] for receipt in receipts[name] if receipt.get("swap") is not None]
        excess = table.probabilities[name][:, first] - table.probabilities[name][:, second] - won
        lean = {"lean": float(excess.mean()), "lean_error": cluster_error(excess, groups)}
        found.append({"member": name, "difference": max(told, default=None)} | lean)
    return found
