"""Assigns every training row a fold or the holdout.

python -m stages.folds
"""

import sys

import numpy as np
import polars as pl

from pipeline.artifacts import HOLDOUT, Artifacts
from pipeline.config import load_params
from pipeline.data.folds import GROUP_CHARACTERS, assign_folds, group_key
from pipeline.ensemble.table import FEWEST_PARTS
from pipeline.errors import PodiumError
from pipeline.files import write_parquet
from pipeline.stage import stage

LARGE_GROUP = 0.2
"""Share of the rows above which a group is worth a warning."""


def largest_share(groups: np.ndarray) -> float:
    """Returns the share of the rows in the largest group; `groups` (rows,) is equal where rows share a first prompt."""
    return float(np.unique(groups, return_counts=True)[1].max() / len(groups))


def check_stack_parts(groups: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> None:
    """Raises PodiumError where the stack, which parts the rows of few folds anew, will not be able to.

    groups: equal where rows share a first prompt; labels: class indices; folds: HOLDOUT or a fold; each (rows,).
    """
    rest, parts = folds != HOLDOUT, FEWEST_PARTS + 1
    count, prompts = len(np.unique(folds[rest])), len(np.unique(groups[rest]))
    if count < FEWEST_PARTS and (prompts < parts or np.bincount(labels[rest]).max() < parts):
        raise PodiumError(
            f"params.yaml: folds.ids: with {count} folds the stack needs {parts} different first prompts and {parts} "
            f"rows of one class outside the holdout, found {prompts} and {np.bincount(labels[rest]).max()}; "
            f"give {FEWEST_PARTS} folds or more"
        )


def warnings(groups: np.ndarray, labels: np.ndarray, folds: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """Returns a line for each thing about the parts that later stages can do little with; arrays as above."""
    lines, share = [], largest_share(groups)
    if share > LARGE_GROUP:
        lines.append(
            f"{share:.0%} of the rows are one group, which stays in one part: their first prompts "
            f"are equal in the first {GROUP_CHARACTERS} characters (without white space), as with a letterhead or "
            "an instruction"
        )
    if len(held := np.flatnonzero(folds == HOLDOUT)):
        prompts = len(np.unique(groups[held]))
        if prompts < 2 or np.bincount(labels[held]).max() < 2:
            lines.append(
                f"the holdout has {len(held)} rows with {prompts} different first prompts: its scores say little, and "
                "no shift from one fold model to their average can be fitted"
            )
    for fold in np.unique(folds[folds != HOLDOUT]):
        seen = np.bincount(labels[(folds != fold) & (folds != HOLDOUT)], minlength=len(classes))
        for place in np.flatnonzero((seen == 0) & (np.bincount(labels, minlength=len(classes)) > 0)):
            lines.append(f'the models of fold {fold} will see no row of class "{classes[place]}"')
    return lines


def main() -> None:
    settings, artifacts = load_params().folds, Artifacts()
    competition = artifacts.competition()
    # In a stream, and of each first prompt only its hash: memory does not grow with the texts.
    group = group_key(competition.kind).hash().alias("group")
    rows = artifacts.train().select("id", "label", group).collect(engine="streaming")
    groups, labels = rows["group"].to_numpy(), rows["label"].to_numpy()
    folds = assign_folds(rows["group"], labels, len(settings.ids), settings.holdout, settings.seed)
    check_stack_parts(groups, labels, folds)
    write_parquet(rows.select("id").with_columns(pl.Series("fold", folds, dtype=pl.Int8)), artifacts.folds_file)
    sizes = ", ".join(f"{'holdout' if k == HOLDOUT else f'fold {k}'} {(folds == k).sum()}" for k in sorted(set(folds)))
    largest = f"{largest_share(groups):.1%} of the rows in the largest group"
    print(f"folds: {len(rows)} rows with {len(np.unique(groups))} different first prompts: {sizes}; {largest}")
    for line in warnings(groups, labels, folds, competition.outputs):
        print(f"warning: {line}", file=sys.stderr)


if __name__ == "__main__":
    with stage("folds"):
        main()
