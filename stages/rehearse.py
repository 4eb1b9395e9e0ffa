"""Runs the real kernel script on the package, with the network cut.

python -m stages.rehearse               # the stage: a dress rehearsal on the test file
python -m stages.rehearse --rows 25000  # as in the scored rerun, on rows made from train; no stage becomes stale
"""

from pathlib import Path

from pipeline.artifacts import REHEARSAL_METRICS, Artifacts
from pipeline.config import load_params
from pipeline.files import read_json
from pipeline.kaggle.dataset import RUN_TIMINGS
from pipeline.package.rehearse import rehearse
from pipeline.package.rehearse_rows import rehearse_rows
from pipeline.stage import options, stage

WORK = Path("work")

if __name__ == "__main__":
    rows = options(
        str(__doc__),
        rows={
            "type": int,
            "nargs": "?",
            "const": -1,
            "help": "made rows; without a number the competition's hidden_rows",
        },
    ).rows
    with stage("rehearse", keep_seconds=rows is None):
        artifacts, data = Artifacts(), Path(load_params().data.path)
        if rows is None:
            rehearse(artifacts.package, data, artifacts.submission_file, REHEARSAL_METRICS, WORK)
        else:
            timings = read_json(RUN_TIMINGS) if RUN_TIMINGS.is_file() else None
            rehearse_rows(artifacts.package, data, None if rows == -1 else rows, timings, WORK)
