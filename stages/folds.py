"""Assigns every training row a fold or the holdout.

python -m stages.folds
"""

import sys

import numpy as np
import polars as pl

from pipeline.artifacts import HOLDOUT, Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import load_params
from pipeline.data.folds import GROUP_CHARACTERS, Parts, group_words, part_rows
from pipeline.data.shared_lines import SHORTEST, share_in_common
from pipeline.files import write_parquet
from pipeline.stage import stage

LARGE_GROUP = 0.2
"""Share of the rows above which a group is worth a warning."""
MANY_SHARED = 0.1
"""Share of the rows with a line of another part above which that is worth a warning."""


def largest_share(groups: np.ndarray) -> float:
    """Returns the share of the rows in the largest group; `groups` (rows,) is equal where rows must not be parted."""
    return float(np.unique(groups, return_counts=True)[1].max() / len(groups))


def warnings(found: Parts, competition: Competition) -> list[str]:
    """Returns a line for each thing about the parts that later stages can do little with."""
    groups, strata, folds = found.groups, found.strata, found.folds
    lines, share, words = [], largest_share(groups), group_words(competition)
    if share > LARGE_GROUP:
        why = f"their {words} are equal"
        if competition.kind.group is not None:
            why += (
                f" in the first {GROUP_CHARACTERS} characters (without white space), as with a letterhead or an "
                "instruction"
            )
        elif not competition.group:
            why = "each has a text in common with another of them; `group:` in the YAML file may say otherwise"
        lines.append(f"{share:.0%} of the rows are one group, which stays in one part: {why}")
    if len(held := np.flatnonzero(folds == HOLDOUT)):
        distinct = len(np.unique(groups[held]))
        if distinct < 2 or (competition.outcome == "classes" and np.bincount(strata[held]).max() < 2):
            lines.append(
                f"the holdout has {len(held)} rows with {distinct} different {words}: its scores say little, and "
                "no shift from one fold model to their average can be fitted"
            )
    if competition.outcome == "classes":
        classes = competition.outputs
        for fold in np.unique(folds[folds != HOLDOUT]):
            seen = np.bincount(strata[(folds != fold) & (folds != HOLDOUT)], minlength=len(classes))
            for place in np.flatnonzero((seen == 0) & (np.bincount(strata, minlength=len(classes)) > 0)):
                lines.append(f'the models of fold {fold} will see no row of class "{classes[place]}"')
    return lines


def main() -> None:
    settings, artifacts = load_params().folds, Artifacts()
    competition = artifacts.competition()
    found = part_rows(artifacts.train(), competition, settings)
    groups, folds = found.groups, found.folds
    write_parquet(pl.DataFrame({"id": found.ids, "fold": pl.Series(folds, dtype=pl.Int8)}), artifacts.folds_file)
    sizes = ", ".join(f"{'holdout' if k == HOLDOUT else f'fold {k}'} {(folds == k).sum()}" for k in sorted(set(folds)))
    largest = f"{largest_share(groups):.1%} of the rows in the largest group"
    grouped = f"{len(folds)} rows with {len(np.unique(groups))} different {group_words(competition)}"
    print(f"folds: {grouped}: {sizes}; {largest}")
    lines = warnings(found, competition)
    if (share := share_in_common(artifacts.train(), folds, competition.kind)) > MANY_SHARED:
        lines.append(
            f"{share:.0%} of the rows have a line of {SHORTEST} characters or more in common with a row of another "
            "part, so scores may be better than on unseen texts; if such rows belong together, name the columns that "
            "say so under `group:` in the competition's YAML file"
        )
    for line in lines:
        print(f"warning: {line}", file=sys.stderr)


if __name__ == "__main__":
    with stage("folds"):
        main()
