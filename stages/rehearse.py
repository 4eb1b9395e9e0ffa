"""Runs the real kernel script on the package, with the network cut.

python -m stages.rehearse
"""

from pathlib import Path

from pipeline.artifacts import REHEARSAL_METRICS, Artifacts
from pipeline.config import load_params
from pipeline.package.rehearse import rehearse
from pipeline.stage import stage

if __name__ == "__main__":
    with stage("rehearse"):
        artifacts, data = Artifacts(), Path(load_params().data.path)
        rehearse(artifacts.package, data, artifacts.submission_file, REHEARSAL_METRICS, Path("work"))
