"""What the stack is made of: what each member adds, where the scores are good and bad, and where members disagree.

python -m stages.diagnostics
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.metrics import metric_named
from pipeline.competitions.task import Competition
from pipeline.ensemble.nested import nested_candidates, second_level
from pipeline.ensemble.scoring import constant, crossed, row_scores, score
from pipeline.ensemble.stack_inputs import SecondLevel
from pipeline.ensemble.table import Table, read_oof
from pipeline.ensemble.uncertainty import bootstrap, cluster_error
from pipeline.evaluation.slices import row_slices
from pipeline.files import read_json

if TYPE_CHECKING:
    from pipeline.config import Params

STACKER = "weights"
"""Members are weighed with this stacker, whichever is chosen: it is quick, and cannot use the texts in their place."""

DISAGREEMENTS, EXCERPT = 12, 200


def stack_diagnostics(artifacts: Artifacts, scores: dict[str, Any], params: Params) -> dict[str, Any]:
    """Returns the contents of diagnostics.json; `scores` are those of metrics/cv.json."""
    competition, threads, seed = artifacts.competition(), params.threads, params.stack.seed
    members = [name for name in scores["members"] if name not in scores.get("dropped", {})]
    table = read_oof(artifacts, members, competition).covered_by(members)
    rows = second_level(table, members, competition, False, seed)
    stacked = pl.read_parquet(artifacts.level2_file).select(competition.outputs).to_numpy()
    receipts = {name: [read_json(artifacts.receipt(name, fold)) for fold in params.folds.ids] for name in members}
    return {
        "stacker": STACKER,
        "marginal": marginal_gains(table, rows, members, competition, threads, seed),
        "slices": slice_scores(table, stacked, scores["stack"]["best_member"], rows.groups, competition, seed),
        "disagreements": disputed_rows(table, stacked, members, competition),
        "swap": swap_consistency(table, members, receipts, competition),
    }


def marginal_gains(
    table: Table, second: SecondLevel, members: list[str], competition: Competition, threads: int, seed: int
) -> list[dict[str, Any]]:
    """Returns what the stack loses without each member, and what the best one gains by it, with 95 % intervals.

    The intervals are paired by row. All scores are level-2 nested, so a member that only adds noise comes out below
    zero. The best member itself is measured against the constant predictor. Positive is better in either direction of
    the metric.
    """
    metric = metric_named(competition.metric)

    def gains(chosen: list[int]) -> np.ndarray:
        if not chosen:
            answers = constant(competition.family.prior(second.labels), second.labels, competition)
        else:
            answers = nested_candidates([STACKER], second.members(chosen), competition, threads, seed)[STACKER]
        # Without a value here (a correlation with a constant) it counts as none.
        return np.nan_to_num(metric.sign * row_scores(second.labels, answers, second.groups, competition))

    everyone = list(range(len(members)))
    alone_answers = [crossed(table.labels, table.probabilities[name], second.parts, competition) for name in members]
    scores = [metric.sign * score(table.labels, each, second.groups, competition) for each in alone_answers]
    best = int(np.nanargmax(scores)) if np.isfinite(scores).any() else 0
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
    table: Table, stacked: np.ndarray, best: str, groups: np.ndarray, competition: Competition, seed: int
) -> list[dict[str, Any]]:
    """Returns the scores of prior, best member and stack on every part of the rows, and the stack's gain there.

    The prior is that of all rows, so a part's prior tells how its outcomes differ. The standard error is that
    of the paired gain over the best member.
    """
    metric = metric_named(competition.metric)
    parted = table.parts(competition, seed)
    answers = (
        constant(competition.family.prior(table.labels), table.labels, competition),
        *(crossed(table.labels, each, parted, competition) for each in (table.probabilities[best], stacked)),
    )
    found = []
    for family, parts in row_slices(table.rows, table.labels, competition).items():
        for name, mask in parts.items():
            prior, member, stack = (
                row_scores(table.labels[mask], each.take(mask), groups[mask], competition) for each in answers
            )
            if not np.isfinite([prior, member, stack]).all():
                continue  # the metric has no value here, such as the AUC of one class
            means = (float(each.mean()) for each in (prior, member, stack))
            scores = dict(zip(("prior", "best_member", "stack"), means, strict=True))
            gain, error = float(metric.sign * (stack - member).mean()), cluster_error(stack - member, groups[mask])
            about = {"family": family, "slice": name, "rows": int(mask.sum())}
            found.append(about | scores | {"gain": gain, "standard_error": error})
    return found


def disputed_rows(
    table: Table, stacked: np.ndarray, members: list[str], competition: Competition
) -> list[dict[str, Any]]:
    """Returns the rows on which the members differ most, with the start of their texts and what everybody says.

    The measure is the mean divergence of the members from their mean answer: of classes, the generalised Jensen-Shannon
    divergence (Lin 1991).
    """
    answers = np.stack([table.probabilities[name] for name in members])
    divergence = np.mean([competition.family.divergence(each, answers.mean(axis=0)) for each in answers], axis=0)
    fields = list(competition.kind.fields)
    found = []
    for row in np.argsort(-divergence, kind="stable")[:DISAGREEMENTS]:
        texts = {field: _excerpt(table.rows[field][int(row)]) for field in fields}
        says = {name: each[row].tolist() for name, each in zip(members, answers, strict=True)}
        about = {"id": table.rows["id"][int(row)], "label": table.labels[row].tolist(), "texts": texts}
        found.append(about | {"divergence": float(divergence[row]), "members": says, "stack": stacked[row].tolist()})
    return found


def _excerpt(turns: pl.Series | None) -> str:
    text = " ".join(" ".join(turn for turn in (turns if turns is not None else []) if turn).split())
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"


def swap_consistency(
    table: Table, members: list[str], receipts: dict[str, list[dict[str, Any]]], competition: Competition
) -> list[dict[str, Any]] | None:
    """Returns how far each member's answer moves when the sides change places, and whether it leans to one side.

    `difference` is the largest one that training measured (null where a file of predictions cannot be asked again);
    `lean` is how much more often the member expects the first side to win than it does. None for a task whose
    sides do not name a winner.
    """
    if competition.task != "preference":
        return None
    first, second = 0, 1
    won = (table.labels == first).astype(np.float64) - (table.labels == second)
    groups = table.groups(competition)
    found = []
    for name in members:
        told = [receipt["swap"] for receipt in receipts[name] if receipt.get("swap") is not None]
        excess = table.probabilities[name][:, first] - table.probabilities[name][:, second] - won
        lean = {"lean": float(excess.mean()), "lean_error": cluster_error(excess, groups)}
        found.append({"member": name, "difference": max(told, default=None)} | lean)
    return found
