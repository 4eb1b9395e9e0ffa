"""Fetches the competition's files from Kaggle into data/<competition>/, and checks them.

python -m stages.download              # a download that was cut off goes on
python -m stages.download --dry-run    # what would be run
"""

import argparse
import shlex

from pipeline.competitions.registry import load_competition
from pipeline.config import load_params
from pipeline.kaggle.cli import Patience
from pipeline.kaggle.download import download, download_command
from pipeline.stage import stage

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent, contact nobody")
    arguments = parser.parse_args()
    with stage("download", keep_seconds=False):
        competition = load_competition(load_params().data.competition)
        if arguments.dry_run:
            print(f"kaggle {shlex.join(download_command(competition))}")
        else:
            folder = download(competition, Patience())
            print(f"next: make repro DATA={folder}")
