"""What each member adds to the stack, scores by slice, and the rows where members disagree most, for the report.

python -m stages.diagnostics
"""

from pathlib import Path

import polars as pl

from pipeline.competitions.task import competition_from_json
from pipeline.config import load_params
from pipeline.ensemble.stack import second_level
from pipeline.ensemble.table import read_oof
from pipeline.evaluation.diagnostics import STACKER, disagreements, marginal_gains, slice_scores, swap_consistency
from pipeline.files import read_json, write_json
from pipeline.stage import stage

ARTIFACTS = Path("artifacts")


def main() -> None:
    params = load_params()
    competition = competition_from_json(read_json(ARTIFACTS / "competition" / "competition.json")["competition"])
    scores = read_json(Path("metrics/cv.json"))
    members = [name for name in scores["members"] if name not in scores.get("dropped", {})]
    best = scores["stack"]["best_member"]
    table = read_oof(ARTIFACTS, members, competition).covered_by(members)
    rows = second_level(table, members, competition, False, params.stack.seed)
    stacked = pl.read_parquet(ARTIFACTS / "stack" / "level2.parquet").select(competition.classes).to_numpy()
    receipts = {
        name: [read_json(ARTIFACTS / "receipts" / f"{name}-fold{fold}.json") for fold in params.folds.ids]
        for name in members
    }
    found = {
        "stacker": STACKER,
        "marginal": marginal_gains(table, rows, members, competition, params.threads, params.stack.seed),
        "slices": slice_scores(table, stacked, best, rows.groups, competition),
        "disagreements": disagreements(table, stacked, members, competition),
        "swap": swap_consistency(table, members, receipts, competition),
    }
    write_json(ARTIFACTS / "diagnostics.json", found)
    for member in found["marginal"]:
        gain = member["left_out"]
        print(f"diagnostics: {member['member']} adds {gain['mean']:+.5f} ({gain['low']:+.5f} to {gain['high']:+.5f})")


if __name__ == "__main__":
    with stage("diagnostics"):
        main()
