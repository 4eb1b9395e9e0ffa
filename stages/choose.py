"""Says which two submissions to select for the private leaderboard, and what each is expected to get. Needs no network.

make choose PUBLIC=0.3           # the share of the test rows behind the public score, as Kaggle's leaderboard page says

The page shows it too, from its next making on: `make choose` makes it anew where there is one.
"""

from dataclasses import asdict
from pathlib import Path

from pipeline.artifacts import Artifacts
from pipeline.files import write_json, write_text
from pipeline.ledger.chosen import CHOICE
from pipeline.ledger.selection import selection
from pipeline.report.evidence import load_evidence
from pipeline.report.page import PAGE, render
from pipeline.stage import options, stage

if __name__ == "__main__":
    arguments = options(
        str(__doc__), public={"type": float, "default": 0.3, "help": "share of the test rows behind the public score"}
    )
    with stage("choose", keep_seconds=False):
        chosen = selection(arguments.public, Artifacts())
        print("\n".join(chosen.lines()))
        write_json(CHOICE, asdict(chosen))
        if PAGE.is_file():
            write_text(PAGE, render(load_evidence(Path())))
            print(f"shown on {PAGE}, too")
