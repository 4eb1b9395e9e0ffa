"""`publish` in a small repository: what it refuses, what it does once, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from kaggle_server import REHEARSAL, KaggleServer
from kaggle_world import COMPETITION, DATASET, IMPATIENT, KERNEL, SETTINGS, commit, dvc, head, make_package, run
from support import ROOT

from pipeline.competitions.task import Competition
from pipeline.config import load_params
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.kaggle import preview, push
from pipeline.kaggle import publish as publishing
from pipeline.kaggle.credentials import NO_CREDENTIALS
from pipeline.kaggle.dataset import RUN_TIMINGS, content_hash
from pipeline.kaggle.preview import preview_publish
from pipeline.kaggle.publish import RECORD, publish
from pipeline.kaggle.push import KERNEL_METADATA
from pipeline.ledger.ledger import NO_SCORE
from pipeline.machines import MACHINES
from pipeline.package.bases import bases_of


def go(lmsys: Competition, allow_dirty: bool = False, again: bool = False) -> None:
    publish(load_params().package, lmsys, allow_dirty, again, IMPATIENT)


def uploaded(server: KaggleServer) -> None:
    """Lets Kaggle have the package already."""
    notes = f"podium {content_hash(Path('artifacts/package'))} commit c0ffee"
    server.datasets[DATASET] = [{"notes": notes, "files": {}}]


def refusal(lmsys: Competition) -> str:
    with pytest.raises(PodiumError) as caught:
        go(lmsys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_first_run_and_repeats(
    server: KaggleServer, repository: Path, lmsys: Competition, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "lb.json").write_text(NO_SCORE.replace("null", "1", 1))
    before = commit(repository, "a score of another commit")
    gpu = {"timeUsed": "44280s", "totalTimeAllowed": "108000s"}
    server.quota = {"quotaRefreshTime": "2026-12-05T00:00:00Z", "gpuQuota": gpu}
    server.dataset_states = ["BLOBS_RECEIVED", "READY"]
    go(lmsys)

    pushed = server.called("SaveKernel")[0]
    assert pushed["text"] == (ROOT / "kaggle_kernels/inference/main.py").read_text()
    assert pushed["slug"] == KERNEL  # the name comes from the credentials: params.yaml has the placeholder
    assert pushed["machineShape"] == "NvidiaTeslaT4"
    assert pushed["sessionTimeoutSeconds"] == 600
    assert pushed["enableInternet"] is False
    assert pushed["enableGpu"] is True
    assert pushed["isPrivate"] is True
    assert pushed["datasetDataSources"] == [DATASET]
    assert pushed["competitionDataSources"] == [COMPETITION]
    # One commit on top: the kernel's metadata with the user's name, lb.json without a score.
    assert run("git", "rev-parse", "HEAD^", cwd=repository).stdout.strip() == before
    assert (repository / "lb.json").read_text() == NO_SCORE
    assert read_json(repository / "kaggle_kernels/inference/kernel-metadata.json")["id"] == KERNEL
    assert run("git", "status", "--porcelain", cwd=repository).stdout == ""
    told = capsys.readouterr().out
    assert f"dataset {DATASET}: blobs_received" in told
    quota = "GPU quota: 17.70h of 30.00h left until 2026-12-05T00:00; a run takes at most 10 min"
    assert quota in told
    assert "kernel: dress rehearsal on Python 3.11" in told
    assert "dress rehearsal on Kaggle: 20 s; predicted for 25,000 hidden rows: 1 h 23 min, 836% of the budget" in told
    assert read_json(RECORD)["predicted_seconds"] == REHEARSAL["hidden"]["upper_seconds"]
    assert read_json(RUN_TIMINGS) == REHEARSAL["timings"]

    done, calls = head(repository), len(server.calls)
    go(lmsys)
    assert head(repository) == done
    assert [name for name, _ in server.calls[calls:]] == [
        *("GetDataset", "GetDatasetStatus"),
        *("GetDatasetMetadata", "DownloadDataset"),  # version 1 of a dataset has no notes
    ]
    assert "version 1 has this code and data, nothing to push" in capsys.readouterr().out

    # What the README says: after one `publish` the plain command works.
    plain = run(
        str(Path(sys.executable).with_name("kaggle")),
        "kernels",
        "push",
        "-p",
        "kaggle_kernels/inference",
        cwd=repository,
    )
    assert "Kernel version 2 successfully pushed" in plain.stdout

    main = repository / "kaggle_kernels/inference/main.py"
    main.write_text(main.read_text() + "# Changed.\n")
    dvc("commit", "-f", "-q", cwd=repository)
    commit(repository, "other code")
    go(lmsys)
    assert server.kernels[KERNEL].version == 3
    assert len(server.datasets[DATASET]) == 1


@pytest.mark.slow
def test_an_interrupted_wait_goes_on_without_another_push(
    server: KaggleServer, repository: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "check_fresh", lambda: None)
    uploaded(server)
    server.fault("GetKernelSessionStatus", status=403, message="not now")
    assert refusal(lmsys).startswith("kaggle kernels status: 403: ")
    kernel_run = server.kernels[KERNEL]
    kernel_run.states, whole = ["COMPLETE"], kernel_run.files

    kernel_run.files = whole | {"rehearsal.json": json.dumps(REHEARSAL | {"rungs": ["prior"]}).encode()}
    assert "rungs: expected ['prior', 'words'], found ['prior']" in refusal(lmsys)
    assert read_json(RECORD)["complete"] is False
    kernel_run.files = whole
    go(lmsys)
    assert read_json(RECORD)["complete"] is True
    assert len(server.called("SaveKernel")) == 1

    # The score of this very push stays, and goes where it is pushed again.
    run("git", "tag", "-a", "sub-1", "-m", json.dumps({"content": read_json(RECORD)["made_of"]}), cwd=repository)
    (repository / "lb.json").write_text(NO_SCORE.replace("null", "1", 1))
    scored = commit(repository, "its score")
    go(lmsys)
    assert head(repository) == scored
    server.fault("SaveKernel", status=400, message="here it is pushed again")
    with pytest.raises(PodiumError, match="here it is pushed again"):
        go(lmsys, again=True)
    assert (repository / "lb.json").read_text() == NO_SCORE


def test_a_dirty_tree_is_refused_unless_allowed(server: KaggleServer, repository: Path, lmsys: Competition) -> None:
    (repository / "notes.txt").write_text("x")
    (repository / "lb.json").write_text("{}")
    told = refusal(lmsys)
    assert told.startswith("a submission is a commit, but lb.json, notes.txt changed since the last one: ")
    assert "`git add -A && git commit -m 'what is new'` (or ARGS=--allow-dirty)" in told
    assert server.calls == []
    (repository / "lb.json").write_text(NO_SCORE)
    server.fault("GetDataset", status=400, message="here the upload would begin")
    with pytest.raises(PodiumError, match="here the upload would begin"):
        go(lmsys, allow_dirty=True)


@pytest.mark.parametrize(
    ("rehearsal", "expected"),
    [
        ({"valid": False}, "metrics/rehearsal.json: valid: expected true, found false; run `dvc repro -f rehearse`"),
        (None, "metrics/rehearsal.json: expected the rehearsal of the package, found none; run `dvc repro`"),
    ],
)
def test_without_a_rehearsal_nothing_is_sent(
    server: KaggleServer, repository: Path, lmsys: Competition, rehearsal: dict | None, expected: str
) -> None:
    if rehearsal is None:
        (repository / "metrics/rehearsal.json").unlink()
    else:
        write_json(repository / "metrics/rehearsal.json", rehearsal)
    commit(repository, "rehearsed badly")
    assert refusal(lmsys) == expected
    assert server.calls == []


def test_a_package_older_than_its_params_is_refused(server: KaggleServer, repository: Path, lmsys: Competition) -> None:
    text = (repository / "params.yaml").read_text()
    (repository / "params.yaml").write_text(text.replace("seed: 500", "seed: 600"))
    commit(repository, "params without a run")
    assert refusal(lmsys) == ("the package is older than what it is made of (rehearse has changed); run `dvc repro`")
    shutil.rmtree(repository / "artifacts/package")
    assert refusal(lmsys) == "artifacts/package/MANIFEST.json: no such file; run `dvc repro`"
    assert server.calls == []


def test_without_credentials_or_name_nothing_is_sent(
    server: KaggleServer, repository: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_USERNAME")
    assert refusal(lmsys) == NO_CREDENTIALS
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token")
    assert refusal(lmsys) == "params.yaml: package.owner: expected your Kaggle name, found your-kaggle-name"
    assert server.requests == []


@pytest.mark.parametrize("stage", ["download", "publish", "submit", "sync_lb", "compare"])
def test_a_command_says_in_one_line_what_is_missing(server: KaggleServer, repository: Path, stage: str) -> None:
    done = run(
        *(sys.executable, "-m", f"stages.{stage}"),
        cwd=repository,
        check=False,
        PYTHONPATH=f"{os.environ['PYTHONPATH']}{os.pathsep}{ROOT}",
        KAGGLE_KEY="",
    )
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"error: no (Kaggle credentials found|tag sub-N): .*\n", done.stderr)
    assert server.requests == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"title": "x"}'])
def test_metadata_that_cannot_be_filled_in_is_named(repository: Path, lmsys: Competition, text: str) -> None:
    KERNEL_METADATA.write_text(text)
    with pytest.raises(PodiumError, match=r"kernel-metadata\.json: expected JSON with an id .* `git checkout"):
        preview_publish(load_params().package, lmsys)


def test_a_dry_run_shows_what_would_be_sent(
    server: KaggleServer, repository: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = preview_publish(load_params().package, lmsys)
    assert f"dataset {DATASET}, unless its notes say: podium " in shown
    assert "members.zip (1 files): 0.02 MB" in shown
    assert f'"id": "{KERNEL}"' in shown
    assert "kaggle kernels push -p kaggle_kernels/inference -t 600 --accelerator NvidiaTeslaT4" in shown
    assert server.requests == []
    assert run("git", "status", "--porcelain", cwd=repository).stdout == ""


@pytest.mark.parametrize("machine", ["l4x4", pytest.param("cpu", marks=pytest.mark.slow)])
def test_the_machine_is_asked_for_by_kaggles_own_name(
    server: KaggleServer, repository: Path, lmsys: Competition, machine: str
) -> None:
    settings = replace(load_params().package, machine=machine, owner="somebody")
    uploaded(server)
    write_json(KERNEL_METADATA, push.filled_metadata(settings, lmsys))
    assert push.push(KERNEL, settings, IMPATIENT) == 1
    body = server.called("SaveKernel")[0]
    assert (body.get("machineShape", ""), body.get("enableGpu", False)) == (
        MACHINES[machine].shape,
        MACHINES[machine].count > 0,
    )


def test_the_kernel_gets_the_package_and_its_bases(
    repository: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_package(Path("artifacts/package"), base=3)
    (digest,) = bases_of(Path("artifacts/package")).values()
    apart = f"somebody/podium-base-{digest[:16]}"
    assert push.filled_metadata(SETTINGS, lmsys)["dataset_sources"] == [DATASET, apart]
    monkeypatch.setattr(preview, "check_package", lambda: None)
    shown = preview_publish(SETTINGS, lmsys)
    assert f"dataset {apart}, once: pretrained/llama-nf4, 0.02 MB" in shown
    assert "pretrained.zip (1 files): 0.00 MB" in shown


def test_a_quota_that_is_not_told_stops_nothing(server: KaggleServer, folder: Path) -> None:
    settings = replace(SETTINGS, budget_seconds=32400)
    assert push.quota(settings, IMPATIENT) == (
        "GPU quota: not told (kaggle: expected JSON, found 'No quota information available'); "
        "a run takes at most 9 h 00 min"
    )
    server.fault("GetAcceleratorQuotaStatistics", status=403, message="not for you")
    assert "not told (kaggle quota --format: 403: not for you); a run takes" in push.quota(settings, IMPATIENT)
    calls = len(server.calls)
    assert push.quota(replace(settings, machine="cpu"), IMPATIENT) == "GPU quota: package.machine cpu takes none"
    assert len(server.calls) == calls


def test_a_prediction_needs_the_number_of_hidden_rows() -> None:
    assert push.predicted_seconds({"hidden": {"upper_seconds": 50.0}}) == 50.0
    assert push.predicted_seconds({"hidden": None}) is None


def test_a_log_that_is_no_json_is_shown_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("one\n\ntwo\n")
    assert push.log_lines(tmp_path / "x.log") == ["one", "two"]
    assert push.log_lines(tmp_path / "none.log") == []
