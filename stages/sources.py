"""Says what each source of rows from elsewhere brings to a member: the same fold models without it, row by row.

make sources MEMBER=siamese                # every fold that it trains
make sources MEMBER=siamese FOLD=0         # cheaper, and a wider interval

The page and the end of `make repro` show it from then on.
"""

from dataclasses import asdict
from pathlib import Path

from pipeline.artifacts import Artifacts
from pipeline.config import load_params
from pipeline.experiments.sources import folds_of, measure
from pipeline.experiments.tries import build_needed
from pipeline.files import write_json, write_text
from pipeline.report.evidence import load_evidence
from pipeline.report.page import PAGE, render
from pipeline.report.sources import SOURCES, Brought, read_measured
from pipeline.stage import options, stage


def main(member: str, fold: int | None) -> None:
    params = load_params()
    folds = folds_of(member, params, fold)
    build_needed(member, params)
    found = measure(member, folds, params, Artifacts())
    write_json(SOURCES, read_measured() | {member: asdict(found)})
    for source, gain in found.gains.items():
        print(Brought(member, source, None, asdict(gain), found.rows, found.folds, False).line())
    if PAGE.is_file():
        write_text(PAGE, render(load_evidence(Path())))
        print(f"shown on {PAGE}, too")


if __name__ == "__main__":
    arguments = options(
        str(__doc__),
        member={"default": "", "help": "a key of `members` or `students` in params.yaml"},
        fold={"type": int, "help": "one fold alone; by default all that it trains"},
    )
    with stage(f"sources@{arguments.member}", keep_seconds=False):
        main(arguments.member, arguments.fold)
