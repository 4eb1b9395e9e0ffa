"""Assigns every training row a fold or the holdout.

python -m stages.folds
"""

import polars as pl

from pipeline.artifacts import HOLDOUT, Artifacts
from pipeline.config import load_params
from pipeline.data.folds import assign_folds, group_key
from pipeline.files import write_parquet
from pipeline.stage import stage


def main() -> None:
    settings, artifacts = load_params().folds, Artifacts()
    # In a stream, and of each first prompt only its hash: memory does not grow with the texts.
    group = group_key(artifacts.competition().kind).hash().alias("group")
    rows = artifacts.train().select("id", "label", group).collect(engine="streaming")
    folds = assign_folds(rows["group"], rows["label"].to_numpy(), len(settings.ids), settings.holdout, settings.seed)
    write_parquet(rows.select("id").with_columns(pl.Series("fold", folds, dtype=pl.Int8)), artifacts.folds_file)
    sizes = ", ".join(f"{'holdout' if k == HOLDOUT else f'fold {k}'} {(folds == k).sum()}" for k in sorted(set(folds)))
    print(f"folds: {len(rows)} rows with {rows['group'].n_unique()} different first prompts: {sizes}")


if __name__ == "__main__":
    with stage("folds"):
        main()
