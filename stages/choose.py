"""Says which two submissions to select for the private leaderboard, and what each is expected to get. Needs no network.

make choose PUBLIC=0.3           # the share of the test rows behind the public score, as Kaggle's leaderboard page says
"""

from pipeline.artifacts import Artifacts
from pipeline.ledger.selection import selection
from pipeline.stage import options, stage

if __name__ == "__main__":
    arguments = options(
        str(__doc__), public={"type": float, "default": 0.3, "help": "share of the test rows behind the public score"}
    )
    with stage("choose", keep_seconds=False):
        print("\n".join(selection(arguments.public, Artifacts())))
