"""Writes everything that decides one member's training.

python -m stages.start --member words
"""

import argparse
from pathlib import Path

from pipeline.competitions.registry import load_competition
from pipeline.config import load_params
from pipeline.files import write_json
from pipeline.stage import stage
from pipeline.training.start import resolve


def main(member: str) -> None:
    params = load_params()
    competition = load_competition(params.data.competition)
    write_json(Path("artifacts/start") / f"{member}.json", resolve(member, params, competition))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--member", required=True, help="a key of `members` in params.yaml")
    arguments = parser.parse_args()
    with stage(f"start@{arguments.member}"):
        main(arguments.member)
