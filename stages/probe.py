"""Builds two small members and their stack on shuffled labels: nothing may be gained. Writes metrics/probe.json.

python -m stages.probe
"""

import tempfile
from pathlib import Path

from pipeline.artifacts import PROBE_METRICS, Artifacts
from pipeline.config import load_params
from pipeline.files import write_json
from pipeline.members.probe import run_probe
from pipeline.stage import stage

if __name__ == "__main__":
    with stage("probe"):
        params, artifacts = load_params(), Artifacts()
        folds, competition = list(params.folds.ids), artifacts.competition()
        with tempfile.TemporaryDirectory() as folder:
            copy = Artifacts(Path(folder))
            found = run_probe(artifacts, copy, competition, folds, params.threads, params.stack)
        write_json(PROBE_METRICS, found)
        gain = f"{found['gain']:+.5f} ± {found['standard_error']:.5f}"
        said = "LEAK: more" if found["leak"] else "not more"
        print(f"probe: on shuffled labels the stack gains {gain}, {said} than chance")
