"""Folds and holdout: rows of one group stay together, and every fold has the same share of each class, or is a time.

python -m stages.folds
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from scipy import sparse

from pipeline.artifacts import HOLDOUT
from pipeline.competitions.task import Competition, Task
from pipeline.data.rows import by_appearance, condensed
from pipeline.errors import PodiumError

if TYPE_CHECKING:
    from pipeline.config import Folds

FEWEST_PARTS = 3
"""Outer folds below this leave the stack no inner folds to tune on; it parts the rows anew, into one part more."""
GROUP_CHARACTERS = 400
SIZE_WEIGHT = 0.1
"""How much less equal sizes weigh than equal shares of a class; without large groups the second bring the first."""


def group_key(task: Task) -> pl.Expr:
    """Returns what is equal for rows that must not be parted: the column `group`, where train.parquet has one.

    Else a String: the group field's first turn in lower case, 400 characters without white space. Two rows with equal
    keys are the same question to a model, whatever their spacing.
    """
    if task.group is None:
        return pl.col("group")
    return condensed(pl.col(task.group).list.first().fill_null("")).str.head(GROUP_CHARACTERS)


def group_keys(rows: pl.DataFrame, task: Task) -> pl.Series:
    """Returns the `group_key` of every row."""
    return rows.select(group_key(task)).to_series()


def group_words(competition: Competition) -> str:
    """Returns what the values of `group_key` are, for a sentence: "12 different ..."."""
    if competition.group:
        return f"values of {' and '.join(competition.group)}"
    field = competition.kind.group
    if field is None:
        return "sets of rows that share a text"
    return "first prompts" if field == "prompt" else f"values of {field}"


def assign_folds(
    groups: pl.Series, labels: np.ndarray, folds: int, holdout: float, seed: int, words: str = "groups"
) -> np.ndarray:
    """Returns the fold (0 to folds - 1, or -1 for the holdout) of every row, Int8 (rows,).

    Rows whose `groups` (keys or their hashes) are equal stay together. Of each class of `labels` (rows,), or stratum
    (Family.strata), the holdout gets the share `holdout` and every fold an equal share of what is left, as nearly as
    whole groups allow. The time is that of sorting the rows by group. `words` is what messages call the groups.

    Raises: PodiumError where there are fewer groups than parts.
    """
    codes = _codes(groups)
    _check_parts(len(np.unique(codes)), folds, holdout, words)
    draw = np.random.default_rng(seed)
    rest = np.arange(len(labels))
    if holdout > 0:
        # First and alone, so that its share is met even where one group is larger than a fold should be.
        rest = np.flatnonzero(_deal(codes, labels, [1 - holdout, holdout], [folds, 1], draw) == 0)
    assigned = np.full(len(labels), HOLDOUT, dtype=np.int8)
    assigned[rest] = _deal(codes[rest], labels[rest], [1 / folds] * folds, [1] * folds, draw)
    return assigned


def assign_times(groups: pl.Series, times: np.ndarray, folds: int, holdout: float, words: str = "groups") -> np.ndarray:
    """Returns the fold of every row as `assign_folds` does: the holdout is the latest stretch of time, and every fold
    one of about as many rows of what is left, the earliest first.

    times: (rows,) float64. Rows of one group, or of one time, stay together; a group is where its latest row is.

    Raises: PodiumError where there are fewer such pieces than parts.
    """
    codes = _codes(groups)
    latest = np.full(codes.max() + 1, -np.inf)
    np.maximum.at(latest, codes, times)
    moments, piece = np.unique(latest[codes], return_inverse=True)
    _check_parts(len(moments), folds, holdout, f"times of {words}")
    ends = np.cumsum(np.bincount(piece))
    parts = folds + (holdout > 0)
    wanted = np.arange(1, folds + 1) * (1 - holdout) / folds * len(times)
    cuts = [0]  # the first piece of each part; each part gets one piece at least
    for place, rows in enumerate(wanted[: parts - 1], start=1):
        first, last = cuts[-1] + 1, len(moments) - (parts - place)
        cuts.append(first + int(np.abs(ends[first - 1 : last] - rows).argmin()))
    part = np.searchsorted(cuts, piece, side="right") - 1
    return np.where(part == folds, HOLDOUT, part).astype(np.int8)


def _check_parts(distinct: int, folds: int, holdout: float, words: str) -> None:
    if distinct < (parts := folds + (holdout > 0)):
        raise PodiumError(
            f"params.yaml: folds: {folds} folds{' and a holdout' if holdout > 0 else ''} need at least {parts} "
            f"different {words}, the training rows have {distinct}"
        )


def _codes(groups: pl.Series) -> np.ndarray:
    """Returns group numbers (rows,) in the order in which the groups first appear."""
    # Hashes sort faster than texts. Their values, which another polars may change, decide nothing.
    return by_appearance(groups.hash().to_numpy())


def _deal(
    codes: np.ndarray, labels: np.ndarray, shares: list[float], fewest: list[int], draw: np.random.Generator
) -> np.ndarray:
    """Returns each row's index into `shares`, (rows,): every part gets its share of the rows of each class, in whole
    groups.

    codes (rows,): group numbers; fewest: the number of groups that a part gets at least.

    Groups with the same number of rows of each class are of one kind, and interchangeable. Kind by kind, those that
    weigh most first, they are shuffled and dealt at once, so that the parts come as near to their shares as they can.
    """
    _, groups = np.unique(codes, return_inverse=True)
    # One class more, of all rows: it decides how large a part gets where the classes leave that open.
    labels = np.concatenate([labels, np.full(len(labels), labels.max() + 1)])
    counts = sparse.coo_array((np.ones(len(labels), dtype=np.int64), (np.tile(groups, 2), labels))).tocsr()
    totals = np.maximum(np.bincount(labels), 1)
    row_weights = 1 / totals
    row_weights[-1] *= SIZE_WEIGHT
    weights = counts.power(2) @ row_weights
    # A sum with a random factor per class tells the kinds apart.
    _, example, kinds = np.unique(counts @ draw.random(len(totals)), return_index=True, return_inverse=True)
    shuffled = draw.permutation(len(kinds))
    members = np.split(shuffled[np.argsort(kinds[shuffled], kind="stable")], np.cumsum(np.bincount(kinds))[:-1])
    # A part is as far from its share as the sum over classes of row weight * missing^2 says, and `wish` is the number
    # of copies of a kind that would bring it nearest: (missing . rows) / (rows . rows), both weighted. All parts
    # together take every copy, so they get the whole numbers nearest to their wishes. Heavy kinds come first, while
    # every part has room for them, and light ones even out what is left. Equal weights go by the kinds' first groups,
    # so that equal tables are dealt alike everywhere.
    missing = np.outer(shares, totals)
    part_of = np.empty(len(kinds), dtype=np.int64)
    for kind in np.lexsort((example, -weights[example])):
        entries = slice(*counts.indptr[example[kind] : example[kind] + 2])
        classes, rows = counts.indices[entries], counts.data[entries]
        wish = (missing[:, classes] * (rows * row_weights[classes])).sum(axis=1) / weights[example[kind]]
        copies = _nearest(wish, len(members[kind]), np.array(shares))
        missing[:, classes] -= np.outer(copies, rows)
        part_of[members[kind]] = np.repeat(np.arange(len(shares)), copies)
    return _filled(part_of, np.bincount(groups), np.array(fewest))[groups]


def _nearest(wish: np.ndarray, total: int, shares: np.ndarray) -> np.ndarray:
    """Returns counts (parts,) with sum `total` for which the sum of (count - wish)^2 / share is least."""
    taking = np.ones(len(wish), dtype=bool)
    while True:
        step = (total - wish[taking].sum()) / shares[taking].sum()
        near = np.where(taking, wish + step * shares, 0.0).round(6)
        if (near >= 0).all():
            break
        taking &= near >= 0
    copies = np.floor(near).astype(np.int64)
    for _ in range(total - copies.sum()):
        # Rounded, so that what is equal but for the last bits is a tie on every machine.
        copies[np.argmin(((2 * (copies - wish) + 1) / shares).round(6))] += 1
    return copies


def _filled(part_of: np.ndarray, sizes: np.ndarray, fewest: np.ndarray) -> np.ndarray:
    """Returns `part_of` (groups,) with small groups moved to parts that have fewer than `fewest` (parts,) groups."""
    while ((has := np.bincount(part_of, minlength=len(fewest))) < fewest).any():
        spare = np.flatnonzero((has > fewest)[part_of])
        part_of[spare[np.argmin(sizes[spare])]] = np.argmax(has < fewest)
    return part_of


@dataclass(frozen=True)
class Parts:
    """Where every training row goes, and what decided it."""

    ids: pl.Series
    groups: np.ndarray
    """(rows,) equal where rows must not be parted."""
    strata: np.ndarray
    """(rows,) Family.strata; the class indices of classes."""
    folds: np.ndarray
    """(rows,) HOLDOUT or a fold."""


def part_rows(train: pl.LazyFrame, competition: Competition, settings: Folds) -> Parts:
    """Returns the parts of the training rows (Artifacts.train).

    Raises: PodiumError where folds, holdout or stack cannot do with so few groups or rows.
    """
    words, parts = group_words(competition), len(settings.ids)
    # In a stream, and of each group only its hash: memory does not grow with the texts.
    group = group_key(competition.kind).hash().alias("group")
    columns = ["id", "label", group, *(["time"] if competition.time else [])]
    rows = train.select(columns).collect(engine="streaming")
    strata = competition.family.strata(rows["label"].to_numpy())
    if competition.time:
        folds = assign_times(rows["group"], rows["time"].to_numpy(), parts, settings.holdout, words)
    else:
        folds = assign_folds(rows["group"], strata, parts, settings.holdout, settings.seed, words)
    found = Parts(rows["id"], rows["group"].to_numpy(), strata, folds)
    check_stack_parts(found, competition, settings.ids)
    return found


def check_stack_parts(found: Parts, competition: Competition, common: Collection[int]) -> None:
    """Raises PodiumError where a fold model, or the stack, which parts the rows of few folds anew, cannot do with them.

    common: the folds that every member trains, whose rows the stack learns from.
    """
    rest, parts, words = np.isin(found.folds, list(common)), FEWEST_PARTS + 1, group_words(competition)
    count, distinct = len(np.unique(found.folds[rest])), len(np.unique(found.groups[rest]))
    largest = np.bincount(found.strata[rest]).max()
    scarce = competition.outcome == "classes"
    if scarce and largest < count:
        raise PodiumError(
            f"params.yaml: folds: {count} folds need that many rows of the largest class and that many different "
            f"{words} beside the holdout, found {largest}"
        )
    if count < FEWEST_PARTS and (distinct < parts or (scarce and largest < parts)):
        raise PodiumError(
            f"params.yaml: folds.ids: with {count} folds the stack needs {parts} different {words} and {parts} "
            f"rows of one class outside the holdout, found {distinct} and {largest}; "
            f"give {FEWEST_PARTS} folds or more"
        )
