"""Competition files through the real CLI: fetched once, going on where it was cut off, unpacked whole, checked."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import polars as pl
import pytest
from kaggle_server import KaggleServer, wait_for
from kaggle_world import COMPETITION, IMPATIENT
from support import ROOT

from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.data.demo import generate, write
from pipeline.errors import PodiumError
from pipeline.kaggle.cli import KaggleError
from pipeline.kaggle.download import ARCHIVES, download

ARCHIVE = ARCHIVES / f"{COMPETITION}.zip"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """train.csv, test.csv and sample_submission.csv of a generated competition in the LMSYS schema."""
    folder = tmp_path_factory.mktemp("files")
    write(generate(60, 10, 1), folder)
    names = ("train.csv", "test.csv", "sample_submission.csv")
    return {name: (folder / name).read_bytes() for name in names}


def archive(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return made.getvalue()


def test_first_run_repeat_and_a_newer_archive(
    server: KaggleServer, folder: Path, lmsys: Competition, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    # As in some older competitions, one file is an archive itself.
    inner = {name: data for name, data in files.items() if name != "train.csv"}
    server.competition_zip = archive(inner | {"train.csv.zip": archive({"train.csv": files["train.csv"]})})
    target = download(lmsys, IMPATIENT)
    assert target == Path("data/lmsys-chatbot-arena")
    assert {path.name: path.read_bytes() for path in target.iterdir()} == files
    assert "60 train and 10 test rows" in capsys.readouterr().out

    (target / "mine.txt").write_text("kept while nothing new comes")
    assert download(lmsys, IMPATIENT) == target
    assert (target / "mine.txt").exists()
    told = capsys.readouterr().out
    assert "Skipping, found more recently modified local copy" in told
    assert "unpacked already" in told


def test_a_download_that_was_cut_off_goes_on(
    server: KaggleServer, folder: Path, lmsys: Competition, files: dict[str, bytes]
) -> None:
    large = files | {"images.bin": random.Random(1).randbytes(3_000_000)}
    server.competition_zip = archive(large)
    hold, written = threading.Event(), 2 * 1024**2  # the CLI writes what has come in pieces of 1 MiB
    server.fault("/file/", cut_after=2_500_000, hold=hold)
    script = "from test_download import *; download(load_competition('lmsys'), IMPATIENT)"
    paths = [os.environ["PYTHONPATH"], str(ROOT), str(ROOT / "tests" / "helpers"), str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, start_new_session=True)
    try:
        wait_for(lambda: ARCHIVE.is_file() and ARCHIVE.stat().st_size == written)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        hold.set()
    target = download(lmsys, IMPATIENT)
    assert server.ranges == [f"bytes={written}-"]
    assert {path.name: path.read_bytes() for path in target.iterdir()} == large


def test_what_is_wrong_with_the_files_is_told(
    server: KaggleServer, folder: Path, lmsys: Competition, files: dict[str, bytes]
) -> None:
    frame = pl.read_csv(files["train.csv"], infer_schema=False).rename({"response_a": "answer_a"})
    server.competition_zip = archive(files | {"train.csv": frame.write_csv().encode()})
    with pytest.raises(PodiumError, match=r"data/lmsys-chatbot-arena/train\.csv: .*response_a"):
        download(lmsys, IMPATIENT)


def test_a_broken_archive_is_deleted_and_leaves_nothing(
    server: KaggleServer, folder: Path, lmsys: Competition, files: dict[str, bytes]
) -> None:
    whole = archive(files)
    server.competition_zip = whole[: len(whole) // 2]
    with pytest.raises(
        PodiumError, match=r"lmsys-chatbot-arena\.zip: not a whole archive .*; deleted, run `make download`"
    ):
        download(lmsys, IMPATIENT)
    assert not ARCHIVE.exists()
    assert not Path("data/lmsys-chatbot-arena").exists()


def test_rules_that_are_not_accepted_are_named(server: KaggleServer, folder: Path, lmsys: Competition) -> None:
    server.fault("DownloadDataFiles", status=403, message="You must accept this competition's rules")
    with pytest.raises(KaggleError) as caught:
        download(lmsys, IMPATIENT)
    assert "403: You must accept" in str(caught.value)
    assert "https://www.kaggle.com/competitions/lmsys-chatbot-arena/rules" in str(caught.value)


def test_an_unknown_competition_is_an_error(server: KaggleServer, folder: Path) -> None:
    server.fault("DownloadDataFiles", status=404, message="Competition not found")
    with pytest.raises(KaggleError, match="404: Competition not found"):
        download(load_competition("spooky"), IMPATIENT)
