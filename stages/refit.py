"""Trains one member on every labelled row, where params.yaml says `refit: true`; else it only writes that it did not.

python -m stages.refit --member words
"""

import argparse
from importlib import import_module
from pathlib import Path

from threadpoolctl import threadpool_limits

from pipeline.config import load_params
from pipeline.files import read_json
from pipeline.members.refit import refit
from pipeline.stage import stage

ARTIFACTS = Path("artifacts")


def main(member: str) -> None:
    start = read_json(ARTIFACTS / "start" / f"{member}.json")
    kind = import_module(f"pipeline.members.{start['settings']['kind']}")
    with threadpool_limits(start["threads"]):
        trained = refit(kind, start, load_params().refit, ARTIFACTS)
    print(f"{member}: " + ("trained on all rows" if trained else "no refit"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--member", required=True, help="a key of `members` in params.yaml")
    arguments = parser.parse_args()
    with stage(f"refit@{arguments.member}"):
        main(arguments.member)
