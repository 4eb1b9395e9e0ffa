"""What each member adds to the stack, scores by slice, and the rows where members disagree most, for the report.

python -m stages.diagnostics
"""

from pathlib import Path

from pipeline.artifacts import Artifacts
from pipeline.config import load_params
from pipeline.evaluation.diagnostics import stack_diagnostics
from pipeline.files import read_json, write_json
from pipeline.stage import stage


def main() -> None:
    artifacts = Artifacts()
    found = stack_diagnostics(artifacts, read_json(Path("metrics/cv.json")), load_params())
    write_json(artifacts.diagnostics_file, found)
    for member in found["marginal"]:
        gain = member["left_out"]
        print(f"diagnostics: {member['member']} adds {gain['mean']:+.5f} ({gain['low']:+.5f} to {gain['high']:+.5f})")


if __name__ == "__main__":
    with stage("diagnostics"):
        main()
