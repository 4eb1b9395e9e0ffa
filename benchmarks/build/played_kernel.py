"""Runs what was pushed to the tests' Kaggle, as Kaggle would: once as the dress rehearsal, once on the hidden rows."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from pipeline.package.offline import offline_command, offline_mode
from tests.helpers.kaggle_server import KaggleServer, Kernel


class PlayedKernels:
    """The machine behind a KaggleServer: `rehearse` answers a push, `rerun` a submission of a pushed version."""

    def __init__(self, server: KaggleServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.mode = offline_mode()

    def rehearse(self, body: dict[str, Any]) -> Kernel:
        """Runs the pushed script on the visible rows; returns what the server keeps of it."""
        code, log, files = self._run(body, self.folder / "competition", rerun=False)
        state = "ERROR" if code else "COMPLETE"
        pieces = [{"stream_name": "stdout", "time": 0.0, "data": log}]
        return Kernel(0, body, ["QUEUED", state], json.dumps(pieces), files)

    def rerun(self, submission: dict[str, Any], hidden: Path) -> bytes:
        """Returns submission.csv of the submitted kernel on the hidden rows."""
        slug = f"{submission['kernelOwner']}/{submission['kernelSlug']}"
        kernel = self.server.kernels[slug]
        assert kernel.version == submission["kernelVersion"], "only the newest version is played"
        code, log, files = self._run(kernel.body, hidden, rerun=True)
        assert code == 0, log
        return files["submission.csv"]

    def _run(self, body: dict[str, Any], data: Path, rerun: bool) -> tuple[int, str, dict[str, bytes]]:
        """Exit code, log and output files of one run, in a bare environment without a network."""
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            place = Path(temporary)
            for name in ("working", "home", "tmp"):
                (place / name).mkdir()
            for dataset in body["datasetDataSources"]:
                self._mount(dataset, place / "input" / "datasets" / dataset)
            competition = place / "input" / "competitions" / body["competitionDataSources"][0]
            competition.mkdir(parents=True)
            for name in ("test.csv", "sample_submission.csv"):
                shutil.copy(data / name, competition / name)
            (place / "script.py").write_text(body["text"], encoding="utf-8")
            bare = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
            bare |= {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp")}
            bare |= {"PODIUM_INPUT": str(place / "input"), "PODIUM_WORKING": str(place / "working")}
            if rerun:
                bare["KAGGLE_IS_COMPETITION_RERUN"] = "1"
            command, environment = offline_command(place / "script.py", self.mode, place / "guard", bare)
            began = time.monotonic()
            done = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, check=False)
            print(f"  kernel on {data.name}: {time.monotonic() - began:.1f} s", flush=True)
            files = {path.name: path.read_bytes() for path in (place / "working").iterdir() if path.is_file()}
            return done.returncode, done.stdout + done.stderr, files

    def _mount(self, dataset: str, target: Path) -> None:
        """The newest version's files, archives unpacked into folders of their names."""
        target.mkdir(parents=True)
        for name, data in self.server.datasets[dataset][-1]["files"].items():
            if name.endswith(".zip"):
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    archive.extractall(target / name.removesuffix(".zip"))
            else:
                (target / name).write_bytes(data)
