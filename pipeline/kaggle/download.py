"""Brings the competition's files from Kaggle: fetched by the CLI, unpacked, checked against its YAML file.

python -m stages.download
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.files import read_json, write_json
from pipeline.ingest.prepare import prepare
from pipeline.kaggle.archive import unpack
from pipeline.kaggle.cli import KaggleError, Patience, kaggle

DATA = Path("data")
ARCHIVES = DATA / "downloads"
"""Beside the unpacked folders: what lies in `data.path` is a dependency of the pipeline."""


def download_command(competition: Competition) -> list[str]:
    """Returns the arguments of `kaggle` that download the files."""
    return ["competitions", "download", competition.name, "-p", str(ARCHIVES)]


def download(competition: Competition, patience: Patience) -> Path:
    """Returns the folder with the competition's files, whole and checked.

    A download that was cut off goes on; an archive that is here already is not fetched again, nor unpacked again.

    Raises: PodiumError where Kaggle refuses, the archive is broken, or its files are not what the YAML file says.
    """
    archive, target = ARCHIVES / f"{competition.name}.zip", DATA / competition.name

    def judge(_: str) -> str | None:
        return None if archive.is_file() else f"{archive}: expected a file, found none"

    try:
        kaggle(*download_command(competition), patience=patience, judge=judge, echo=True)
    except KaggleError as error:
        if error.status == 403:
            rules = f"https://www.kaggle.com/competitions/{competition.name}/rules"
            raise KaggleError(f"{error} (have you accepted the rules? {rules})", 403) from None
        raise
    seen = {"bytes": archive.stat().st_size, "modified": archive.stat().st_mtime}
    note = archive.with_suffix(".json")
    if target.is_dir() and note.is_file() and read_json(note) == seen:
        print(f"{target}: unpacked already", flush=True)
    else:
        unpack(archive, target)
        write_json(note, seen)
    with tempfile.TemporaryDirectory() as temporary:
        artifacts = Artifacts(Path(temporary))
        prepare(target, competition, artifacts.competition_folder)  # refuses the first thing that is wrong
        rows = read_json(artifacts.competition_file)["rows"]
    print(f"{target}: {rows['train']:,} train and {rows['test']:,} test rows, as {competition.name} should be")
    return target
