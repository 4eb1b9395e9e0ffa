"""Submits the commit that was published, and tags it sub-N.

python -m stages.submit                # the same thing is submitted once, however often this runs
python -m stages.submit --dry-run      # what would be sent
"""

from pipeline.competitions.registry import load_competition
from pipeline.config import load_params
from pipeline.kaggle.cli import Patience
from pipeline.kaggle.preview import preview_submit
from pipeline.kaggle.submit import submit
from pipeline.stage import options, stage

if __name__ == "__main__":
    arguments = options(
        __doc__,
        dry_run={"action": "store_true", "help": "say what would be sent, contact nobody"},
        allow_dirty={"action": "store_true", "help": "submit although files are in no commit"},
        again={"action": "store_true", "help": "spend a submission on what has been submitted before"},
    )
    with stage("submit", keep_seconds=False):
        params = load_params()
        competition = load_competition(params.data.competition)
        if arguments.dry_run:
            print(preview_submit(params.package, competition))
        else:
            submit(params.package, competition, arguments.allow_dirty, arguments.again, Patience())
