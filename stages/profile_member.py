"""Prints where the time of a member's training goes, on a slice of its rows; it keeps nothing.

make profile MEMBER=siamese ROWS=1000 FOLD=0
"""

from pipeline.artifacts import Artifacts
from pipeline.config import load_params
from pipeline.errors import PodiumError
from pipeline.experiments.profile import profile_member
from pipeline.experiments.tries import build_needed
from pipeline.stage import options, stage

if __name__ == "__main__":
    arguments = options(
        str(__doc__),
        member={"required": True, "help": "a key of `members` in params.yaml"},
        fold={"type": int, "default": 0, "help": "the fold to leave out"},
        rows={"type": int, "default": 1000, "help": "so many rows to learn from"},
    )
    with stage(f"profile@{arguments.member}", keep_seconds=False):
        if arguments.rows < 1:
            raise PodiumError(f"ROWS: expected a positive number, found {arguments.rows}")
        params = load_params()
        build_needed(arguments.member, params)
        print(profile_member(arguments.member, arguments.fold, arguments.rows, params, Artifacts()))
