"""Trains one fold model of one member, and predicts its fold and the holdout.

python -m stages.finetune --member words --fold 0               # what `dvc repro` runs
python -m stages.finetune --member words --fold 0 --rows 500    # a quick look: prints the score, writes nothing
"""

import argparse
from importlib import import_module
from pathlib import Path

import polars as pl
from threadpoolctl import threadpool_limits

from pipeline.data.folds import split_rows
from pipeline.files import read_json
from pipeline.members.fold import quick_look, train_fold
from pipeline.stage import stage

ARTIFACTS = Path("artifacts")


def main(member: str, fold: int, rows: int | None) -> None:
    start = read_json(ARTIFACTS / "start" / f"{member}.json")
    kind = import_module(f"pipeline.members.{start['settings']['kind']}")
    train = pl.read_parquet(ARTIFACTS / "competition" / "train.parquet")
    split = split_rows(train, pl.read_parquet(ARTIFACTS / "folds.parquet"), fold)
    with threadpool_limits(start["threads"]):
        if rows:
            score = quick_look(kind, split, start, rows, ARTIFACTS)
            print(f"{member} fold {fold}: {score:.5f} from {min(rows, len(split.train))} rows (a quick look, not kept)")
            return
        score = train_fold(kind, split, start, fold, ARTIFACTS)
    print(f"{member} fold {fold}: " + ("not trained (members.*.folds)" if score is None else f"{score:.5f}"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--member", required=True, help="a key of `members` in params.yaml")
    parser.add_argument("--fold", required=True, type=int, help="the fold to leave out")
    parser.add_argument("--rows", type=int, help="train on that many rows, print the score, write nothing")
    arguments = parser.parse_args()
    name = f"finetune@{arguments.member}-{arguments.fold}"
    with stage(name, keep_seconds=arguments.rows is None):
        main(arguments.member, arguments.fold, arguments.rows)
