"""Assigns every training row a fold or the holdout.

python -m stages.folds
"""

from pathlib import Path

import polars as pl

from pipeline.competitions.task import competition_from_json
from pipeline.config import load_params
from pipeline.data.folds import HOLDOUT, assign_folds, group_keys
from pipeline.files import read_json, write_parquet
from pipeline.stage import stage

ARTIFACTS = Path("artifacts")


def main() -> None:
    params = load_params()
    competition = competition_from_json(read_json(ARTIFACTS / "competition" / "competition.json")["competition"])
    rows = pl.read_parquet(ARTIFACTS / "competition" / "train.parquet", columns=["id", "label", competition.kind.group])
    groups = group_keys(rows, competition.kind)
    settings = params.folds
    folds = assign_folds(groups, rows["label"].to_numpy(), len(settings.ids), settings.holdout, settings.seed)
    write_parquet(rows.select("id").with_columns(pl.Series("fold", folds, dtype=pl.Int8)), ARTIFACTS / "folds.parquet")
    sizes = ", ".join(f"{'holdout' if k == HOLDOUT else f'fold {k}'} {(folds == k).sum()}" for k in sorted(set(folds)))
    print(f"folds: {len(rows)} rows with {groups.n_unique()} different first prompts: {sizes}")


if __name__ == "__main__":
    with stage("folds"):
        main()
