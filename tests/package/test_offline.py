"""The network is cut in both modes, also for processes that the script starts, and a leak is noticed beforehand."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.package.offline import PROOF, offline_command, offline_mode

# Tries to reach the address in its arguments; a child process of it tries as well.
PROBE = """import os, socket, subprocess, sys
def reached(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return "no"
    return "yes"
port = int(os.environ["PORT"])
print(reached(port))
if len(sys.argv) == 1:
    print(subprocess.run([sys.executable, __file__, "child"], capture_output=True, text=True).stdout.strip())
    left, right = socket.socketpair()
    left.send(b"local")
    print(right.recv(5).decode())
"""


@pytest.fixture
def environment(tmp_path: Path):
    """A listening server on the loopback interface, and a script that tries to reach it."""
    (tmp_path / "probe.py").write_text(PROBE)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {"PATH": os.environ["PATH"], "PORT": str(server.getsockname()[1])}


def modes() -> list[str]:
    """Both modes, where this system allows namespaces."""
    return ["sockets"] if offline_mode() == "sockets" else ["namespace", "sockets"]


def test_the_probe_reaches_the_server_while_nothing_is_cut(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, str(tmp_path / "probe.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["yes", "yes", "local"]


@pytest.mark.parametrize("mode", modes())
def test_nothing_is_reached_and_local_pipes_still_work(tmp_path: Path, environment: dict[str, str], mode: str) -> None:
    command, changed = offline_command(tmp_path / "probe.py", mode, tmp_path / "guard", environment)
    done = subprocess.run(command, env=changed, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["no", "no", "local"]), done.stderr


@pytest.mark.parametrize("mode", modes())
def test_a_cut_that_did_not_work_is_noticed_before_the_script_runs(
    tmp_path: Path, environment: dict[str, str], mode: str
) -> None:
    command = [sys.executable, "-c", PROOF[mode], "-u", str(tmp_path / "probe.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the network is not cut")
    assert done.stdout == ""


def test_sockets_are_the_way_out_where_namespaces_are_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert offline_mode() == "sockets"
    (tmp_path / "unshare").unlink()
    assert offline_mode() == "sockets"
