"""What a killed process leaves half-written goes away with the next writing; what a living one writes stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

from pipeline.files import atomic_file, atomic_folder

WRITING = """
import sys, time
from pathlib import Path
from pipeline.files import atomic_file, atomic_folder
with atomic_folder(Path(sys.argv[1]) / "some[folder]") as folder, atomic_file(Path(sys.argv[1]) / "file") as file:
    (folder / "large").write_text("x")
    file.write_text("x")
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("killed", [True, False])
def test_what_is_left_half_written(tmp_path: Path, killed: bool) -> None:
    command = [sys.executable, "-c", WRITING, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "writing\n"
        if killed:
            other.send_signal(signal.SIGKILL)
            other.wait()
        assert len(list(tmp_path.glob(".*.partial"))) == 2
        with atomic_folder(tmp_path / "some[folder]"), atomic_file(tmp_path / "file") as file:
            file.write_text("whole")
        assert len(list(tmp_path.glob(".*.partial"))) == (0 if killed else 2)
        other.kill()
    assert (tmp_path / "file").read_text() == "whole"
    assert os.listdir(tmp_path / "some[folder]") == []
