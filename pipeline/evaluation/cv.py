"""From out-of-fold predictions to the stack, its ladder and its scores.

python -m stages.stack
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.metrics import METRICS, Metric, decisive_log_loss
from pipeline.competitions.task import Competition
from pipeline.ensemble.build_ladder import HoldoutAnswers, build_ladder, calibrate, cheap_first, costliest
from pipeline.ensemble.ladder import Ladder, save_ladder
from pipeline.ensemble.logits import geometric_mean
from pipeline.ensemble.nested import Comparison, compare_candidates
from pipeline.ensemble.table import Holdout, Table, read_holdout, read_oof, read_truth
from pipeline.ensemble.uncertainty import Interval, bootstrap, cluster_error
from pipeline.errors import PodiumError
from pipeline.evaluation import collapse
from pipeline.evaluation.leak_test import LeakTest, leak_test
from pipeline.evaluation.scores import ABSENT, CvScores, DecisiveScores, MemberScores, StackScores
from pipeline.files import atomic_folder, write_parquet
from pipeline.kinds import kind_of
from pipeline.stage import seconds_of

if TYPE_CHECKING:
    from pipeline.config import Params


def stack_and_score(artifacts: Artifacts, params: Params) -> CvScores:
    """Fits the second level, chooses a stacker and builds the ladder, into `artifacts.stack`.

    Returns what metrics/cv.json states. Raises: PodiumError where every member has collapsed, or one has and
    guard.on_collapse is `fail`; where no row is covered by all members.
    """
    kinds = {name: kind_of(member.kind) for name, member in params.members.items()}
    everyone = cheap_first(kinds)
    training = collapse.read_training(artifacts, everyone, params.folds.ids)
    dropped = collapse.collapsed_folds(training, params.guard.on_collapse)
    members = [name for name in everyone if name not in dropped]
    if not members:
        raise PodiumError("every member has collapsed fold models: there is nothing to stack; see metrics and log")
    competition, threads, seed = artifacts.competition(), params.threads, params.stack.seed
    oof, holdout = read_oof(artifacts, everyone, competition), read_holdout(artifacts, everyone, competition)
    comparison = compare_candidates(oof, members, params.stack.candidates, competition, threads, seed)
    ladder = build_ladder(oof, members, comparison.chosen, competition, threads, seed, costliest(kinds, members))
    ladder, on_holdout = calibrate(ladder, holdout, seed)
    seconds = {name: seconds_of(f"finetune@{name}-") for name in everyone}
    truth = read_truth(artifacts, oof, competition)
    scores = cv_scores(Stacked(oof, holdout, truth, comparison, ladder, on_holdout), training, seconds, seed)
    with atomic_folder(artifacts.stack) as folder:
        save_ladder(ladder, folder)
        write_parquet(level2_frame(comparison, competition), folder / artifacts.level2_file.name)
    return scores


def level2_frame(comparison: Comparison, competition: Competition) -> pl.DataFrame:
    """Returns id, fold, label and the chosen stacker's nested probabilities, for the report."""
    nested = comparison.nested[comparison.chosen]
    return comparison.table.rows.select("id", "fold").with_columns(
        pl.Series("label", comparison.table.labels, dtype=pl.Int8),
        *(pl.Series(name, nested[:, c]) for c, name in enumerate(competition.outputs)),
    )


@dataclass(frozen=True)
class Stacked:
    """Everything that the scores are computed from."""

    oof: Table
    """All members, those that are left out of the stack too."""
    holdout: Holdout | None
    truth: np.ndarray | None
    """(rows, classes) true probabilities of the rows of `oof`, where the data was generated."""
    comparison: Comparison
    ladder: Ladder
    on_holdout: HoldoutAnswers | None

    @property
    def metric(self) -> Metric:
        """The competition's metric."""
        return METRICS[self.ladder.competition.metric]

    @property
    def members(self) -> list[str]:
        """The members of the stack, in the order of the ladder."""
        return list(self.ladder.rungs[-1].members)


def cv_scores(
    stacked: Stacked, training: dict[str, collapse.Records], seconds: dict[str, float | None], seed: int
) -> CvScores:
    """Returns everything that metrics/cv.json states.

    `training` holds the records of each member's fold models, `seconds` what they took; `seed` draws the bootstraps.
    """
    oof, ladder, metric, members = stacked.oof, stacked.ladder, stacked.metric, stacked.members
    competition, comparison = ladder.competition, stacked.comparison
    gaps = leak_test(oof, stacked.holdout, members, competition)
    dropped = [name for name in oof.probabilities if name not in members]
    own = {name: oof.covered_by([name]) for name in (*members, *dropped)}
    entries = {
        name: _member_scores(stacked, name, table, training.get(name, {}), gaps.get(name), seconds.get(name))
        for name, table in own.items()
    }
    reasons = {
        name: f"{entries[name].collapsed} of {len(training[name])} fold models are no better than the prior"
        for name in dropped
    }
    classes = dict(zip(competition.outputs, ladder.prior, strict=True))
    everywhere = np.tile(np.asarray(ladder.prior), (len(oof.labels), 1))
    empty = [name for name, share in classes.items() if share == 0]
    prior, decisive = metric.score(oof.labels, everywhere), competition.kind.decisive
    return CvScores(
        competition=competition.name,
        metric=competition.metric,
        rows=len(oof.labels),
        classes=classes,
        prior=prior,
        bayes=ABSENT if stacked.truth is None else metric.score(oof.labels, stacked.truth),
        members=entries,
        stack=_stack_scores(stacked, seed),
        decisive=DecisiveScores(
            prior=decisive_log_loss(oof.labels, everywhere, decisive),
            members={n: decisive_log_loss(own[n].labels, own[n].probabilities[n], decisive) for n in members},
            stack=decisive_log_loss(comparison.table.labels, comparison.nested[comparison.chosen], decisive),
        )
        if decisive
        else ABSENT,
        warnings=[
            *(f'class "{name}" never occurs in the training rows outside the holdout' for name in empty),
            *(line for name in members for line in _warnings(name, entries[name], prior, stacked)),
            *(f'member "{name}" is LEFT OUT of stack and package: {why}' for name, why in reasons.items()),
        ],
        dropped=reasons or ABSENT,
    )


def _member_scores(
    stacked: Stacked, name: str, own: Table, records: collapse.Records, gap: LeakTest | None, seconds: float | None
) -> MemberScores:
    """The rows that the member covers are `own`."""
    metric, holdout = stacked.metric, stacked.holdout
    folds, answers = own.rows["fold"].to_numpy(), own.probabilities[name]
    return MemberScores(
        score=metric.score(own.labels, answers),
        fold_scores=[metric.score(own.labels[folds == k], answers[folds == k]) for k in np.unique(folds)],
        holdout=metric.score(holdout.average.labels, holdout.average.probabilities[name]) if holdout else None,
        attempts=collapse.most_attempts(records),
        collapsed=sum(record["collapsed"] for record in records.values()),
        rows=len(own.labels),
        gap=gap if name in stacked.members else ABSENT,
        seconds=seconds,
        stopped=collapse.stopped_attempts(records) if records else ABSENT,
        updates=collapse.share_of_updates(records) if records else ABSENT,
        truncation=collapse.mean_truncation(records) if records else ABSENT,
    )


def _stack_scores(stacked: Stacked, seed: int) -> StackScores:
    table, nested, metric = stacked.comparison.table, stacked.comparison.nested, stacked.metric
    chosen, calibration = stacked.comparison.chosen, stacked.ladder.rungs[-1].calibration
    best = max(stacked.members, key=lambda name: metric.sign * metric.score(table.labels, table.probabilities[name]))
    holdout, single, holdout_gains = None, [], None
    if stacked.holdout and stacked.on_holdout:
        average, answers = stacked.holdout.average, stacked.on_holdout
        holdout = metric.score(average.labels, answers.shifted)
        holdout_gains = _gains(stacked, average, answers.shifted, best, seed)
        single = [metric.score(average.labels, each) for each in answers.single]
    return StackScores(
        chosen=chosen,
        score=metric.score(table.labels, nested[chosen]),
        standard_error=cluster_error(metric.per_row(table.labels, nested[chosen]), stacked.comparison.second.groups),
        rows=len(table.labels),
        holdout=holdout,
        temperature=calibration.temperature * calibration.shift,
        calibration=calibration,
        single_on_holdout=float(np.mean(single)) if single else None,
        candidates={name: metric.score(table.labels, each) for name, each in nested.items()},
        best_member=best,
        gains={"nested": _gains(stacked, table, nested[chosen], best, seed), "holdout": holdout_gains},
    )


def _gains(stacked: Stacked, table: Table, answers: np.ndarray, best: str, seed: int) -> dict[str, Interval]:
    """Returns how much better the stack's `answers` are than the best member's, and than the plain equal mean.

    The intervals hold 95 %, paired by row, with whole prompts drawn anew; positive is better in either direction.
    """
    metric, mean = stacked.metric, geometric_mean([table.probabilities[name] for name in stacked.members])
    ours = metric.per_row(table.labels, answers)
    others = [metric.per_row(table.labels, each) for each in (table.probabilities[best], mean)]
    differences = np.stack([metric.sign * (ours - other) for other in others], axis=1)
    found = bootstrap(differences, table.groups(stacked.ladder.competition), seed)
    return dict(zip(("best_member", "equal_mean"), found, strict=True))


def _warnings(name: str, member: MemberScores, prior: float, stacked: Stacked) -> list[str]:
    """Returns what a reader should know before trusting the scores of a member of the stack."""
    found, rows = [], len(stacked.oof.labels)
    if not stacked.metric.better(member.score, prior):
        found.append(f'member "{name}" is no better than the prior ({member.score:.4f} against {prior:.4f})')
    if isinstance(member.gap, LeakTest) and member.gap.leak:
        gap, error = member.gap.strongest
        found.append(
            f'member "{name}" looks leaky: its fold models do {gap:.4f} ± {error:.4f} better on their own folds '
            f"than on the holdout; trust neither its score nor the stack's"
        )
    if member.rows < rows:
        fitted = len(stacked.comparison.table.labels)
        found.append(f'member "{name}" covers {member.rows} of {rows} rows; the stack uses {fitted}')
    return found
