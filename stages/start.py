"""Writes everything that decides one member's training, or one backbone's pretraining.

python -m stages.start --member words
python -m stages.start --backbone small
"""

import argparse

from pipeline.artifacts import Artifacts
from pipeline.config import load_params
from pipeline.files import write_json
from pipeline.members.start import resolve, resolve_pretraining
from pipeline.stage import stage


def main(member: str | None, backbone: str | None) -> None:
    params, artifacts = load_params(), Artifacts()
    if backbone:
        write_json(artifacts.pretrain_start(backbone), resolve_pretraining(backbone, params, artifacts))
    if member:
        # As prepare has kept it: with the classes and the scale of the numbers that it found in train.csv.
        write_json(artifacts.start(member), resolve(member, params, artifacts.competition(), artifacts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--member", help="a key of `members` in params.yaml")
    which.add_argument("--backbone", help="a key of `backbones` in params.yaml")
    arguments = parser.parse_args()
    with stage(f"start@{arguments.member or arguments.backbone}"):
        main(arguments.member, arguments.backbone)
