"""The package's way to Kaggle: sent once, whole or not at all, and going on where it was cut off."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from kaggle_server import KaggleServer, wait_for
from kaggle_world import DATASET, IMPATIENT, OTHER, SETTINGS, make_package
from support import ROOT

from pipeline.artifacts import Artifacts
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.kaggle import dataset, upload
from pipeline.kaggle.cli import STATE_FOLDER, KaggleError
from pipeline.package.bases import bases_of

PACKAGE = Artifacts().package


def send(limit: float = 60.0) -> int:
    return dataset.upload(PACKAGE, SETTINGS, "c0ffee", limit, IMPATIENT)


def sent(server: KaggleServer) -> dict[str, bytes]:
    return server.datasets[DATASET][-1]["files"]


def test_created_then_left_alone_then_a_new_version(server: KaggleServer, folder: Path) -> None:
    assert send() == 1
    body = server.called("CreateDataset")[0]
    assert body["title"] == "Some package"
    assert body["isPrivate"] is True
    assert set(sent(server)) == {"MANIFEST.json", "code.zip", "members.zip", "parity.parquet"}
    with zipfile.ZipFile(io.BytesIO(sent(server)["members.zip"])) as archive:
        weights = archive.read("words/fold0/model.safetensors")
    assert weights == (PACKAGE / "members/words/fold0/model.safetensors").read_bytes()
    uploads = len(server.blobs)

    assert send() == 1  # version 1 has no notes: its MANIFEST.json tells
    assert len(server.blobs) == uploads

    make_package(PACKAGE, seed=1)
    assert send() == 2
    wanted = dataset.content_hash(PACKAGE)
    assert server.called("CreateDatasetVersion")[0]["body"]["versionNotes"] == f"podium {wanted} commit c0ffee"
    uploads = len(server.blobs)
    assert send() == 2  # the notes tell
    assert len(server.blobs) == uploads
    assert not (STATE_FOLDER / "upload").exists()


def test_timings_go_along_and_are_no_reason_to_send_again(server: KaggleServer, folder: Path) -> None:
    write_json(dataset.RUN_TIMINGS, {"words": {}})
    assert send() == 1
    assert sent(server)["timings.json"] == dataset.RUN_TIMINGS.read_bytes()
    write_json(dataset.RUN_TIMINGS, {"words": {"t4": {"load": 1.0}}})
    assert send() == 1
    make_package(PACKAGE, seed=1)
    assert send() == 2
    assert sent(server)["timings.json"] == dataset.RUN_TIMINGS.read_bytes()


def test_what_is_sent_again_has_the_same_bytes(folder: Path) -> None:
    first = {path.name: path.read_bytes() for path in upload.stage_upload(PACKAGE, Path("one")).iterdir()}
    second = {path.name: path.read_bytes() for path in upload.stage_upload(PACKAGE, Path("two")).iterdir()}
    assert first == second
    assert "dataset-metadata.json" not in first


def test_a_file_that_is_not_the_manifests_is_refused(folder: Path) -> None:
    (PACKAGE / "members/words/fold0/model.safetensors").write_bytes(b"other")
    with pytest.raises(PodiumError, match=r"model.safetensors: expected a file as in MANIFEST.json, sha256"):
        upload.stage_upload(PACKAGE, Path("sent"))
    assert not Path("sent").exists()
    make_package(PACKAGE)
    (PACKAGE / "code/stray.py").write_bytes(b"")
    with pytest.raises(PodiumError, match=r"stray.py: expected a file as in MANIFEST.json, which does not name it"):
        upload.stage_upload(PACKAGE, Path("sent"))


def test_a_connection_cut_in_an_upload_costs_nothing(server: KaggleServer, folder: Path) -> None:
    server.fault("/upload/", cut_after=1000)
    assert send() == 1
    with zipfile.ZipFile(io.BytesIO(sent(server)["members.zip"])) as archive:
        assert archive.testzip() is None


def test_an_interrupted_upload_goes_on(server: KaggleServer, folder: Path) -> None:
    make_package(PACKAGE, size=3_000_000)
    hold = threading.Event()
    server.fault("/upload/", cut_after=2_000_000, hold=hold, least=3_000_000)  # the archive of the weights
    script = "from test_dataset import send; send()"
    paths = [os.environ["PYTHONPATH"], str(ROOT), str(ROOT / "tests" / "helpers"), str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, start_new_session=True)
    try:
        wait_for(lambda: any(len(blob.data) == 2_000_000 for blob in server.blobs.values()))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        hold.set()
    assert server.datasets == {}

    assert send() == 1
    cut = next(blob for blob in server.blobs.values() if blob.name == "members.zip")
    assert cut.ranges == [f"bytes */{cut.size}", f"bytes 2000000-{cut.size - 1}/{cut.size}"]
    assert len([blob for blob in server.blobs.values() if blob.name == "members.zip"]) == 1
    with zipfile.ZipFile(io.BytesIO(sent(server)["members.zip"])) as archive:
        assert archive.testzip() is None


def test_a_lost_file_makes_no_version_and_is_sent_again(server: KaggleServer, folder: Path) -> None:
    server.fault("/upload/blob-0", status=404)  # what an upload's address says after a week
    with pytest.raises(KaggleError, match=r"404: Upload unsuccessful: \S+; the version would lack it"):
        send()
    # Whether the CLI was stopped in time or not, that version is never taken for the package.
    assert read_json(dataset.INCOMPLETE) == [[DATASET, dataset.content_hash(PACKAGE)]]
    before = len(server.datasets.get(DATASET, []))
    assert send() == before + 1
    assert set(sent(server)) == {"MANIFEST.json", "code.zip", "members.zip", "parity.parquet"}
    assert read_json(dataset.INCOMPLETE) == []


def test_a_server_error_in_an_upload_is_tried_again(server: KaggleServer, folder: Path) -> None:
    server.fault("/upload/blob-0", status=500)
    assert send() == 1
    assert len(sent(server)) == 4


def test_a_version_that_was_made_in_spite_of_an_error_is_found(server: KaggleServer, folder: Path) -> None:
    server.datasets[DATASET] = [{"notes": OTHER, "files": {}}]
    make = server.CreateDatasetVersion
    server.CreateDatasetVersion = lambda body: (make(body), (502, "bad gateway"))[1]
    assert send() == 2
    assert len(server.datasets[DATASET]) == 2


def test_a_dataset_that_stays_pending_is_left_after_the_limit(
    server: KaggleServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.dataset_states = ["PENDING"]  # a state that this CLI does not know
    with pytest.raises(PodiumError, match=r"dataset \S+: still pending after \d+ s; run the same command again"):
        send(limit=0.0)
    assert f"dataset {DATASET}: pending, " in capsys.readouterr().out
    server.dataset_states = ["PENDING", "BLOBS_RECEIVED", "READY"]
    uploads = len(server.blobs)
    assert send() == 1
    assert len(server.blobs) == uploads
    assert f"dataset {DATASET}: blobs_received, " in capsys.readouterr().out


def test_a_dataset_that_failed_is_an_error(server: KaggleServer, folder: Path) -> None:
    server.dataset_states = ["FAILED"]
    with pytest.raises(PodiumError, match=f"dataset {DATASET}: Kaggle says failed"):
        send()


def test_sizes_beyond_kaggles_limits_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path("main.py")
    script.write_text("x = 1\n")
    upload.check_sizes(PACKAGE, script)
    with monkeypatch.context() as changed:
        changed.setattr(upload, "MOST_BYTES", 10_000)
        with pytest.raises(PodiumError, match=r"artifacts/package: expected at most 1e-05 GB, found 0\.0 GB"):
            upload.check_sizes(PACKAGE, script)
    for number in range(60):
        (PACKAGE / f"{number}").touch()
    with pytest.raises(PodiumError, match="artifacts/package: expected at most 50 files and folders, found 64"):
        upload.check_sizes(PACKAGE, script)
    make_package(PACKAGE)
    script.write_text("#" * 1_000_001)
    with pytest.raises(PodiumError, match=r"main\.py: expected at most 1,000,000 bytes, found 1,000,001"):
        upload.check_sizes(PACKAGE, script)


def test_a_base_travels_once_whatever_becomes_of_the_rest(
    server: KaggleServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_package(PACKAGE, base=7)
    (digest,) = bases_of(PACKAGE).values()
    apart = f"somebody/podium-base-{digest[:16]}"
    assert send() == 1
    assert set(server.datasets) == {DATASET, apart}
    (version,) = server.datasets[apart]
    assert set(version["files"]) == {"BASE.json", "base.zip"}
    assert hashlib.sha256(version["files"]["BASE.json"]).hexdigest() == digest
    with zipfile.ZipFile(io.BytesIO(version["files"]["base.zip"])) as archive:
        assert archive.read("model.safetensors") == (PACKAGE / "pretrained/llama-nf4/model.safetensors").read_bytes()
    with zipfile.ZipFile(io.BytesIO(sent(server)["pretrained.zip"])) as archive:
        assert archive.namelist() == ["llama/backbone.json"]

    before = dict(server.blobs)
    make_package(PACKAGE, seed=1, base=7)  # other members on the same base
    assert send() == 2
    assert f"dataset {apart}: version 1 holds this base, nothing to upload" in capsys.readouterr().out
    assert "base.zip" not in {blob.name for token, blob in server.blobs.items() if token not in before}

    make_package(PACKAGE, base=8)
    assert set(bases_of(PACKAGE).values()).isdisjoint({digest})  # old kernel versions go on finding theirs
    (PACKAGE / "pretrained/llama-nf4/model.safetensors").write_bytes(b"other")
    with pytest.raises(PodiumError, match=r"model.safetensors: expected a file as in MANIFEST.json, sha256"):
        upload.stage_base(PACKAGE, "pretrained/llama-nf4", Path("staged"))


@pytest.mark.slow
def test_a_base_that_lost_a_file_is_sent_again_before_the_package(server: KaggleServer, folder: Path) -> None:
    make_package(PACKAGE, base=7)
    (digest,) = bases_of(PACKAGE).values()
    apart = f"somebody/podium-base-{digest[:16]}"
    server.fault("/upload/blob-1", status=404)
    with pytest.raises(KaggleError, match="the version would lack it"):
        send()
    assert DATASET not in server.datasets
    assert read_json(dataset.INCOMPLETE) == [[apart, digest]]
    send()
    assert set(server.datasets[apart][-1]["files"]) == {"BASE.json", "base.zip"}
    assert read_json(dataset.INCOMPLETE) == []
