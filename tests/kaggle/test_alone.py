"""The whole round trip where no other address exists: nothing but the tests' own server is ever needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.package.offline import UNSHARE, offline_mode


@pytest.mark.skipif(offline_mode() != "namespace", reason="this system allows no network namespaces")
@pytest.mark.slow
def test_from_download_to_a_score_with_a_loopback_interface_only(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "helpers" / "kaggle_alone.py"
    done = subprocess.run(
        [*UNSHARE, sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["out"] == "Network is unreachable"
    assert found["contacted"] == []
    assert "next: make repro DATA=data/lmsys-chatbot-arena" in found["told"][0]
    assert "version 2 pushed" in found["told"][4]
    assert found["diff"]["lb.json"]["public"] == {"old": 1.0, "new": 1.01, "diff": pytest.approx(0.01)}
    rows = found["table"].splitlines()
    assert "members.shape.seed 500 → 700" in rows[2]
    assert "1.01000 ± 0.00400" in rows[2]
    assert "20 s / 10 min 00 s (3.3%)" in rows[2]
