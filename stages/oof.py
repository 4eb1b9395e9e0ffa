"""Collects the members' out-of-fold and holdout predictions, after checking where they come from.

python -m stages.oof
"""

from pathlib import Path

from pipeline.competitions.task import competition_from_json
from pipeline.config import load_params
from pipeline.ensemble.oof import collect
from pipeline.files import read_json, write_parquet
from pipeline.stage import stage

ARTIFACTS = Path("artifacts")


def main() -> None:
    params = load_params()
    competition = competition_from_json(read_json(ARTIFACTS / "competition" / "competition.json")["competition"])
    collected = collect(ARTIFACTS, list(params.members), list(params.folds.ids), competition)
    write_parquet(collected.oof, ARTIFACTS / "oof" / "oof.parquet")
    write_parquet(collected.holdout, ARTIFACTS / "oof" / "holdout.parquet")
    print(f"oof: {len(collected.oof)} rows and {len(params.members)} members")


if __name__ == "__main__":
    with stage("oof"):
        main()
