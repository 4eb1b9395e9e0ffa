"""How the tests' Kaggle talks HTTP: which call it is, whether a fault strikes it, uploads and downloads by ranges."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Fault:
    """What a call whose path contains `match` gets instead, `times` times; `skip` calls go through before."""

    match: str
    status: int = 500
    message: str | None = None
    """Sent as Kaggle's JSON with code and message; None sends a page without either."""
    times: int = 1
    skip: int = 0
    cut_after: int | None = None
    """Takes in that many bytes of the body and closes the connection."""
    hold: threading.Event | None = None
    """After `cut_after` bytes the connection stays open and silent until this is set."""
    answer: dict[str, Any] | None = None
    """A proper answer of status 200 that replaces the usual one."""
    least: int = 0
    """Strikes only requests whose body has that many bytes."""


class Handler(BaseHTTPRequestHandler):
    """Answers from `kaggle`, the KaggleServer whose requests these are."""

    kaggle: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        self.kaggle.foreign.append(f"CONNECT {self.path}")
        self._send(403, b"refused", "text/plain")
        self.close_connection = True

    def _path(self) -> str | None:
        """The path of a request that is for us; None, recorded and refused, for one to another host."""
        parts = urlsplit(self.path)
        if parts.hostname not in ("localhost", None):
            self.kaggle.foreign.append(f"{self.command} {self.path}")
            self._send(403, b"refused", "text/plain")
            return None
        self.kaggle.requests.append(f"{self.command} {parts.path}")
        return parts.path

    def do_POST(self) -> None:
        path = self._path()
        if path is None:
            return
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body, method = json.loads(raw or b"{}"), path.rsplit("/", 1)[1]
        with self.kaggle.lock:
            self.kaggle.calls.append((method, body))
            if self._struck(path, raw):
                return
            if method in ("DownloadDataFiles", "DownloadDataset"):
                name = "archive.zip" if method == "DownloadDataFiles" else body["fileName"]
                slug = "/" if method == "DownloadDataFiles" else f"/{body['ownerSlug']}/{body['datasetSlug']}/"
                self._send(302, b"", "text/plain", Location=f"http://localhost/file{slug}{name}")
                return
            answer = getattr(self.kaggle, method, lambda body: (501, f"{method}: not played here"))(body)
        if isinstance(answer, tuple):
            self._refuse(*answer)
        else:
            self._send(200, json.dumps(answer).encode(), "application/json")

    def do_GET(self) -> None:
        path = self._path()
        if path is None:
            return
        if wanted := self.headers.get("Range"):
            self.kaggle.ranges.append(wanted)
        if self._struck(path, b""):
            return
        parts = path.strip("/").split("/")
        if parts[0] == "output":
            data = self.kaggle.kernels["/".join(parts[1:3])].files["/".join(parts[3:])]
        elif parts == ["file", "archive.zip"]:
            data = self.kaggle.competition_zip
        else:
            data = self.kaggle.datasets["/".join(parts[1:3])][-1]["files"][parts[3]]
        modified = formatdate(1_700_000_000, usegmt=True)
        if wanted:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self._send(206, data[start:], "application/zip", **{"Last-Modified": modified, "Accept-Ranges": "bytes"})
        else:
            self._send(200, data, "application/zip", **{"Last-Modified": modified, "Accept-Ranges": "bytes"})

    def do_PUT(self) -> None:
        path = self._path()
        if path is None:
            return
        length = int(self.headers.get("Content-Length", 0))
        blob = self.kaggle.blobs.get(path.rsplit("/", 1)[1])
        if blob is None:
            self.rfile.read(length)
            self._refuse(404, None)
            return
        span = self.headers.get("Content-Range", "")
        if span:
            blob.ranges.append(span)
        fault = self.kaggle.take_fault(path, length)
        if fault and fault.cut_after is not None:
            # Piece by piece, so that what a killed client had sent is kept.
            while len(blob.data) < min(fault.cut_after, length):
                blob.data += self.rfile.read(min(100_000, fault.cut_after - len(blob.data)))
            if fault.hold:
                fault.hold.wait(30)
            self.close_connection = True
            return
        data = self.rfile.read(length)
        if fault:
            self._refuse(fault.status, fault.message)
            return
        if span.startswith("bytes */"):
            pass
        elif span:
            start = int(span.split()[1].split("-")[0])
            blob.data[start:] = data
        else:
            blob.data = bytearray(data)
        if len(blob.data) == blob.size:
            self._send(200, b"{}", "application/json")
        else:
            held = {"Range": f"bytes=0-{len(blob.data) - 1}"} if blob.data else {}
            self._send(308, b"", "text/plain", **held)

    def _struck(self, path: str, raw: bytes) -> bool:
        fault = self.kaggle.take_fault(path, len(raw))
        if fault is None:
            return False
        if fault.answer is not None:
            self._send(200, json.dumps(fault.answer).encode(), "application/json")
        elif fault.hold and fault.cut_after is None:
            fault.hold.wait(30)
            self.close_connection = True
        elif fault.cut_after is not None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.kaggle.competition_zip)))
            self.send_header("Last-Modified", formatdate(1_700_000_000, usegmt=True))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            self.wfile.write(self.kaggle.competition_zip[: fault.cut_after])
            if fault.hold:
                fault.hold.wait(30)
            self.close_connection = True
        else:
            self._refuse(fault.status, fault.message)
        return True

    def _refuse(self, status: int, message: str | None) -> None:
        if message is None:
            self._send(status, b"<html>sorry</html>", "text/html")
        else:
            self._send(status, json.dumps({"code": status, "message": message}).encode(), "application/json")

    def _send(self, status: int, data: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
