"""Runs a Python script cut off the net, and proves that it is before the script begins.

`namespace`: a network namespace of its own, where every interface is down.
`sockets`: where the system forbids namespaces, every Python process of the script refuses to make a socket.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

UNSHARE = ("unshare", "--map-root-user", "--net")

# An audit hook cannot be taken off again. Unix sockets stay: processes of one machine talk over them.
REFUSE_SOCKETS = """import socket, sys
def refuse(event, args):
    if event == "socket.__new__" and args[1] == socket.AF_UNIX:
        return
    if event in ("socket.__new__", "socket.getaddrinfo", "socket.gethostbyname"):
        raise PermissionError(f"the network is cut: {event}")
sys.addaudithook(refuse)
"""

# Both checks send nothing. SIOCGIFFLAGS (0x8913) reads the flags of an interface, whose lowest bit says "up"; a kernel
# with tunnel modules puts more interfaces than lo into a new namespace, all down.
PROOF = {
    "namespace": """import fcntl, os, socket, struct, sys
def is_up(name):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe, 0x8913, struct.pack("40s", name.encode()))
    return struct.unpack_from("h", answer, 16)[0] & 1
up = [name for _, name in socket.if_nameindex() if is_up(name)]
if up:
    sys.exit(f"error: the network is not cut: {up} up")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
""",
    "sockets": """import os, socket, sys
try:
    socket.socket()
except PermissionError:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
sys.exit("error: the network is not cut: a socket could be made")
""",
}


def offline_mode() -> str:
    """Returns `namespace` where this system lets us make one, else `sockets`."""
    try:
        probe = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False)
    except OSError:
        return "sockets"
    return "sockets" if probe.returncode else "namespace"


def offline_command(
    script: Path, mode: str, guard: Path, environment: dict[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Returns the command and the environment that run `script` in `mode`; `guard` is a folder for what that needs.

    The command ends with exit code 1 and one line where the network is not cut after all.
    """
    command = [sys.executable, "-c", PROOF[mode], "-u", str(script)]
    if mode == "namespace":
        return [*UNSHARE, *command], environment
    guard.mkdir(parents=True, exist_ok=True)
    # Python runs it in every process that it starts.
    (guard / "sitecustomize.py").write_text(REFUSE_SOCKETS, encoding="utf-8")
    return command, environment | {"PYTHONPATH": str(guard)}
