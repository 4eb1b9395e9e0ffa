"""Builds the ladder: the sets of members that get a stacker, what each rung is expected to be worth, and its shift."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.competitions.decision import fit_decision
from pipeline.competitions.family import Family
from pipeline.competitions.task import Competition
from pipeline.data.folds import assign_folds, group_keys
from pipeline.data.rows import field_characters
from pipeline.ensemble.calibration import Calibration, fit_shift
from pipeline.ensemble.fitting import fit_stacker
from pipeline.ensemble.ladder import PRIOR, Ladder, Rung, answering_order
from pipeline.ensemble.nested import second_level
from pipeline.ensemble.row_priority import fit_priority
from pipeline.ensemble.table import Holdout, Table
from pipeline.kinds import Kind

ON_THE_WAY = "logistic"
"""The stacker of every rung but the last: quick to fit, and it calibrates a single member too."""
FEW = 6
"""Of so many members each may be missing; of more, a smaller rung is nearly as good, and fits take time."""
WITHOUT = 2
"""Of so many of the costliest members each prefix has a rung without one of them."""


def cheap_first(kinds: dict[str, Kind]) -> list[str]:
    """Returns the members from the first rung to the last: by the place of their kind on the ladder, else as listed."""
    return sorted(kinds, key=lambda name: kinds[name].place)


def costliest(kinds: dict[str, Kind], members: list[str]) -> list[str]:
    """Returns the networks among `members`, the most expensive kind first."""
    return sorted((name for name in members if kinds[name].network), key=lambda name: -kinds[name].place)


def rung_sets(members: list[str], costly: list[str]) -> list[tuple[str, ...]]:
    """Returns the sets that get a stacker, the smaller ones first and the full set last.

    They are each member alone, each prefix of `members`, each prefix without one of the first two of `costly`, and, of
    a few members, all but one.
    """
    prefixes = [tuple(members[:count]) for count in range(1, len(members) + 1)]
    found = [(name,) for name in members] + prefixes
    if len(members) <= FEW:
        found += [tuple(name for name in members if name != gone) for gone in members]
    for gone in costly[:WITHOUT]:
        found += [tuple(name for name in prefix if name != gone) for prefix in prefixes]
    place = {name: number for number, name in enumerate(members)}
    order = sorted(set(filter(None, found)), key=lambda each: (len(each), [place[name] for name in each]))
    return [each for each in order if len(each) < len(members)] + [tuple(members)]


def build_ladder(
    oof: Table,
    members: list[str],
    chosen: str,
    competition: Competition,
    threads: int,
    seed: int,
    costly: list[str] | None = None,
) -> Ladder:
    """Returns the prior and a logistic stacker for each of `rung_sets`, with the `chosen` one for the full set.

    Each is fitted and calibrated on the rows that its members cover. What it is worth is measured on the rows that all
    members cover, by answers that were fitted on other rows. `costly`: members, the most expensive first.
    """
    family = competition.family
    prior = family.prior(oof.labels)
    common = oof.covers(members)
    sizes = np.sum(list(field_characters(oof.rows, competition.kind.fields).values()), axis=0)[common]
    answers: dict[tuple[str, ...], np.ndarray] = {(): np.tile(prior, (int(common.sum()), 1))}
    everywhere = np.tile(prior, (len(oof.labels), 1))
    rungs = [
        Rung(
            *(PRIOR, (), None),
            loss=float(family.losses(oof.labels[common], answers[()]).mean()),
            decision=fit_decision(oof.labels, everywhere, competition),
        )
    ]
    for here in rung_sets(members, costly or []):
        name = chosen if len(here) == len(members) else ON_THE_WAY
        covered = oof.covers(list(here))
        print(f"stack: rung {'+'.join(here)}, {name} on {int(covered.sum())} rows", flush=True)
        rows = second_level(oof.covered_by(list(here)), list(here), competition, name == "lightgbm", seed)
        fitted = fit_stacker(name, rows, competition, threads, seed)
        inner = fitted.calibration.apply(fitted.inner, family)
        decision = fit_decision(rows.labels, inner, competition)
        answers[here] = inner[common[covered]]
        loss = float(family.losses(oof.labels[common], answers[here]).mean())
        below = next(rung for rung in answering_order(rungs) if set(rung.members) < set(here))
        priority = fit_priority(answers[here], answers[below.members], sizes, family)
        rungs.append(Rung("+".join(here), here, fitted.model, fitted.calibration, loss, 0.0, priority, decision))
    return Ladder(tuple(rungs), tuple(prior.tolist()), competition)


def with_averaging(
    rung: Rung, labels: np.ndarray, single: list[np.ndarray], average: np.ndarray, family: Family
) -> Rung:
    """Returns the rung with what the average of all fold models gains over one of them, on rows that nobody has seen.

    single: (rows, outputs) answers to single fold models; average (rows, outputs): to the average, calibrated.
    """
    alone = np.mean([family.losses(labels, each).mean() for each in single])
    return replace(rung, averaging=max(0.0, float(alone - family.losses(labels, average).mean())))


@dataclass(frozen=True)
class HoldoutAnswers:
    """What the full set of members says about the holdout."""

    single: list[np.ndarray]
    """(rows, outputs) per fold that all members train: the stacker fed with single fold models."""
    shifted: np.ndarray
    """(rows, outputs): fed with the average of all, each half under the shift that the other half gave, so that nothing
    was fitted on the row that it answers; without a shift where the holdout cannot be halved."""


def calibrate(ladder: Ladder, holdout: Holdout | None, seed: int) -> tuple[Ladder, HoldoutAnswers | None]:
    """Returns the ladder with each rung's shift to the average of all fold models, and the full set's answers.

    The kernel gets the shift that the whole holdout gives. A holdout that cannot be halved gives none, with a warning:
    what it would give could not be measured on other rows.
    """
    if holdout is None:
        return ladder, None
    competition, family, labels = ladder.competition, ladder.competition.family, holdout.average.labels
    halves = _halves(holdout.average, competition, seed)
    if halves is None:
        groups = len(np.unique(holdout.average.groups(competition)))
        print(
            f"warning: the holdout has {len(labels)} rows in {groups} groups, too few for two "
            "halves with a class in common: no shift from one fold model to their average is fitted",
            flush=True,
        )
    rungs, held = [ladder.rungs[0]], None  # the prior has no model
    for rung in ladder.rungs[1:]:
        average = _answer(rung, ladder, holdout.average)
        complete = [table for table in holdout.single.values() if table.covers(list(rung.members)).all()]
        single = [_answer(rung, ladder, table) for table in complete]
        shifts = [1.0, 1.0, 1.0]
        if single and halves is not None:
            masks = (halves == 1, halves == 0, halves >= 0)
            shifts = [fit_shift(labels[m], [each[m] for each in single], average[m], family) for m in masks]
        crossed = [Calibration(shift=shift).apply(average, family) for shift in shifts[:2]]
        held = HoldoutAnswers(single, average if halves is None else np.where(halves[:, None] == 0, *crossed))
        rung = with_averaging(rung, labels, single, held.shifted, family) if single else rung
        rungs.append(replace(rung, calibration=replace(rung.calibration, shift=shifts[2])))
    return replace(ladder, rungs=tuple(rungs)), held


def _halves(table: Table, competition: Competition, seed: int) -> np.ndarray | None:
    """Returns 0 or 1 per row (rows,), whole prompts together; None for one prompt, or where no class has two rows."""
    groups, strata = group_keys(table.rows, competition.kind), competition.family.strata(table.labels)
    halved = groups.n_unique() > 1 and np.bincount(strata).max() > 1
    return assign_folds(groups, strata, 2, 0.0, seed) if halved else None


def _answer(rung: Rung, ladder: Ladder, table: Table) -> np.ndarray:
    available = {name: table.probabilities[name] for name in rung.members}
    return replace(ladder, rungs=(rung,)).predict(available, table.rows)[0]
