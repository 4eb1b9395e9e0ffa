"""Trains a backbone further on the training rows' text, or passes it through.

python -u -m stages.pretrain --backbone small
"""

import argparse
import hashlib
from pathlib import Path

import polars as pl
from threadpoolctl import threadpool_limits

from pipeline.artifacts import HOLDOUT
from pipeline.competitions.task import competition_from_json
from pipeline.files import atomic_folder, read_json, remove_partials, sha256_file, write_json
from pipeline.members.context import TOKENS
from pipeline.models.backbones.pretrained import FACTS, POINTER
from pipeline.stage import stage
from pipeline.training.checkpoint import checkpoint

ARTIFACTS = Path("artifacts")
READ = ("competition/train.parquet", "folds.parquet")


def main(name: str) -> None:
    start = read_json(ARTIFACTS / "start_pretrain" / f"{name}.json")
    backbone, metrics = ARTIFACTS / "backbones" / name, Path("metrics/pretrain") / f"{name}.json"
    if not start["settings"] or not start["settings"]["epochs"]:
        with atomic_folder(ARTIFACTS / "pretrained" / name) as folder:
            write_json(folder / POINTER, read_json(backbone / FACTS))
        write_json(metrics, {"epochs": 0})
        return
    from pipeline.training.pretrain import pretrain  # torch is slow to load

    competition = competition_from_json(read_json(ARTIFACTS / "competition" / "competition.json")["competition"])
    rows = pl.read_parquet(ARTIFACTS / "competition" / "train.parquet")
    rows = rows.filter(pl.read_parquet(ARTIFACTS / "folds.parquet")["fold"] != HOLDOUT)
    files = [ARTIFACTS / "start_pretrain" / f"{name}.json", *(ARTIFACTS / file for file in READ)]
    key = hashlib.sha256("".join(map(sha256_file, files)).encode()).hexdigest()
    with threadpool_limits(start["threads"]), checkpoint(f"pretrain@{name}", key) as state:
        remove_partials(ARTIFACTS / "pretrained" / name)
        with atomic_folder(ARTIFACTS / "pretrained" / name) as folder:
            told = pretrain(backbone, rows, start, competition, folder, state, ARTIFACTS / TOKENS)
        write_json(metrics, {"epochs": start["settings"]["epochs"]} | told)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="a key of `backbones` in params.yaml")
    arguments = parser.parse_args()
    with stage(f"pretrain@{arguments.backbone}"):
        main(arguments.backbone)
