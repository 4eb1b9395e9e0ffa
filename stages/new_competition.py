"""Writes a first YAML file for a new competition into the folder with its files, guessed from them.

python -m stages.new_competition path/to/competition
"""

import argparse
from pathlib import Path
from shlex import quote

from pipeline.ingest.draft import write_draft
from pipeline.stage import stage

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder with a train, a test and a sample submission file")
    folder = parser.parse_args().folder
    with stage("new_competition", keep_seconds=False):
        target = write_draft(folder)
        print(target.read_text(encoding="utf-8"), end="")
        command = f"`make repro PRESET=cpu DATA={quote(str(folder))}`"
        print(f"\nwritten to {target}: read it, then {command} uses it (PRESET=short for sentences)")
