"""Brings the package to Kaggle as a dataset, pushes the kernel, and waits for its dress rehearsal there.

python -m stages.publish               # safe to repeat: what is there already is not sent again
python -m stages.publish --dry-run     # what would be sent
"""

from pipeline.competitions.registry import load_competition
from pipeline.config import load_params
from pipeline.kaggle.cli import Patience
from pipeline.kaggle.preview import preview_publish
from pipeline.kaggle.publish import publish
from pipeline.stage import options, stage

if __name__ == "__main__":
    arguments = options(
        __doc__,
        dry_run={"action": "store_true", "help": "say what would be sent, contact nobody"},
        allow_dirty={"action": "store_true", "help": "publish files that are in no commit"},
        again={"action": "store_true", "help": "push although this code and data have been pushed"},
        poll={"type": float, "default": Patience.poll, "help": "seconds between two looks (%(default)s)"},
    )
    with stage("publish", keep_seconds=False):
        params = load_params()
        competition = load_competition(params.data.competition)
        if arguments.dry_run:
            print(preview_publish(params.package, competition))
        else:
            patience = Patience(poll=arguments.poll)
            publish(params.package, competition, arguments.allow_dirty, arguments.again, patience)
