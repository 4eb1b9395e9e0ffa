"""Removes what stages made for members and folds that params.yaml no longer names.

python -m pipeline.prune
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from pipeline.config import Params, load_params
from pipeline.stage import stage


def strays(params: Params, artifacts: Path) -> list[Path]:
    """Files and folders under `artifacts` of members or folds that are not in params.yaml."""
    members, folds = set(params.members), set(params.folds.ids)
    wanted = {artifacts / "start" / f"{m}.json" for m in members}
    wanted |= {artifacts / "receipts" / f"{m}-fold{k}.json" for m in members for k in folds}
    wanted |= {artifacts / "members" / m / f"fold{k}" for m in members for k in folds}
    wanted |= {
        artifacts / "oof" / m / f"{part}{k}.parquet" for m in members for k in folds for part in ("fold", "holdout")
    }
    wanted |= {artifacts / "refit" / m for m in members}
    found: list[Path] = []
    for pattern in ("refit/*", "start/*.json", "receipts/*.json", "members/*/fold*", "oof/*/*.parquet"):
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
