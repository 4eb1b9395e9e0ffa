"""Removes what stages made for members, folds and backbones that params.yaml no longer names.

python -m pipeline.prune
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from pipeline.config import Params, load_params
from pipeline.stage import stage


def strays(params: Params, artifacts: Path) -> list[Path]:
    """Files and folders under `artifacts` of members, folds or backbones that are not in params.yaml."""
    members, folds, backbones = set(params.members), set(params.folds.ids), set(params.backbones)
    wanted = {artifacts / "start" / f"{m}.json" for m in members}
    wanted |= {artifacts / "receipts" / f"{m}-fold{k}.json" for m in members for k in folds}
    wanted |= {artifacts / "members" / m / f"fold{k}" for m in members for k in folds}
    wanted |= {
        artifacts / "oof" / m / f"{part}{k}.parquet" for m in members for k in folds for part in ("fold", "holdout")
    }
    wanted |= {artifacts / "refit" / m for m in members}
    wanted |= {artifacts / folder / b for b in backbones for folder in ("backbones", "pretrained")}
    wanted |= {artifacts / "start_pretrain" / f"{b}.json" for b in backbones}
    found: list[Path] = []
    for pattern in (
        *("start/*.json", "receipts/*.json", "members/*/fold*", "oof/*/*.parquet"),
        *("refit/*", "backbones/*", "pretrained/*", "start_pretrain/*.json"),
        *("members/.quick-*", "members/*/.fold*.partial"),  # left by a process that was killed
        "tokens/*",  # made again where they are wanted
    ):
        found += sorted(set(artifacts.glob(pattern)) - wanted)
    return found


def remove(paths: Iterable[Path]) -> None:
    """Deletes files and folders, then the member folders that this leaves empty."""
    for path in paths:
        print(f"prune: {path}")
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        if path.parent.parent.name in ("members", "oof") and not any(path.parent.iterdir()):
            path.parent.rmdir()


if __name__ == "__main__":
    with stage("prune", keep_seconds=False):
        remove(strays(load_params(), Path("artifacts")))
