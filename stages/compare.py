"""Prints one table of all submitted commits, and how CV and leaderboard agree. Needs no network.

python -m stages.compare
python -m stages.compare --markdown
"""

import argparse

from pipeline.ledger.compare import comparison
from pipeline.stage import stage

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="as a table for a README")
    arguments = parser.parse_args()
    with stage("compare", keep_seconds=False):
        print(comparison(arguments.markdown))
