"""Trains one fold of a network member on a slice at a ladder of learning rates, and suggests one.

make rate MEMBER=siamese ROWS=1000 FOLD=0                     # from a tenth to ten times the rate in params.yaml
make rate MEMBER=siamese RATES="1e-5 3e-5 1e-4"               # at these

It keeps no model, prints one table, and draws work/rate-<member>.svg. A whole fold has more rows than the slice, so
more steps: take what is suggested for where to begin.
"""

from pathlib import Path

from pipeline.artifacts import Artifacts
from pipeline.config import load_params
from pipeline.errors import PodiumError
from pipeline.experiments.rates import climb, ladder_of, suggestion, table
from pipeline.experiments.tries import build_needed
from pipeline.files import write_text
from pipeline.report.rate_plot import rate_plot
from pipeline.stage import options, stage

FOLDER = Path("work")


def main(member: str, fold: int, rows: int, asked: str) -> None:
    params = load_params()
    rates = ladder_of(member, params, asked)
    build_needed(member, params)
    trials = []
    for trial in climb(member, fold, rows, rates, params, Artifacts()):
        trials.append(trial)
        print(f"{member} at {trial.rate:.1e}: {trial.stopped or f'{trial.loss:.4f}'}", flush=True)
    said = suggestion(trials)
    print(table(trials, said.rate))
    if sound := [each for each in trials if each.losses is not None]:
        print(f"the constant predictor: {sound[0].constant:.4f} nats on the same rows of fold {fold}")
        points = [(each.rate, each.loss, each.error, each.stopped is not None) for each in trials]
        picture = rate_plot(f"Loss of {member} by learning rate", points, sound[0].constant, said.rate)
        file = FOLDER / f"rate-{member}.svg"
        file.parent.mkdir(exist_ok=True)
        write_text(file, f"{picture}\n")
        print(f"drawn in {file}")
    print(f"suggested: {'none' if said.rate is None else f'{said.rate:.1e}'}: {said.reason}")


if __name__ == "__main__":
    arguments = options(
        str(__doc__),
        member={"default": "", "help": "a key of `members` in params.yaml, of a network"},
        fold={"type": int, "default": 0, "help": "the fold to leave out"},
        rows={"type": int, "default": 1000, "help": "so many rows to learn from, and at most so many to be scored on"},
        rates={"default": "", "help": "the rates, separated by spaces; by default five around the member's own"},
    )
    with stage(f"rate@{arguments.member}", keep_seconds=False):
        if arguments.rows < 1:
            raise PodiumError(f"ROWS: expected a positive number, found {arguments.rows}")
        main(arguments.member, arguments.fold, arguments.rows, arguments.rates)
