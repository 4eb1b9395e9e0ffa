"""Trains one fold of a member on a slice, tells what came out and what the whole would take, and keeps a line of it.

make try MEMBER=siamese ROWS=1000 FOLD=0       # by params.yaml as it is now, committed or not
make tries                                     # python -m stages.try_member --show: the lines so far
"""

from pathlib import Path

from pipeline.artifacts import Artifacts
from pipeline.config import load_params
from pipeline.errors import PodiumError
from pipeline.experiments.tries import build_needed, changed_settings, keep, kept, try_member
from pipeline.ledger.git import git
from pipeline.stage import options, stage
from pipeline.validation import parse_yaml, read_yaml

SHOWN = ("time", "member", "rows", "score", "constant", "seconds_per_1000_rows", "full_minutes", "changed")


def main(member: str, fold: int, rows: int) -> None:
    params = load_params()
    build_needed(member, params)
    committed = parse_yaml(git("show", "HEAD:./params.yaml").encode(), "params.yaml as committed")
    changed = changed_settings(read_yaml(Path("params.yaml")), committed)
    one = try_member(member, fold, rows, params, changed, Artifacts())
    keep(one)
    print(f"{member} fold {fold}, {one.rows} rows: {one.score:.5f}, the constant predictor {one.constant:.5f}")
    print(f"training losses: {one.curve}" if one.curve else "training losses: this kind keeps none")
    print(f"{one.seconds_per_1000_rows} s per 1,000 rows; all folds on all rows: about {one.full_minutes} min")
    print(f"changed since the commit: {one.changed or 'nothing'}; `make tries` shows all")


def show() -> None:
    if not (rows := kept()):
        print("nothing was tried here yet: make try MEMBER=name")
    for row in rows:
        print("  ".join(f"{name} {row[name]}" for name in SHOWN if row[name]))


if __name__ == "__main__":
    arguments = options(
        str(__doc__),
        member={"default": "", "help": "a key of `members` in params.yaml"},
        fold={"type": int, "default": 0, "help": "the fold to leave out"},
        rows={"type": int, "default": 1000, "help": "so many rows to learn from, and at most so many to be scored on"},
        show={"action": "store_true", "help": "only show what was tried"},
    )
    with stage(f"try@{arguments.member}", keep_seconds=False):
        if arguments.show:
            show()
        elif arguments.rows < 1:
            raise PodiumError(f"ROWS: expected a positive number, found {arguments.rows}")
        else:
            main(arguments.member, arguments.fold, arguments.rows)
