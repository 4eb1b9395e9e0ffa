"""Runs what is missing, then prints the tables and writes benchmarks/results/stability.json and the plot.

python -m benchmarks.stability                  # everything
python -m benchmarks.stability --only plain     # the runs of some strategies, and no tables
python -m benchmarks.stability --tables         # no runs: the tables of what is there

Runs are kept in work/stability/runs.jsonl, one line each as soon as it has ended.
"""

from __future__ import annotations

import argparse
import os
from datetime import date
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.stability.pool import WORK, complete, known, wanted
from benchmarks.stability.statistics import summary
from benchmarks.stability.strategies import STRATEGIES
from benchmarks.stability.tables import draw, tables
from pipeline.files import write_json

RESULTS, PICTURE = Path("benchmarks/results/stability.json"), Path("docs/stability.svg")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(STRATEGIES), help="make the runs of these alone")
    parser.add_argument("--tables", action="store_true", help="make no run")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if not options.tables:
        complete([each for each in wanted() if not options.only or each.strategy in options.only], options.workers)
    if options.tables or not options.only:
        results = {"date": date.today().isoformat(), "machine": machine()} | summary(known(), WORK)
        write_json(RESULTS, results)
        draw(results, PICTURE)
        print(tables(results))
