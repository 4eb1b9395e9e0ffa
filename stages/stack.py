"""Fits the second level, chooses a stacker, builds the ladder, and writes metrics/cv.json.

python -m stages.stack
"""

from pathlib import Path

from pipeline.artifacts import Artifacts
from pipeline.config import load_params
from pipeline.evaluation.cv import stack_and_score
from pipeline.files import write_json
from pipeline.stage import stage


def main() -> None:
    scores = stack_and_score(Artifacts(), load_params())
    write_json(Path("metrics/cv.json"), scores.as_json())
    stack = scores.stack
    print(f"stack: {stack.chosen}, nested {stack.score:.5f} ± {stack.standard_error:.5f}, ", end="")
    print(f"best member {stack.best_member}, prior {scores.prior:.5f}")
    for warning in scores.warnings:
        print(f"warning: {warning}")


if __name__ == "__main__":
    with stage("stack"):
        main()
