"""Brings one backbone here: from the hub, from a folder, or built from the training rows' text.

python -u -m stages.backbone --backbone small
"""

import argparse
from pathlib import Path

from pipeline.config import load_params
from pipeline.errors import PodiumError, nearest
from pipeline.files import atomic_folder, read_json
from pipeline.models.backbones.obtain import obtain
from pipeline.models.backbones.pretrained import FACTS
from pipeline.stage import stage

ARTIFACTS = Path("artifacts")


def main(name: str) -> None:
    backbones = load_params().backbones
    if name not in backbones:
        raise PodiumError(f'params.yaml: backbones: no backbone "{name}"{nearest(name, backbones)}')
    with atomic_folder(ARTIFACTS / "backbones" / name) as folder:
        obtain(name, backbones[name].model_dump(mode="json"), training_rows_texts, folder)
        made = read_json(folder / FACTS)
    if made["family"] == "none":
        print(f"{name}: no network")
        return
    limit = f"at most {made['positions']} tokens" if made["positions"] else "any length"
    print(
        f"{name}: {made['family']} {made['architecture']}, {made['layers']} layers of {made['hidden']}, "
        f"{made['parameters'] / 1e6:.1f} million parameters, {limit}"
    )


def training_rows_texts() -> list[str]:
    """The text that a scratch backbone may see. Imported here, since most backbones need none of it."""
    import polars as pl

    from pipeline.competitions.task import competition_from_json
    from pipeline.data.corpus import training_texts

    competition = competition_from_json(read_json(ARTIFACTS / "competition" / "competition.json")["competition"])
    rows = pl.read_parquet(ARTIFACTS / "competition" / "train.parquet")
    return training_texts(rows, pl.read_parquet(ARTIFACTS / "folds.parquet"), competition.kind)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="a key of `backbones` in params.yaml")
    arguments = parser.parse_args()
    with stage(f"backbone@{arguments.backbone}"):
        main(arguments.backbone)
