"""Trains a backbone further on the training rows' text, or passes it through.

python -u -m stages.pretrain --backbone small
"""

import hashlib
from pathlib import Path

from pipeline.artifacts import FACTS, POINTER, Artifacts
from pipeline.files import atomic_folder, read_json, remove_partials, sha256_file, write_json
from pipeline.stage import options, stage
from pipeline.training.checkpoint import checkpoint


def main(name: str) -> None:
    artifacts = Artifacts()
    file, target = artifacts.pretrain_start(name), artifacts.pretrained(name)
    backbone, metrics = artifacts.backbone(name), Path("metrics/pretrain") / f"{name}.json"
    settings = read_json(file)["settings"]
    if not settings or not settings["epochs"]:
        with atomic_folder(target) as folder:
            write_json(folder / POINTER, read_json(backbone / FACTS))
        write_json(metrics, {"epochs": 0})
        return
    from pipeline.training.devices.launch import on_devices
    from pipeline.training.pretrain import pretrain, read_pretrain_start  # torch is slow to load

    start = read_pretrain_start(file)
    assert start.settings is not None
    sources = (file, artifacts.train_file, artifacts.folds_file)
    key = hashlib.sha256("".join(map(sha256_file, sources)).encode()).hexdigest()
    with checkpoint(f"pretrain@{name}", key) as state:
        remove_partials(target)
        with atomic_folder(target) as folder:
            rows, competition = artifacts.seen_rows(), artifacts.competition()
            asked = (backbone, rows, start, competition, folder, state, artifacts.tokens)
            told = on_devices(start.settings.devices, start.label, pretrain, *asked)
        write_json(metrics, {"epochs": settings["epochs"]} | told)


if __name__ == "__main__":
    name = options(__doc__, backbone={"required": True, "help": "a key of `backbones` in params.yaml"}).backbone
    with stage(f"pretrain@{name}"):
        main(name)
