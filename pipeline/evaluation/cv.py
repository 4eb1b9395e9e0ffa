"""From out-of-fold predictions to the stack, its ladder and its scores.

python -m stages.stack
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.decision import fit_decision
from pipeline.competitions.family import average
from pipeline.competitions.metrics import Metric, decisive_log_loss, metric_named
from pipeline.competitions.task import Competition
from pipeline.ensemble.build_ladder import HoldoutAnswers, build_ladder, calibrate, cheap_first, costliest
from pipeline.ensemble.ladder import Ladder, save_ladder
from pipeline.ensemble.nested import Comparison, compare_candidates
from pipeline.ensemble.scoring import Answers, constant, crossed, row_scores, score
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
    scores = cv_scores(Stacked(oof, holdout, truth, comparison, ladder, on_holdout, seed), training, seconds)
    with atomic_folder(artifacts.stack) as folder:
        save_ladder(ladder, folder)
        write_parquet(level2_frame(comparison, competition), folder / artifacts.level2_file.name)
    return scores


def level2_frame(comparison: Comparison, competition: Competition) -> pl.DataFrame:
    """Returns id, fold, label and the chosen stacker's nested means, for the report."""
    nested = comparison.nested[comparison.chosen].means
    return comparison.table.rows.select("id", "fold").with_columns(
        pl.Series("label", comparison.table.labels),
        *(pl.Series(name, nested[:, c]) for c, name in enumerate(competition.outputs)),
    )


@dataclass(frozen=True)
class Stacked:
    """Everything that the scores are computed from."""

    oof: Table
    """All members, those that are left out of the stack too."""
    holdout: Holdout | None
    truth: np.ndarray | None
    """(rows, outputs) true means of the rows of `oof`, where the data was generated."""
    comparison: Comparison
    ladder: Ladder
    on_holdout: HoldoutAnswers | None
    seed: int
    """Draws bootstraps, and parts of rows where there are few folds."""

    @property
    def metric(self) -> Metric:
        """The competition's metric."""
        return metric_named(self.competition.metric)

    @property
    def competition(self) -> Competition:
        """The competition."""
        return self.ladder.competition

    def crossed(self, table: Table, means: np.ndarray) -> Answers:
        """Returns means of a table's rows with labels that other parts of these rows have decided."""
        return crossed(table.labels, means, table.parts(self.competition, self.seed), self.competition)

    def score(self, table: Table, answers: Answers) -> float:
        """Returns the competition's score of answers to a table's rows."""
        return score(table.labels, answers, table.groups(self.competition), self.competition)

    @property
    def members(self) -> list[str]:
        """The members of the stack, in the order of the ladder."""
        return list(self.ladder.rungs[-1].members)


def cv_scores(stacked: Stacked, training: dict[str, collapse.Records], seconds: dict[str, float | None]) -> CvScores:
    """Returns everything that metrics/cv.json states.

    `training` holds the records of each member's fold models, `seconds` what they took.
    """
    oof, ladder, members = stacked.oof, stacked.ladder, stacked.members
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
    everywhere = constant(np.asarray(ladder.prior), oof.labels, competition)
    empty = [name for name, share in classes.items() if share == 0 and competition.outcome in ("classes", "labels")]
    # Nothing goes along with a constant: its correlation, which is not defined, counts as none.
    prior, decisive = float(np.nan_to_num(stacked.score(oof, everywhere))), competition.kind.decisive
    kind = "class" if competition.outcome == "classes" else "label"
    return CvScores(
        competition=competition.name,
        metric=competition.metric,
        rows=len(oof.labels),
        classes=classes,
        prior=prior,
        bayes=ABSENT if stacked.truth is None else stacked.score(oof, stacked.crossed(oof, stacked.truth)),
        members=entries,
        stack=_stack_scores(stacked),
        decisive=DecisiveScores(
            prior=decisive_log_loss(oof.labels, everywhere.means, decisive),
            members={n: decisive_log_loss(own[n].labels, own[n].probabilities[n], decisive) for n in members},
            stack=decisive_log_loss(comparison.table.labels, comparison.nested[comparison.chosen].means, decisive),
        )
        if decisive
        else ABSENT,
        warnings=[
            *(f'{kind} "{name}" never occurs in the training rows outside the holdout' for name in empty),
            *(line for name in members for line in _warnings(name, entries[name], prior, stacked)),
            *(f'member "{name}" is LEFT OUT of stack and package: {why}' for name, why in reasons.items()),
        ],
        dropped=reasons or ABSENT,
    )


def _member_scores(
    stacked: Stacked, name: str, own: Table, records: collapse.Records, gap: LeakTest | None, seconds: float | None
) -> MemberScores:
    """The rows that the member covers are `own`."""
    holdout, competition = stacked.holdout, stacked.competition
    folds, groups = own.rows["fold"].to_numpy(), own.groups(competition)
    answers = stacked.crossed(own, own.probabilities[name])
    of_fold = [folds == k for k in np.unique(folds)]
    held = None
    if holdout:
        means = holdout.average.probabilities[name]
        decision = fit_decision(own.labels, answers.means, competition)
        held = stacked.score(holdout.average, Answers(means, decision.apply(means, competition)))
    return MemberScores(
        score=stacked.score(own, answers),
        fold_scores=[score(own.labels[m], answers.take(m), groups[m], competition) for m in of_fold],
        holdout=held,
        attempts=collapse.most_attempts(records),
        collapsed=sum(record["collapsed"] for record in records.values()),
        rows=len(own.labels),
        gap=gap if name in stacked.members else ABSENT,
        seconds=seconds,
        stopped=collapse.stopped_attempts(records) if records else ABSENT,
        updates=collapse.share_of_updates(records) if records else ABSENT,
        truncation=collapse.mean_truncation(records) if records else ABSENT,
    )


def _stack_scores(stacked: Stacked) -> StackScores:
    table, nested, sign = stacked.comparison.table, stacked.comparison.nested, stacked.metric.sign
    full = stacked.ladder.rungs[-1]
    chosen, calibration = stacked.comparison.chosen, full.calibration
    alone = {name: stacked.crossed(table, table.probabilities[name]) for name in stacked.members}
    best = max(stacked.members, key=lambda name: sign * stacked.score(table, alone[name]))
    holdout, single, holdout_gains = None, [], None
    if stacked.holdout and stacked.on_holdout:
        held, answers = stacked.holdout.average, stacked.on_holdout
        decided = Answers(answers.shifted, full.decision.apply(answers.shifted, stacked.competition))
        holdout = stacked.score(held, decided)
        holdout_gains = _gains(stacked, held, decided, best)
        single = [
            stacked.score(held, Answers(each, full.decision.apply(each, stacked.competition)))
            for each in answers.single
        ]
    return StackScores(
        chosen=chosen,
        score=stacked.score(table, nested[chosen]),
        standard_error=cluster_error(_rows(stacked, table, nested[chosen]), stacked.comparison.second.groups),
        rows=len(table.labels),
        holdout=holdout,
        temperature=calibration.temperature * calibration.shift,
        calibration=calibration,
        single_on_holdout=float(np.mean(single)) if single else None,
        candidates={name: stacked.score(table, each) for name, each in nested.items()},
        best_member=best,
        gains={"nested": _gains(stacked, table, nested[chosen], best), "holdout": holdout_gains},
    )


def _rows(stacked: Stacked, table: Table, answers: Answers) -> np.ndarray:
    """Returns the metric's number for each row of `table`, (rows,)."""
    return row_scores(table.labels, answers, table.groups(stacked.competition), stacked.competition)


def _gains(stacked: Stacked, table: Table, answers: Answers, best: str) -> dict[str, Interval]:
    """Returns how much better the stack's `answers` are than the best member's, and than the plain equal mean.

    The intervals hold 95 %, paired by row, with whole groups drawn anew; positive is better in either direction.
    """
    mean = average(stacked.competition.family, [table.probabilities[name] for name in stacked.members])
    ours = _rows(stacked, table, answers)
    others = [_rows(stacked, table, stacked.crossed(table, each)) for each in (table.probabilities[best], mean)]
    differences = np.stack([stacked.metric.sign * (ours - other) for other in others], axis=1)
    found = bootstrap(differences, table.groups(stacked.competition), stacked.seed)
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
