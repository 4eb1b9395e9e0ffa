"""Fetches the competition's files from Kaggle into data/<competition>/, and checks them.

python -m stages.download              # a download that was cut off goes on
python -m stages.download --dry-run    # what would be run
"""

import shlex

from pipeline.competitions.registry import load_competition
from pipeline.config import load_params
from pipeline.kaggle.cli import Patience
from pipeline.kaggle.download import download, download_command
from pipeline.stage import options, stage

if __name__ == "__main__":
    arguments = options(__doc__, dry_run={"action": "store_true", "help": "say what would be sent, contact nobody"})
    with stage("download", keep_seconds=False):
        competition = load_competition(load_params().data.competition)
        if arguments.dry_run:
            print(f"kaggle {shlex.join(download_command(competition))}")
        else:
            print(f"next: make repro DATA={download(competition, Patience())}")
