"""What each member adds to the stack: the level-2 nested score without it against the one with all, paired by row.

python -m benchmarks.gains [--root .]          # after a finished run in that folder

A gain is positive where the member helps; the interval is the middle 95 % of 2,000 bootstrap draws of the rows. The
stacker is the chosen one, fitted anew for every set of members.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import yaml

from pipeline.competitions.metrics import METRICS
from pipeline.competitions.task import competition_from_json
from pipeline.ensemble.stack import compare
from pipeline.ensemble.table import read_oof
from pipeline.files import read_json

DRAWS, SEED = 2000, 11


def gains(root: Path) -> dict[str, dict[str, float]]:
    """Member -> gain and its interval, in the competition's metric; on the rows that all members cover."""
    artifacts, cv = root / "artifacts", read_json(root / "metrics" / "cv.json")
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    competition = competition_from_json(read_json(artifacts / "competition" / "competition.json")["competition"])
    members = [name for name in cv["members"] if name not in cv.get("dropped", {})]
    metric, chosen = METRICS[competition.metric], (cv["stack"]["chosen"],)
    table = read_oof(artifacts, members, competition).covered_by(members)

    def losses(names: list[str]) -> np.ndarray:
        found = compare(table, names, chosen, competition, params["threads"], params["stack"]["seed"])
        values = metric.per_row(found.table.labels, found.nested[found.chosen])
        return -values if metric.greater_is_better else values

    everyone = losses(members)
    draws = np.random.default_rng(SEED).integers(0, len(everyone), (DRAWS, len(everyone)))
    result = {}
    for name in members if len(members) > 1 else ():
        gain = losses([each for each in members if each != name]) - everyone
        low, high = np.quantile(gain[draws].mean(axis=1), [0.025, 0.975])
        result[name] = {
            "gain": round(float(gain.mean()), 5),
            "low": round(float(low), 5),
            "high": round(float(high), 5),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(), help="the folder of a finished run")
    parser.add_argument("--json", type=Path, help="write the table there as well")
    arguments = parser.parse_args()
    found = gains(arguments.root)
    for name, each in found.items():
        print(f"{name}: {each['gain']:+.4f} [{each['low']:+.4f}, {each['high']:+.4f}]")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
