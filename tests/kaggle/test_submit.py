"""From a published commit to its score: sub-N, lb.json, ledger.csv, lb-N, each once, whatever happens in between."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from kaggle_server import KaggleServer
from kaggle_world import COMPETITION, IMPATIENT, KERNEL, SETTINGS, commit, experiment, head, lb, run

from pipeline.artifacts import CV_METRICS
from pipeline.competitions.task import Competition
from pipeline.config import load_params
from pipeline.errors import PodiumError
from pipeline.files import write_json
from pipeline.kaggle.dataset import content_hash
from pipeline.kaggle.preview import preview_submit
from pipeline.kaggle.publish import PACKAGE, RECORD, Published, commit_published, owned, push_hash
from pipeline.kaggle.push import filled_metadata
from pipeline.kaggle.submit import SUBMISSION_FILE, description, submit
from pipeline.kaggle.sync import sync
from pipeline.ledger.git import git, numbered_tags, tag_message
from pipeline.ledger.ledger import NO_SCORE, parse_ledger


def published(lmsys: Competition, version: int = 3) -> None:
    """What `publish` leaves after a good run, without the calls that it makes."""
    settings = owned(load_params().package)
    metadata = filled_metadata(settings, lmsys)
    commit_published(metadata)
    made_of = push_hash(metadata, settings.budget_seconds, 2)
    record = Published(KERNEL, version, made_of, content_hash(PACKAGE), 2, True, 20.0, 4000.0)
    write_json(RECORD, asdict(record))


def go(competition: Competition, again: bool = False) -> str:
    return submit(load_params().package, competition, False, again, IMPATIENT)


def refusal(competition: Competition, again: bool = False) -> str:
    with pytest.raises(PodiumError) as caught:
        go(competition, again)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def scored(server: KaggleServer, number: int, public: str, private: str = "", status: str = "COMPLETE") -> None:
    server.submissions[number - 1] |= {"status": status, "publicScore": public, "privateScore": private}


def ledger(root: Path, revision: str) -> list:
    return parse_ledger(run("git", "show", f"{revision}:ledger.csv", cwd=root).stdout)


def parent(root: Path, revision: str) -> str:
    return run("git", "rev-parse", f"{revision}^", cwd=root).stdout.strip()


def test_a_commit_is_submitted_once_and_its_score_comes_home(
    server: KaggleServer, repository: Path, lmsys: Competition, capsys: pytest.CaptureFixture[str]
) -> None:
    published(lmsys)
    first = head(repository)
    assert preview_submit(load_params().package, lmsys) == (
        f"kaggle competitions submit {COMPETITION} -k {KERNEL} -v 3 -f submission.csv "
        f"-m 'podium sub-1 commit {first} cv 1.05000'"
    )
    assert server.requests == []
    assert go(lmsys) == "sub-1"
    assert server.called("CreateCodeSubmission") == [
        {
            "competitionName": COMPETITION,
            "kernelOwner": "somebody",
            "kernelSlug": "podium-inference",
            "kernelVersion": 3,
            "fileName": "submission.csv",
            "submissionDescription": f"podium sub-1 commit {first} cv 1.05000",
        }
    ]
    assert numbered_tags("sub") == {1: first}
    assert json.loads(tag_message("sub-1"))["elapsed_seconds"] == 20.0
    told = capsys.readouterr().out
    assert told.index("predicted for 25,000 hidden rows: 1 h 06 min") < told.index("submitted to")

    calls = len(server.calls)
    assert go(lmsys) == "sub-1"
    told = f"nothing: kernel version 3 has been submitted as sub-1, commit {first[:8]}"
    assert preview_submit(load_params().package, lmsys) == told
    assert len(server.calls) == calls
    run("git", "tag", "-d", "sub-1", cwd=repository)  # as if the first run had been killed before it set the tag
    assert go(lmsys) == "sub-1"
    assert len(server.submissions) == 1

    sync(lmsys, 0.0, IMPATIENT)
    assert head(repository) == first
    assert "no score yet for sub-1" in capsys.readouterr().out

    scored(server, 1, "1.06543")
    sync(lmsys, 60.0, IMPATIENT)
    assert numbered_tags("lb") == {1: head(repository)}
    assert parent(repository, "lb-1") == first
    assert lb(repository) == {
        "submission": 1,
        "commit": first,
        "public": 1.06543,
        "private": None,
        "runtime_seconds": 20.0,
        "status": "complete",
    }
    entry = ledger(repository, "HEAD")[0]
    assert (entry.cv, entry.cv_error, entry.predicted_seconds, entry.budget_seconds) == (1.05, 0.004, 4000.0, 600.0)
    assert run("git", "status", "--porcelain", cwd=repository).stdout == ""

    done = head(repository)
    sync(lmsys, 0.0, IMPATIENT)
    assert head(repository) == done
    scored(server, 1, "1.06543", "1.08")
    sync(lmsys, 0.0, IMPATIENT)
    assert lb(repository, "lb-1")["private"] == 1.08
    assert parent(repository, "lb-1") == done
    assert len(ledger(repository, "HEAD")) == 1

    # HEAD is another commit now, with a score; but nothing that would score differently.
    calls = len(server.calls)
    assert go(lmsys) == "sub-1"
    assert len(server.calls) == calls
    assert f"kernel version 3 has been submitted as sub-1, commit {first[:8]}" in capsys.readouterr().out
    with pytest.raises(PodiumError, match=r"lb\.json: expected nulls, found a score"):
        go(lmsys, again=True)


@pytest.mark.slow
def test_a_commit_that_is_submitted_again_has_two_scores(
    server: KaggleServer, repository: Path, lmsys: Competition
) -> None:
    published(lmsys)
    assert go(lmsys) == "sub-1"
    server.fault("CreateCodeSubmission", status=400, message="no submissions left today")
    assert "400: no submissions left today" in refusal(lmsys, again=True)  # the first one is not taken for it
    assert go(lmsys, again=True) == "sub-2"
    assert set(numbered_tags("sub").values()) == {head(repository)}
    scored(server, 1, "1.06")
    scored(server, 2, "1.05")
    sync(lmsys, 0.0, IMPATIENT)
    assert [entry.public for entry in ledger(repository, "HEAD")] == [1.06, 1.05]

    # Kaggle lists the newest submissions only: what has its score already is not waited for.
    del server.submissions[0]
    sync(lmsys, 60.0, IMPATIENT)
    assert [entry.public for entry in ledger(repository, "HEAD")] == [1.06, 1.05]


def test_work_that_goes_on_meanwhile_stays_as_it_is(server: KaggleServer, repository: Path, lmsys: Competition) -> None:
    published(lmsys)
    server.submissions.append({"ref": 7, "date": "2026-03-01T12:00:00", "fileName": "x"})
    server.submissions[0] |= {"description": f"podium sub-1 commit {head(repository)} cv 1.05", "status": "PENDING"}
    assert go(lmsys) == "sub-1"  # Kaggle has it already
    sent = head(repository)
    later = experiment(repository, 1, 1.02)
    (repository / "params.yaml").write_text((repository / "params.yaml").read_text() + "# an idea\n")
    (repository / "staged.txt").write_text("x")
    run("git", "add", "staged.txt", cwd=repository)
    scored(server, 1, "1.06", status="ERROR")
    sync(lmsys, 0.0, IMPATIENT)
    assert parent(repository, "lb-1") == sent
    assert lb(repository, "lb-1")["status"] == "error"
    assert parent(repository, "HEAD") == later
    assert lb(repository) == json.loads(NO_SCORE)
    assert len(ledger(repository, "HEAD")) == 1
    changed = run("git", "status", "--porcelain", cwd=repository).stdout.splitlines()
    assert changed == [" M params.yaml", "A  staged.txt"]


def test_what_has_not_been_published_is_not_submitted(
    server: KaggleServer, repository: Path, lmsys: Competition
) -> None:
    assert refusal(lmsys) == "no kernel has finished its dress rehearsal on Kaggle; run `make publish`"
    published(lmsys)
    (repository / "lb.json").write_text(NO_SCORE.replace("null", "1", 1))
    commit(repository, "a score of another commit")
    assert "lb.json: expected nulls, found a score" in refusal(lmsys)
    experiment(repository, 1, 1.02)
    assert refusal(lmsys) == "kernel version 3 is older than the package or its code; run `make publish`"
    shutil.rmtree("artifacts/package")
    assert refusal(lmsys) == "artifacts/package/MANIFEST.json: no such file; run `dvc repro`"
    (repository / "params.yaml").write_text("x")
    with pytest.raises(PodiumError, match=r"but params\.yaml changed since the last one"):
        submit(SETTINGS, lmsys, False, False, IMPATIENT)
    assert server.calls == []


def test_a_file_competition_gets_its_file(server: KaggleServer, repository: Path, spooky: Competition) -> None:
    (repository / "lb.json").write_text(NO_SCORE.replace("null", "1", 1))
    commit(repository, "a score of another commit")
    assert refusal(spooky) == "artifacts/rehearsal/submission.csv: no such file; run `dvc repro`"
    SUBMISSION_FILE.parent.mkdir(parents=True)
    SUBMISSION_FILE.write_text("id,EAP,HPL,MWS\na,1,0,0\n")
    assert go(spooky) == "sub-1"
    assert lb(repository) == json.loads(NO_SCORE)
    body = server.called("CreateSubmission")[0]
    assert body["submissionDescription"] == f"podium sub-1 commit {head(repository)} cv 1.05000"
    assert server.blobs[body["blobFileTokens"]].data == SUBMISSION_FILE.read_bytes()
    assert json.loads(tag_message("sub-1"))["elapsed_seconds"] == 12.5
    assert go(spooky) == "sub-1"
    assert len(server.submissions) == 1


@pytest.mark.parametrize("fault", ["no identity", "no key"])
def test_no_submission_is_spent_that_could_not_be_tagged(
    server: KaggleServer, repository: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    published(lmsys)
    if fault == "no identity":
        for name in ("AUTHOR", "COMMITTER"):
            monkeypatch.delenv(f"GIT_{name}_NAME")
            monkeypatch.delenv(f"GIT_{name}_EMAIL")
        git("config", "user.useConfigOnly", "true")
    else:
        git("config", "tag.gpgSign", "true")
        git("config", "gpg.program", "false")
    line = refusal(lmsys)
    assert line.startswith("no tag can be made here, and each submission gets one: git tag: ")
    assert server.called("CreateCodeSubmission") == []
    assert git("tag") == ""


@pytest.mark.parametrize("text", [None, "{", '{"stack": {}}'])
def test_a_submission_needs_a_cv(repository: Path, text: str | None) -> None:
    CV_METRICS.unlink() if text is None else CV_METRICS.write_text(text)
    with pytest.raises(PodiumError, match=r"^metrics/cv\.json: .*run `dvc repro"):
        description("sub-1", head(repository))


def test_without_a_submission_there_is_nothing_to_sync(
    server: KaggleServer, repository: Path, lmsys: Competition
) -> None:
    with pytest.raises(PodiumError, match="no tag sub-N: nothing was submitted from this repository"):
        sync(lmsys, 0.0, IMPATIENT)
    assert server.requests == []
