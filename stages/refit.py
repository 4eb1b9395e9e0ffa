"""Trains one member on every labelled row, where params.yaml says `refit: true`; else it only writes that it did not.

python -m stages.refit --member words
"""

from pipeline.artifacts import Artifacts
from pipeline.config import load_params
from pipeline.members.context import read_start
from pipeline.members.refit import refit
from pipeline.stage import options, stage


def main(member: str) -> None:
    artifacts = Artifacts()
    start = read_start(artifacts.start(member))
    trained = refit(start, load_params().refit, artifacts)
    print(f"{member}: {'trained on all rows' if trained else 'no refit'}")


if __name__ == "__main__":
    member = options(__doc__, member={"required": True, "help": "a key of `members` in params.yaml"}).member
    with stage(f"refit@{member}"):
        main(member)
