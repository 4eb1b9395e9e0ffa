"""Run the real kernel script on the package, with the network cut.

python -m stages.rehearse
"""

from pathlib import Path

from pipeline.config import load_params
from pipeline.package.rehearse import rehearse
from pipeline.stage import stage

if __name__ == "__main__":
    with stage("rehearse"):
        rehearse(
            package=Path("artifacts/package"),
            data=Path(load_params().data.path),
            submission=Path("artifacts/rehearsal/submission.csv"),
            metrics=Path("metrics/rehearsal.json"),
            work=Path("work"),
        )
