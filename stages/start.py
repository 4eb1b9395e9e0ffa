"""Writes everything that decides each member's training, or each backbone's pretraining: one small file for each.

python -m stages.start --members
python -m stages.start --backbones
"""

import argparse

from pipeline.artifacts import Artifacts
from pipeline.config import Params, load_params
from pipeline.files import write_json
from pipeline.members.start import resolve, resolve_pretraining
from pipeline.stage import stage


def start_pretrain(params: Params, artifacts: Artifacts) -> None:
    for name in params.backbones:
        write_json(artifacts.pretrain_start(name), resolve_pretraining(name, params, artifacts))


def start(params: Params, artifacts: Artifacts) -> None:
    # As prepare has kept it: with the classes and the scale of the numbers that it found in train.csv.
    competition = artifacts.competition()
    for name in params.members:
        write_json(artifacts.start(name), resolve(name, params, competition, artifacts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--members", action="store_true", help="all of `members` in params.yaml")
    which.add_argument("--backbones", action="store_true", help="all of `backbones` in params.yaml")
    called = start if parser.parse_args().members else start_pretrain
    with stage(called.__name__):
        called(load_params(), Artifacts())
