"""The faults that `make kernel-faults` tries: what each leaves is what it says, and the kernel answers under each."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest
from packaged import kernel_script
from support import ROOT

from pipeline.errors import PodiumError
from pipeline.ingest.prepare import read_test
from pipeline.kernel.faults import KNOWN
from pipeline.package import scene, try_faults
from pipeline.package.faults import (
    COLUMNS,
    COMBINED,
    CSV,
    FILE,
    IDS,
    MACHINE,
    PACKAGE,
    ROWS,
    SAMPLE,
    TEXTS,
    WORKERS,
    faults,
)
from pipeline.package.scene import Given, Scene, read_given

SLOW = pytest.mark.slow
FILES = ROWS | IDS | TEXTS | COLUMNS | CSV | FILE | SAMPLE


@pytest.fixture(scope="module")
def given(finished: Path) -> Given:
    return read_given(finished / "artifacts" / "package", finished / "data")


@pytest.fixture(scope="module")
def main() -> ModuleType:
    """The kernel's script as a module."""
    return kernel_script()


@pytest.mark.parametrize("name", FILES, ids=[name.replace(" ", "-") for name in FILES])
def test_whatever_the_files_are_the_prior_is_accepted_and_the_rows_are_read(
    main: ModuleType, given: Given, tmp_path: Path, name: str
) -> None:
    tried = Scene(given, tmp_path, 60.0)
    before = snapshot(tried)
    FILES[name](tried)
    assert name == "no fault at all" or snapshot(tried) != before  # the fault is there
    data = main.find_competition(tried.inputs, given.manifest["competition"], True)
    main.write_prior(data, given.manifest, tried.working / "submission.csv", True)
    assert tried.verdict() is None
    assert tried.answered("")[1] == "prior"
    try:
        rows = read_test(tried.test_file, given.competition, strict=False)
    except (PodiumError, OSError):
        return  # the prior stays
    assert rows.schema["id"] == rows["id"].dtype
    assert all(turns is not None for field in given.competition.kind.fields for turns in rows[field])


FORMS = {
    "tabs": {"separator": "\t", "test": "test.tsv"},
    "backslash": {"quotes": "backslash"},
    "plain": {"turns": "plain"},
    "json": {"test": "test.json"},
    "jsonl": {"test": "test.jsonl"},
    "parquet": {"test": "test.parquet"},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("names", [["no sample", "more rows than the sample"], pytest.param(list(FILES), marks=SLOW)])
def test_in_whatever_form_the_files_come(
    main: ModuleType, given: Given, tmp_path: Path, form: str, names: list[str]
) -> None:
    competition = replace(given.competition, **FORMS[form])
    formed = replace(given, competition=competition, manifest=given.manifest | {"competition": asdict(competition)})
    known = {name: cause for section in faults(formed).values() for name, cause in section.items()}
    for number, name in enumerate(name for name in names if name in known):
        tried = Scene(formed, tmp_path / str(number), 60.0)
        known[name](tried)
        data = main.find_competition(tried.inputs, formed.manifest["competition"], True)
        main.write_prior(data, formed.manifest, tried.working / "submission.csv", True)
        assert tried.verdict() is None, name


def snapshot(tried: Scene) -> list[tuple[str, object]]:
    """Names and contents of the competition's files."""
    files = sorted(tried.files.iterdir())
    return [(file.name, file.is_file() and (file.stat().st_mode, file.read_bytes())) for file in files]


CARELESS = """import os, shutil, pathlib
sample = next(pathlib.Path(os.environ["PODIUM_INPUT"]).rglob("sample_submission.csv"))
shutil.copyfile(sample, os.path.join(os.environ["PODIUM_WORKING"], "submission.csv"))
print("rows per rung: words 24")
"""


def test_a_kernel_that_breaks_its_promise_is_told(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "careless.py"
    monkeypatch.setattr(scene, "KERNEL", script)
    monkeypatch.chdir(tmp_path)
    script.write_text("print('nothing')\n")
    with pytest.raises(PodiumError, match=r"fails without any fault: submission\.csv: expected a CSV file, .*\.log$"):
        try_faults.main(finished, "", 1, 60.0)
    script.write_text(CARELESS)
    with pytest.raises(PodiumError, match="--only: expected words of a fault's name, found gremlins; none has them"):
        try_faults.main(finished, "gremlins", 1, 60.0)
    with pytest.raises(SystemExit) as ended:
        try_faults.main(finished, "no sample", 1, 60.0)
    assert ended.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:5] for line in lines if line.startswith("sample: ")] == [
        ["sample:", "no", "sample", "1", "0"]
    ]
    assert "exit code 1; submission.csv: expected a CSV file" in lines[-3]
    assert "StopIteration" in Path(lines[-2].removeprefix("  its log: ")).read_text()
    assert lines[-1].startswith("1 faults, 1 failed, in ")
    with pytest.raises(SystemExit):
        try_faults.main(finished, "a sample with half of the ids", 1, 60.0)
    assert "submission.csv: expected 24 rows, found 12" in capsys.readouterr().out
    script.write_text(CARELESS + "import time; time.sleep(0.3)\n")
    with pytest.raises(PodiumError, match=r"0 s of 0; accepted"):
        try_faults.main(finished, "no fault at all", 1, 0.2)
    script.write_text(CARELESS)
    try_faults.main(finished, "in another order", 2, 60.0)  # two of rows and columns, two of the sample
    told = capsys.readouterr().out.splitlines()
    assert sum(" accepted " in line and line.endswith("words 24") for line in told) == 4
    assert told[-1].startswith("4 faults, 0 failed")


@pytest.mark.slow
def test_the_kernel_keeps_its_promise_under_every_fault(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(try_faults, "LOGS", finished / "kernel-faults")
    found = try_faults.try_faults(finished, "", None, None)
    assert [outcome.line() for outcome in found if not outcome.kept] == []


def test_there_are_more_than_a_hundred_and_the_page_names_each(given: Given) -> None:
    found = [name for section in faults(given).values() for name in section]
    assert len(found) == len(set(found)) > 100
    assert set(FILES) | set(PACKAGE) | set(MACHINE) <= set(found)
    assert len(found) >= len(FILES) + len(PACKAGE) + len(MACHINE) + len(KNOWN)
    page = (ROOT / "docs" / "kernel.md").read_text()
    assert [name for name in [*FILES, *PACKAGE, *MACHINE, *WORKERS.values(), *COMBINED] if name not in page] == []
