"""The six commands of the README against the tests' Kaggle, on a machine that has nothing but a loopback interface.

unshare --map-root-user --net python tests/helpers/kaggle_alone.py FOLDER

tests/kaggle/test_alone.py runs it. The last line that it prints is JSON: what happened, and what could not be reached.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import socket
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from kaggle_server import KaggleServer  # noqa: E402
from kaggle_world import IDENTITY, dvc, experiment, make_repository  # noqa: E402

from pipeline.data.demo import generate, write  # noqa: E402


def loopback_up() -> None:
    """Raises the loopback interface of this network namespace (SIOCGIFFLAGS 0x8913, SIOCSIFFLAGS 0x8914, IFF_UP 1)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, 0x8913, asked))[1]
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))


def unreachable() -> str:
    """What the system says of any other address."""
    try:
        socket.create_connection(("192.0.2.1", 443), timeout=5).close()
    except OSError as error:
        return str(error.strerror)
    return "reached"


def play(folder: Path) -> dict:
    root = folder / "repository"
    make_repository(root)
    write(generate(40, 10, 1), folder / "files")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("train.csv", "test.csv", "sample_submission.csv"):
            archive.write(folder / "files" / name, name)
    with KaggleServer(folder) as server:
        server.competition_zip = packed.getvalue()
        server.score = lambda body: {"status": "COMPLETE", "publicScore": f"1.0{len(server.submissions)}"}
        environment = os.environ | server.environment | IDENTITY | {"DVC_NO_ANALYTICS": "1"}
        environment["PYTHONPATH"] += os.pathsep + str(ROOT)

        def stage(name: str, *options: str) -> str:
            command = [sys.executable, "-m", f"stages.{name}", *options]
            done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{name}: {done.stdout}\n{done.stderr}"
            return done.stdout

        told = [stage("download")]
        for number in (1, 2):
            if number > 1:
                experiment(root, number, 1.01)
            told += [stage("publish", "--poll", "0.1"), stage("submit"), stage("sync_lb")]
        shown = stage("compare")
        diff = json.loads(dvc("metrics", "diff", "lb-1", "lb-2", "--json", cwd=root))
        return {"told": told, "table": shown, "diff": diff, "contacted": server.contacted(), "out": unreachable()}


if __name__ == "__main__":
    loopback_up()
    print(json.dumps(play(Path(sys.argv[1]))))
