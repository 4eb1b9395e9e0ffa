"""Fetches the scores of the submitted commits into lb.json and ledger.csv, and tags them lb-N.

python -m stages.sync_lb                        # what is scored by now
python -m stages.sync_lb --wait-minutes 600     # until all are
python -m stages.sync_lb --dry-run              # which submissions would be asked for
"""

from pipeline.competitions.registry import load_competition
from pipeline.config import load_params
from pipeline.kaggle.cli import Patience
from pipeline.kaggle.sync import sync
from pipeline.ledger.git import numbered_tags
from pipeline.stage import options, stage

if __name__ == "__main__":
    arguments = options(
        __doc__,
        dry_run={"action": "store_true", "help": "say what would be asked, contact nobody"},
        wait_minutes={"type": float, "default": 0.0, "help": "wait that long for pending scores"},
        poll={"type": float, "default": 60.0, "help": "seconds between two looks (%(default)s)"},
    )
    with stage("sync_lb", keep_seconds=False):
        competition = load_competition(load_params().data.competition)
        if arguments.dry_run:
            sent = [f"sub-{number} (commit {commit[:8]})" for number, commit in numbered_tags("sub").items()]
            print(f"kaggle competitions submissions {competition.name}: {', '.join(sent) or 'nothing submitted'}")
        else:
            sync(competition, 60.0 * arguments.wait_minutes, Patience(poll=arguments.poll))
