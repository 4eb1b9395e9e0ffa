"""Fits the second level, chooses a stacker, builds the ladder, and writes metrics/cv.json.

python -m stages.stack
"""

from pathlib import Path

from pipeline.competitions.task import competition_from_json
from pipeline.config import load_params
from pipeline.ensemble.build_ladder import cheap_first, climb, costliest
from pipeline.ensemble.ladder import save_ladder
from pipeline.ensemble.stack import calibrate, compare
from pipeline.ensemble.table import read_holdout, read_oof, read_truth
from pipeline.errors import PodiumError
from pipeline.evaluation.collapse import add_training, collapsed_folds, read_training
from pipeline.evaluation.scores import cv_scores, level2_frame
from pipeline.files import atomic_folder, read_json, write_json, write_parquet
from pipeline.stage import seconds_of, stage

ARTIFACTS = Path("artifacts")


def main() -> None:
    params = load_params()
    competition = competition_from_json(read_json(ARTIFACTS / "competition" / "competition.json")["competition"])
    kinds = {name: member.kind for name, member in params.members.items()}
    everyone = cheap_first(kinds)
    training = read_training(ARTIFACTS, everyone, list(params.folds.ids))
    collapsed = collapsed_folds(training, params.guard.on_collapse)
    members = [name for name in everyone if name not in collapsed]
    if not members:
        raise PodiumError("every member has collapsed fold models: there is nothing to stack; see metrics and log")
    oof, holdout = read_oof(ARTIFACTS, members, competition), read_holdout(ARTIFACTS, members, competition)
    threads, seed = params.threads, params.stack.seed
    comparison = compare(oof, members, params.stack.candidates, competition, threads, seed)
    ladder = climb(oof, members, comparison.chosen, competition, threads, seed, costliest(kinds, members))
    ladder, held = calibrate(ladder, holdout, seed)
    truth = read_truth(ARTIFACTS, oof, competition)
    seconds = {name: seconds_of(f"finetune@{name}-") for name in everyone}
    scores = cv_scores(oof, holdout, truth, comparison, ladder, held, seconds, seed)
    scores = add_training(scores, training, collapsed, seconds, competition, ARTIFACTS)
    with atomic_folder(ARTIFACTS / "stack") as folder:
        save_ladder(ladder, folder)
        write_parquet(level2_frame(comparison, competition), folder / "level2.parquet")
    write_json(Path("metrics/cv.json"), scores)
    stack = scores["stack"]
    print(f"stack: {stack['chosen']}, nested {stack['score']:.5f} ± {stack['standard_error']:.5f}, ", end="")
    print(f"best member {stack['best_member']}, prior {scores['prior']:.5f}")
    for warning in scores["warnings"]:
        print(f"warning: {warning}")


if __name__ == "__main__":
    with stage("stack"):
        main()
