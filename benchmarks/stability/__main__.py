"""Makes the runs of a study that are missing, then prints its tables and writes its results and picture.

python -m benchmarks.stability --study guard                   # the guard and the quiet techniques
python -m benchmarks.stability --study attacks                 # attacks, penalties and DENI
python -m benchmarks.stability --study attacks --only awp      # the runs of some strategies, and no tables
python -m benchmarks.stability --study attacks --tables        # no runs: the tables of what is there

Runs are kept in work/stability/runs.jsonl, one line each as soon as it has ended.
"""

from __future__ import annotations

import argparse
import os
from datetime import date

from benchmarks.machine import machine
from benchmarks.stability.pool import WORK, complete, known
from benchmarks.stability.strategies import STRATEGIES
from benchmarks.stability.studies import STUDIES
from benchmarks.stability.summary import summary
from benchmarks.stability.tables import draw, tables
from pipeline.files import write_json

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=list(STUDIES), required=True)
    parser.add_argument("--only", nargs="+", choices=list(STRATEGIES), help="make the runs of these alone")
    parser.add_argument("--tables", action="store_true", help="make no run")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    study = STUDIES[options.study]
    os.environ["OMP_NUM_THREADS"] = "1"
    if not options.tables:
        complete([each for each in study.cells if not options.only or each.strategy in options.only], options.workers)
    if options.tables or not options.only:
        found = {asked: run for asked, run in known().items() if asked in study.cells}
        results = {"date": date.today().isoformat(), "machine": machine()} | summary(found, WORK)
        write_json(study.results, results)
        draw(results, study.picture)
        print(tables(results))
