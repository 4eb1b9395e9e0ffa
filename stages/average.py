"""Averages the weights of a network member's fold models, and tells on the holdout what one pass loses against K.

make average MEMBER=judge

The fold models must be there (`dvc repro oof`). Nothing is kept here: `package: {average: true}` is what puts such an
average into the package.
"""

from pipeline.artifacts import Artifacts
from pipeline.config import load_params
from pipeline.experiments.average import compare, table
from pipeline.stage import options, stage


def main(member: str) -> None:
    params = load_params()
    found = compare(member, params, Artifacts())
    print(table(found))
    rows, groups = len(found.groups), len(set(found.groups.tolist()))
    print(f"nats per row on the holdout, {rows} rows in {groups} groups; the constant predictor: {found.constant:.4f}")


if __name__ == "__main__":
    member = options(
        str(__doc__), member={"default": "", "help": "a key of `members` in params.yaml, of a network"}
    ).member
    with stage(f"average@{member}", keep_seconds=False):
        main(member)
