"""Python runs this in every process that has this folder on PYTHONPATH: only the tests' own server can be reached.

An audit hook sees every address before it is used and cannot be taken off again. What it refuses, it writes down.
"""

import os
import sys

LOG, PORT = os.environ["PODIUM_GUARD_LOG"], int(os.environ["PODIUM_GUARD_PORT"])


def guard(event: str, arguments: tuple) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host, port = arguments[1][:2]
        if (host, port) == ("127.0.0.1", PORT):
            return
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"):
        host, port = (arguments[0], arguments[1]) if event == "socket.getaddrinfo" else (arguments[-1], None)
        if event == "socket.getaddrinfo" and host in ("127.0.0.1", b"127.0.0.1"):
            return
        if event.startswith("socket.send") and not isinstance(host, tuple):
            return
    else:
        return
    with open(LOG, "a", encoding="utf-8") as stream:
        stream.write(f"{event} {host} {port}\n")
    raise PermissionError(f"guard: {host}:{port} is not the tests' server")


sys.addaudithook(guard)
