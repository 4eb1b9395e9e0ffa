"""Assigns every training row a fold or the holdout.

python -m stages.folds
"""

from pathlib import Path

import polars as pl

from pipeline.artifacts import HOLDOUT
from pipeline.competitions.task import competition_from_json
from pipeline.config import load_params
from pipeline.data.folds import assign_folds, group_key
from pipeline.files import read_json, write_parquet
from pipeline.stage import stage

ARTIFACTS = Path("artifacts")


def main() -> None:
    params = load_params()
    competition = competition_from_json(read_json(ARTIFACTS / "competition" / "competition.json")["competition"])
    # In a stream, and of each first prompt only its hash: memory does not grow with the texts.
    train = pl.scan_parquet(ARTIFACTS / "competition" / "train.parquet", glob=False)
    rows = train.select("id", "label", group_key(competition.kind).hash().alias("group")).collect(engine="streaming")
    settings = params.folds
    folds = assign_folds(rows["group"], rows["label"].to_numpy(), len(settings.ids), settings.holdout, settings.seed)
    write_parquet(rows.select("id").with_columns(pl.Series("fold", folds, dtype=pl.Int8)), ARTIFACTS / "folds.parquet")
    sizes = ", ".join(f"{'holdout' if k == HOLDOUT else f'fold {k}'} {(folds == k).sum()}" for k in sorted(set(folds)))
    print(f"folds: {len(rows)} rows with {rows['group'].n_unique()} different first prompts: {sizes}")


if __name__ == "__main__":
    with stage("folds"):
        main()
