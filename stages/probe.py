"""Builds two small members and their stack on shuffled labels: nothing may be gained. Writes metrics/probe.json.

python -m stages.probe
"""

import tempfile
from pathlib import Path

from threadpoolctl import threadpool_limits

from pipeline.competitions.task import competition_from_json
from pipeline.config import load_params
from pipeline.files import read_json, write_json
from pipeline.members.probe import run_probe
from pipeline.stage import stage

ARTIFACTS = Path("artifacts")


def main() -> None:
    params = load_params()
    competition = competition_from_json(read_json(ARTIFACTS / "competition" / "competition.json")["competition"])
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(params.threads):
        found = run_probe(ARTIFACTS, Path(folder), competition, list(params.folds.ids), params.threads, params.stack)
    write_json(Path("metrics/probe.json"), found)
    said = "LEAK: more" if found["leak"] else "not more"
    print(f"probe: on shuffled labels the stack gains {found['gain']:+.5f} ± {found['standard_error']:.5f}, ", end="")
    print(f"{said} than chance")


if __name__ == "__main__":
    with stage("probe"):
        main()
