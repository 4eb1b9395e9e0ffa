"""Removes what stages made for members, folds and backbones that params.yaml no longer names.

python -m pipeline.prune
"""

from __future__ import annotations

import shutil

from pipeline.artifacts import Artifacts
from pipeline.config import Params, load_params
from pipeline.ledger.git import fetch_contents, git
from pipeline.stage import stage


def prune(params: Params, artifacts: Artifacts) -> None:
    """Deletes the strays in `artifacts`, then the member folders that this leaves empty."""
    for path in artifacts.strays(
        set(params.members), set(params.students), set(params.folds.ids), set(params.backbones)
    ):
        print(f"prune: {path}")
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        if path.parent.parent != artifacts.root and not any(path.parent.iterdir()):
            path.parent.rmdir()


if __name__ == "__main__":
    with stage("prune", keep_seconds=False):
        prune(load_params(), Artifacts())
        fetch_contents(git("tag").splitlines())  # `dvc gc` reads them next, and waits for ever where one is missing
