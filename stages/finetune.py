"""Trains one fold model of one member, and predicts its fold and the holdout.

python -m stages.finetune --member words --fold 0               # what `dvc repro` runs
python -m stages.finetune --member words --fold 0 --rows 500    # a quick look: prints the score, writes nothing
"""

import argparse

from pipeline.artifacts import Artifacts
from pipeline.data.split import split_rows
from pipeline.members.context import read_start
from pipeline.members.fold import quick_look, train_fold
from pipeline.stage import stage


def main(member: str, fold: int, rows: int | None) -> None:
    artifacts = Artifacts()
    start = read_start(artifacts.start(member))
    split = split_rows(artifacts.train().collect(), artifacts.folds(), fold)
    if rows:
        score = quick_look(split, start, fold, rows, artifacts).score
        print(f"{member} fold {fold}: {score:.5f} from {min(rows, len(split.train))} rows (a quick look, not kept)")
        return
    trained = train_fold(split, start, fold, artifacts)
    print(f"{member} fold {fold}: " + ("not trained (members.*.folds)" if trained is None else f"{trained:.5f}"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--member", required=True, help="a key of `members` in params.yaml")
    parser.add_argument("--fold", required=True, type=int, help="the fold to leave out")
    parser.add_argument("--rows", type=int, help="train on that many rows, print the score, write nothing")
    arguments = parser.parse_args()
    name = f"finetune@{arguments.member}-{arguments.fold}"
    with stage(name, keep_seconds=arguments.rows is None):
        main(arguments.member, arguments.fold, arguments.rows)
