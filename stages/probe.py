"""Builds two small members and their stack on shuffled labels: nothing may be gained. Writes metrics/probe.json.

python -m stages.probe
"""

import tempfile
from pathlib import Path

from threadpoolctl import threadpool_limits

from pipeline.artifacts import Artifacts
from pipeline.config import load_params
from pipeline.files import write_json
from pipeline.members.probe import run_probe
from pipeline.stage import stage


def main() -> None:
    params = load_params()
    artifacts, folds = Artifacts(), list(params.folds.ids)
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(params.threads):
        copy = Artifacts(Path(folder))
        found = run_probe(artifacts, copy, artifacts.competition(), folds, params.threads, params.stack)
    write_json(Path("metrics/probe.json"), found)
    said = "LEAK: more" if found["leak"] else "not more"
    print(f"probe: on shuffled labels the stack gains {found['gain']:+.5f} ± {found['standard_error']:.5f}, ", end="")
    print(f"{said} than chance")


if __name__ == "__main__":
    with stage("probe"):
        main()
