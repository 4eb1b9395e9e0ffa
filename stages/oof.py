"""Collects the members' out-of-fold and holdout predictions, after checking where they come from.

python -m stages.oof
"""

from pipeline.artifacts import Artifacts
from pipeline.config import load_params
from pipeline.ensemble.oof import collect
from pipeline.files import write_parquet
from pipeline.stage import stage


def main() -> None:
    params, artifacts = load_params(), Artifacts()
    collected = collect(artifacts, list(params.members), list(params.folds.ids), artifacts.competition())
    write_parquet(collected.oof, artifacts.oof_file)
    write_parquet(collected.holdout, artifacts.holdout_file)
    print(f"oof: {len(collected.oof)} rows and {len(params.members)} members")


if __name__ == "__main__":
    with stage("oof"):
        main()
