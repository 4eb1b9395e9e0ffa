"""A loopback stand-in for the Hugging Face hub: what snapshot_download asks of it, for repositories held in folders."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves `repositories` (name -> folder) at one revision; `asked` lists the files that were downloaded."""

    def __init__(self, address: str, repositories: dict[str, Path], gated: tuple[str, ...]) -> None:
        self.address, self.repositories, self.gated = address, repositories, gated
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()


@contextmanager
def hub(repositories: dict[str, Path], gated: tuple[str, ...] = ()) -> Iterator[Hub]:
    """A running Hub; the names in `gated` give their list of files to everybody, and their files to nobody."""

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urlsplit(self.path).path.strip("/").removeprefix("api/models/")
            name, (kind, revision, *rest) = "/".join(path.split("/")[:2]), path.split("/")[2:]
            self.server_hub.tokens.add(self.headers["Authorization"])
            folder = self.server_hub.repositories.get(name)
            if name.endswith("/broken"):
                return self.fail(503, "")
            if folder is None:
                return self.fail(404, "RepoNotFound")
            if revision != REVISION:
                return self.fail(404, "RevisionNotFound")
            if kind == "tree":
                files = sorted(file for file in folder.rglob("*") if file.is_file())
                return self.send(json.dumps([listed(file, folder) for file in files]).encode())
            if kind == "revision":
                names = [{"rfilename": file.relative_to(folder).as_posix()} for file in folder.rglob("*.*")]
                return self.send(json.dumps({"id": name, "sha": REVISION, "siblings": names}).encode())
            if name in self.server_hub.gated:
                return self.fail(403, "GatedRepo")
            file = folder.joinpath(*rest)
            if not file.exists():
                return self.fail(404, "EntryNotFound")
            if self.command == "GET":
                self.server_hub.asked.append("/".join(rest))
            return self.send(file.read_bytes(), ETag=f'"{git_id(file)}"', **{"X-Repo-Commit": REVISION})

        do_HEAD = do_GET

        def send(self, body: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def fail(self, status: int, code: str) -> None:
            self.send(b"", status, **{"X-Error-Code": code, "X-Error-Message": "no"})

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    served = Answers.server_hub = Hub(f"http://127.0.0.1:{server.server_port}", repositories, gated)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def listed(file: Path, folder: Path) -> dict[str, object]:
    return {
        "type": "file",
        "path": file.relative_to(folder).as_posix(),
        "size": file.stat().st_size,
        "oid": git_id(file),
    }


def git_id(file: Path) -> str:
    body = file.read_bytes()
    return hashlib.sha1(f"blob {len(body)}\0".encode() + body).hexdigest()
