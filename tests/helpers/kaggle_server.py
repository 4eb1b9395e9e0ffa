"""A small Kaggle on the loopback interface, for the real CLI: it keeps state, records every call, and fails on demand.

The CLI can be told to talk to http://localhost, port 80; the proxy settings in `environment` carry that to our port
without rights on port 80. So a request for any other host arrives here too, and is recorded and refused.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.helpers.kaggle_http import Fault, Handler

GUARD = Path(__file__).parent / "guard"
USER, KEY = "somebody", "5ecre7key5ecre7key5ecre7key00000"


@dataclass
class Blob:
    """One upload: what has arrived of it."""

    name: str
    size: int
    data: bytearray = field(default_factory=bytearray)
    ranges: list[str] = field(default_factory=list)


@dataclass
class Kernel:
    """A pushed kernel's newest version."""

    version: int
    body: dict[str, Any]
    states: list[str]
    """What status calls say, one after another; the last one stays."""
    log: str
    files: dict[str, bytes]
    failure: str = ""


class KaggleServer:
    """Use it as a context manager; `environment` is what a process needs to talk to it and to nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.requests: list[str] = []
        self.foreign: list[str] = []
        self.faults: list[Fault] = []
        self.blobs: dict[str, Blob] = {}
        self.competition_zip = b""
        self.ranges: list[str] = []
        self.datasets: dict[str, list[dict[str, Any]]] = {}
        self.dataset_states: list[str] = ["READY"]
        self.kernels: dict[str, Kernel] = {}
        self.submissions: list[dict[str, Any]] = []
        self.run: Callable[[dict[str, Any]], Kernel] = default_run
        self.score: Callable[[dict[str, Any]], dict[str, Any]] = lambda submission: {}
        self.quota: dict[str, Any] = {}
        self.lock = threading.RLock()

    def __enter__(self) -> KaggleServer:
        server = self

        class Ours(Handler):
            kaggle = server

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Ours)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """Credentials, the way to this server, and a guard in every Python process that refuses all other ways."""
        proxy = f"http://127.0.0.1:{self.port}"
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"), proxy)
        return proxies | {
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "HOME": str(home),
            "KAGGLE_CONFIG_DIR": str(home / ".kaggle"),
            "KAGGLE_USERNAME": USER,
            "KAGGLE_KEY": KEY,
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "PODIUM_GUARD_LOG": str(self.guard_log),
            "PODIUM_GUARD_PORT": str(self.port),
            "PYTHONPATH": str(GUARD),
        }

    @property
    def guard_log(self) -> Path:
        """One line for every other address that a Python process tried to reach."""
        return self.folder / "contacted"

    def contacted(self) -> list[str]:
        """Everything but this server that was asked for, through the proxy or past it."""
        past = self.guard_log.read_text().splitlines() if self.guard_log.exists() else []
        return [*self.foreign, *past]

    def called(self, method: str) -> list[dict[str, Any]]:
        """Bodies of all calls of an API method, in order."""
        return [body for name, body in self.calls if name == method]

    def fault(self, match: str, **settings: Any) -> Fault:
        """Adds a fault; faults are used up in order."""
        self.faults.append(Fault(match, **settings))
        return self.faults[-1]

    def take_fault(self, path: str, length: int) -> Fault | None:
        """The fault that strikes a request to `path`, if any."""
        with self.lock:
            for fault in self.faults:
                if fault.match in path and fault.times > 0 and length >= fault.least:
                    if fault.skip > 0:
                        fault.skip -= 1
                        return None
                    fault.times -= 1
                    return fault
        return None

    # Each API method by its name: body -> answer, or (status, message).

    def GetDataset(self, body: dict[str, Any]) -> Any:
        versions = self.datasets.get(f"{body['ownerSlug']}/{body['datasetSlug']}")
        if not versions:
            return 403, "Permission 'datasets.get' was denied"
        listed = [{"versionNumber": n, "versionNotes": v["notes"]} for n, v in enumerate(versions, start=1)]
        return {"currentVersionNumber": len(versions), "versions": listed}

    def GetDatasetMetadata(self, body: dict[str, Any]) -> Any:
        return {"info": {"datasetSlug": body["datasetSlug"], "ownerUser": body["ownerSlug"], "licenses": []}}

    def GetDatasetStatus(self, body: dict[str, Any]) -> Any:
        if f"{body['ownerSlug']}/{body['datasetSlug']}" not in self.datasets:
            return 404, "Not found"
        return {"status": self.dataset_states.pop(0) if len(self.dataset_states) > 1 else self.dataset_states[0]}

    def StartBlobUpload(self, body: dict[str, Any]) -> Any:
        token = f"blob-{len(self.blobs)}"
        self.blobs[token] = Blob(body.get("name") or body["fileName"], body["contentLength"])
        return {"token": token, "createUrl": f"http://localhost/upload/{token}?signature=sig-secret"}

    def StartSubmissionUpload(self, body: dict[str, Any]) -> Any:
        return self.StartBlobUpload(body)

    def CreateDataset(self, body: dict[str, Any]) -> Any:
        return self._version(f"{body['ownerSlug']}/{body['slug']}", "", body)

    def CreateDatasetVersion(self, body: dict[str, Any]) -> Any:
        return self._version(f"{body['ownerSlug']}/{body['datasetSlug']}", body["body"]["versionNotes"], body["body"])

    def _version(self, dataset: str, notes: str, body: dict[str, Any]) -> Any:
        blobs = [self.blobs[file["token"]] for file in body["files"]]
        files = {blob.name: bytes(blob.data) for blob in blobs}
        self.datasets.setdefault(dataset, []).append({"notes": notes, "files": files})
        return {"status": "ok", "url": f"https://www.kaggle.com/datasets/{dataset}"}

    def SaveKernel(self, body: dict[str, Any]) -> Any:
        slug = body["slug"]
        version = self.kernels[slug].version + 1 if slug in self.kernels else 1
        kernel = self.run(body)
        kernel.version = version
        self.kernels[slug] = kernel
        unknown = [name for name in body.get("datasetDataSources", []) if name not in self.datasets]
        found = {"versionNumber": version, "url": f"https://www.kaggle.com/code/{slug}"}
        return found | ({"invalidDatasetSources": unknown} if unknown else {})

    def GetKernelSessionStatus(self, body: dict[str, Any]) -> Any:
        kernel = self.kernels.get(f"{body['userName']}/{body['kernelSlug']}")
        if kernel is None:
            return 403, "Permission 'kernels.get' was denied"
        state = kernel.states.pop(0) if len(kernel.states) > 1 else kernel.states[0]
        return {"status": state} | ({"failureMessage": kernel.failure} if state == "ERROR" and kernel.failure else {})

    def ListKernelSessionOutput(self, body: dict[str, Any]) -> Any:
        slug = f"{body['userName']}/{body['kernelSlug']}"
        files = [{"fileName": n, "url": f"http://localhost/output/{slug}/{n}"} for n in self.kernels[slug].files]
        return {"files": files, "log": self.kernels[slug].log, "nextPageToken": ""}

    def GetAcceleratorQuotaStatistics(self, body: dict[str, Any]) -> Any:
        return self.quota

    def CreateCodeSubmission(self, body: dict[str, Any]) -> Any:
        return self._submission(body | {"fileName": body.get("fileName", "submission.csv")})

    def CreateSubmission(self, body: dict[str, Any]) -> Any:
        blob = self.blobs[body["blobFileTokens"]]
        return self._submission(body | {"fileName": blob.name, "content": bytes(blob.data)})

    def _submission(self, body: dict[str, Any]) -> Any:
        made = {
            "ref": 100 + len(self.submissions),
            "date": f"2026-03-{len(self.submissions) + 1:02}T12:00:00.000Z",
            "description": body.get("submissionDescription", ""),
            "fileName": body["fileName"],
            "status": "PENDING",
            "publicScore": "",
            "privateScore": "",
        }
        self.submissions.append(made | self.score(body))
        return {"message": f"Successfully submitted to {body['competitionName']}", "ref": made["ref"]}

    def GetSubmissionLimits(self, body: dict[str, Any]) -> Any:
        return {"numAllowedNow": 4, "numToday": 1, "numTotal": 1}

    def ListSubmissions(self, body: dict[str, Any]) -> Any:
        return {"submissions": list(reversed(self.submissions))}

    def IntrospectToken(self, body: dict[str, Any]) -> Any:
        return {"active": True, "username": USER}


def default_run(body: dict[str, Any]) -> Kernel:
    """A kernel that finishes at once and leaves what the real one's dress rehearsal leaves."""
    log = json.dumps([{"stream_name": "stdout", "time": 1.5, "data": "dress rehearsal on Python 3.11\n"}])
    files = {"rehearsal.json": json.dumps(REHEARSAL).encode(), "submission.csv": b"id,winner_model_a\n1,0.5\n"}
    return Kernel(0, body, ["QUEUED", "COMPLETE"], log, files | {"scratch.bin": b"not fetched"})


REHEARSAL = {
    "budget_seconds": 600.0,
    "elapsed_seconds": 20.0,
    "rungs": ["prior", "words"],
    "rows": 3,
    "rows_per_rung": {"words": 3},
    "parity": {"words": {"max": 0.0, "mean": 0.0}},
    "parity_max_abs_diff": 0.0,
    "plan": [{"member": "words", "fold": fold, "status": "done", "seconds": 3.5} for fold in (0, 1)],
    "timings": {"words": {"cpu": {"load": 0.5, "a": 0.1, "b": 1.0e-6, "c": 0.0, "noise": 0.1}}},
    "hidden": {"rows": 25000, "seconds": 4000.0, "upper_seconds": 5013.0},
}


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Polls until `condition` holds; fails the test where it never does."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found
