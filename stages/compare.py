"""Prints one table of all submitted commits, and how CV and leaderboard agree. Needs no network.

python -m stages.compare
python -m stages.compare --markdown
"""

from pipeline.ledger.compare import comparison
from pipeline.stage import options, stage

if __name__ == "__main__":
    arguments = options(__doc__, markdown={"action": "store_true", "help": "as a table for a README"})
    with stage("compare", keep_seconds=False):
        print(comparison(arguments.markdown))
