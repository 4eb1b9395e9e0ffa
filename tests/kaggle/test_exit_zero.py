"""Failures after which the CLI exits with 0: each is an error here, in one line, tried again only if it may pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kaggle_server import KaggleServer, default_run
from kaggle_world import DATASET, IMPATIENT, KERNEL, OTHER, SETTINGS
from support import ROOT

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.kaggle import cli as driver
from pipeline.kaggle import dataset, push, submit
from pipeline.kaggle.cli import KaggleError
from pipeline.kaggle.follow import Finished, follow

PACKAGE, OUTPUT = Path("artifacts/package"), Path("output")


@pytest.fixture
def codes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The exit codes of the CLI's runs, in an empty folder with a package."""
    seen: list[int | None] = []

    def spy(*arguments: object) -> Finished:
        done = follow(*arguments)  # type: ignore[arg-type]
        seen.append(done.code)
        return done

    monkeypatch.setattr(driver, "follow", spy)
    monkeypatch.setattr(push, "KERNEL", ROOT / push.KERNEL)
    return seen


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(PodiumError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"error": "Maximum batch GPU session count of 2 reached."}, "Kernel push error: Maximum batch GPU session"),
        ({"versionNumber": 3, "url": "u", "invalidDatasetSources": [DATASET]}, "not valid dataset sources"),
        ({"versionNumber": 3, "url": "u", "invalidCompetitionSources": ["x"]}, "not valid competition sources"),
        ({"url": "u"}, "kaggle kernels push: unexpected answer: "),
    ],
)
def test_a_push_that_lacks_something(server: KaggleServer, codes: list, answer: dict, expected: str) -> None:
    server.fault("SaveKernel", answer=answer)
    assert expected in error_of(lambda: push.push(KERNEL, SETTINGS, IMPATIENT))
    assert codes == [0]
    assert len(server.called("SaveKernel")) == 1


def test_a_kernel_that_ended_in_error(server: KaggleServer, codes: list, capsys: pytest.CaptureFixture[str]) -> None:
    run = server.kernels[KERNEL] = default_run({})
    run.states, run.files = ["RUNNING", "ERROR"], {}
    run.log = '[{"stream_name":"stdout","time":1,"data":"one\\n"},{"data":"error: parity lost\\n"},{"data":"bye\\n"}]'
    told = error_of(lambda: push.wait_for_run(KERNEL, 1, 60.0, OUTPUT, IMPATIENT))
    assert told == (
        f"kernel {KERNEL} version 1 ended in ERROR: error: parity lost "
        f"(log: {OUTPUT}; ARGS=--again pushes the same again)"
    )
    assert "kernel: one\nkernel: error: parity lost\nkernel: bye\n" in capsys.readouterr().out
    assert set(codes) == {0}


def test_a_kernel_that_was_cancelled(server: KaggleServer, codes: list) -> None:
    server.kernels[KERNEL] = default_run({})
    server.kernels[KERNEL].states = ["CANCEL_ACKNOWLEDGED"]
    assert "ended in CANCEL_ACKNOWLEDGED" in error_of(lambda: push.wait_for_run(KERNEL, 1, 60.0, OUTPUT, IMPATIENT))


def test_an_output_that_is_an_error_page(server: KaggleServer, codes: list) -> None:
    server.kernels[KERNEL] = default_run({})
    server.fault("/output/", status=404, times=9)
    told = error_of(lambda: push.fetch_output(KERNEL, OUTPUT, IMPATIENT))
    assert "kaggle kernels output: 404: rehearsal.json: expected the dress rehearsal's timings, found none" in told
    assert codes == [0]
    server.faults = []
    server.fault("/output/", status=500)  # this may pass, so it is fetched again, over what was written
    assert push.fetch_output(KERNEL, OUTPUT, IMPATIENT) == ["dress rehearsal on Python 3.11"]
    assert codes == [0, 0, 0]
    assert {path.name for path in OUTPUT.iterdir()} == {"podium-inference.log", "rehearsal.json", "submission.csv"}


def test_a_run_that_left_no_submission(server: KaggleServer, codes: list) -> None:
    server.kernels[KERNEL] = default_run({})
    del server.kernels[KERNEL].files["submission.csv"]
    told = error_of(lambda: push.fetch_output(KERNEL, OUTPUT, IMPATIENT))
    assert told == "kaggle kernels output: submission.csv: expected the dress rehearsal's predictions, found none"
    assert codes == [0]


def test_a_dataset_that_exists_and_is_not_ours(server: KaggleServer, codes: list) -> None:
    server.datasets[DATASET] = [{"notes": "", "files": {}}]
    server.GetDataset = lambda body: (403, "Permission 'datasets.get' was denied")
    told = error_of(lambda: dataset.upload(PACKAGE, SETTINGS, "c0ffee", 60.0, IMPATIENT))
    assert 'Dataset creation error: The requested title "Some package" is already in use' in told
    assert codes[-1] == 0


def test_a_version_that_kaggle_refuses(server: KaggleServer, codes: list) -> None:
    server.datasets[DATASET] = [{"notes": OTHER, "files": {}}]
    server.fault("CreateDatasetVersion", answer={"status": "error", "error": "quota exceeded", "url": ""})
    told = error_of(lambda: dataset.upload(PACKAGE, SETTINGS, "c0ffee", 60.0, IMPATIENT))
    assert "Dataset version creation error: quota exceeded" in told
    assert codes[-1] == 0


@pytest.fixture
def file(codes: list, tmp_path: Path) -> Path:
    submit.SUBMISSION_FILE.parent.mkdir(parents=True)
    submit.SUBMISSION_FILE.write_text("id,EAP,HPL,MWS\na,1,0,0\n")
    return submit.SUBMISSION_FILE


def send(spooky: Competition) -> object:
    command = submit.submit_command(spooky, None, "podium sub-1 commit c0ffee cv 1.0")
    return submit._send(spooky, command, "c0ffee", [], IMPATIENT)


def test_a_submission_whose_upload_failed(server: KaggleServer, codes: list, file: Path, spooky: Competition) -> None:
    server.fault("/upload/", status=400, times=9)
    assert error_of(lambda: send(spooky)) == "kaggle competitions submit: 400: Could not submit to competition"
    assert codes == [0]
    server.faults = []
    server.fault("/upload/", status=500)
    assert send(spooky)
    assert len(server.submissions) == 1


def test_a_submission_that_nobody_lists(
    server: KaggleServer, codes: list, file: Path, spooky: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "LISTED_SECONDS", 0.0)
    server.fault("CreateSubmission", answer={"message": "Your team has no submissions left."})
    told = error_of(lambda: send(spooky))
    assert told.startswith("submission of c0ffee: still not listed, Kaggle said:")
    assert "Your team has no submissions left. after" in told
    assert "/competitions/spooky-author-identification/submissions before you submit again" in told
    assert set(codes) == {0}


def test_a_submission_that_counted_in_spite_of_an_error(
    server: KaggleServer, codes: list, file: Path, spooky: Competition
) -> None:
    make = server.CreateSubmission
    server.CreateSubmission = lambda body: (make(body), (500, "oh"))[1]
    assert send(spooky)
    assert len(server.submissions) == 1


def test_no_submissions_are_none(server: KaggleServer, codes: list, spooky: Competition) -> None:
    assert submit.submissions(spooky, IMPATIENT) == []
    assert codes == [0]


def test_a_run_that_was_cancelled_by_hand() -> None:
    done = Finished(0, False, "User cancelled operation", "")
    assert driver._judged(done, [], 1.0, lambda printed: None) == ("cancelled", 0)
    assert driver._judged(Finished(0, False, "", ""), [404], 1.0, lambda printed: None)[0] is None


def test_an_answer_without_a_word_of_json_is_an_error(server: KaggleServer, codes: list, spooky: Competition) -> None:
    with pytest.raises(KaggleError, match="expected JSON"):
        driver.json_in("")
