"""How steady is fine-tuning, and do guard, techniques, attacks and DENI make it steadier or better?

python -m benchmarks.stability --study guard                # guard and quiet techniques; 90 minutes on two cores
python -m benchmarks.stability --study attacks              # attacks, penalties and DENI; 150 minutes
python -m benchmarks.stability --study gentle               # dsgd beside the guard, at the failing rate
python -m benchmarks.stability --study attacks --only awp   # the runs of some strategies, and no results
python -m benchmarks.stability --study attacks --tables     # no runs: the tables and the picture of the result file

Writes benchmarks/results/stability.json (guard) or <study>.json, tables beside it as .md, a picture into docs/. Runs
are kept in work/stability/runs.jsonl, one line each as soon as it has ended, and a study goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import os

from benchmarks.result import RESULTS, ROOT, command_line, write
from benchmarks.stability.pool import WORK, complete, known
from benchmarks.stability.strategies import STRATEGIES
from benchmarks.stability.studies import STUDIES
from benchmarks.stability.summary import summary
from benchmarks.stability.tables import draw, page
from pipeline.files import read_json, write_text
from pipeline.stage import stage


def main(options: argparse.Namespace) -> None:
    study = STUDIES[options.study]
    if options.tables:
        results = read_json(options.output / f"{study.name}.json")
    else:
        os.environ["OMP_NUM_THREADS"] = "1"
        complete([each for each in study.cells if not options.only or each.strategy in options.only], options.workers)
        if options.only:
            return
        found = {asked: run for asked, run in known().items() if asked in study.cells}
        results = write(study.name, summary(found, WORK), options.output)
    text = page(options.study, results)
    write_text(options.output / f"{study.name}.md", text)
    draw(results, (ROOT / "docs" if options.output == RESULTS else options.output) / f"{study.name}.svg")
    print(text, end="")


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--study", choices=list(STUDIES), required=True)
    parser.add_argument("--only", nargs="+", choices=list(STRATEGIES), help="make the runs of these alone")
    parser.add_argument("--tables", action="store_true", help="make no run, show the result file")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    with stage("stability benchmark", keep_seconds=False):
        main(parser.parse_args())
