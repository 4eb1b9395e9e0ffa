"""The rehearsal: the real kernel in both ways of cutting the network, its metrics, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaged import manifest_of, write_manifest

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.files import read_json, sha256_file
from pipeline.kernel.submission import validate_submission
from pipeline.package.bases import find_bases
from pipeline.package.offline import offline_mode
from pipeline.package.rehearse import METRIC_KEYS, rehearse
from pipeline.package.scene import accept, read_csv, write_csv


@pytest.fixture
def data(mounted: Path) -> Path:
    """The competition's files, which a test may change."""
    return mounted / "lmsys-chatbot-arena"


def run(package: Path, data: Path, folder: Path, mode: str | None = None) -> dict:
    rehearse(package, data, folder / "submission.csv", folder / "metrics.json", folder / "work", mode)
    return read_json(folder / "metrics.json")


@pytest.mark.slow
def test_both_modes_write_the_same_valid_submission(
    finished: Path, tmp_path: Path, lmsys: Competition, capsys: pytest.CaptureFixture[str]
) -> None:
    package, data = finished / "artifacts/package", finished / "data"
    written = []
    for mode in {"sockets", offline_mode()}:
        metrics = run(package, data, tmp_path / mode, mode)
        assert tuple(metrics) == METRIC_KEYS
        assert (metrics["valid"], metrics["network"], metrics["rows"]) == (True, mode, 24)
        assert metrics["parity_max_abs_diff"] <= 1e-4
        assert validate_submission(tmp_path / mode / "submission.csv", data / "sample_submission.csv", lmsys) == 24
        assert list((tmp_path / mode / "work").iterdir()) == []
        assert capsys.readouterr().out.count("kernel: step ") == 6
        written.append((tmp_path / mode / "submission.csv").read_bytes())
    assert len(set(written)) == 1
    assert not list(package.rglob("__pycache__"))  # a rehearsal leaves no trace in the package


def test_the_kernel_finds_what_lies_beside_the_test_file(
    package: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = manifest_of(package)
    table, texts = (
        {"key": "id", "train": "a.csv", "test": "b.csv"},
        {"key": "id", "train": "texts/{}.txt", "column": "x"},
    )
    manifest["competition"] |= {"lookup": [table, texts]}
    write_manifest(package, manifest)
    (package / "code/pipeline/kernel/run.py").write_text(
        "def run(package, data, *given):\n    print((data / 'b.csv').read_text(), (data / 'texts/1.txt').read_text())\n"
    )
    accept(package)
    (data / "b.csv").write_text("a table")
    with pytest.raises(PodiumError, match=r"texts: expected a file of the competition, found none"):
        run(package, data, tmp_path / "first")
    (data / "texts").mkdir()
    (data / "texts" / "1.txt").write_text("and a text")
    with pytest.raises(PodiumError, match="could not begin a step"):
        run(package, data, tmp_path / "second")
    assert "kernel: a table and a text" in capsys.readouterr().out


def test_the_kernel_sees_the_gpus_that_are_left_to_us(
    package: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("NOT_PASSED_ON", "1")
    (package / "code/pipeline/kernel/run.py").write_text(
        "import os\ndef run(*given):\n    print({name for name in os.environ if name in ('NOT_PASSED_ON',)},"
        " os.environ['CUDA_VISIBLE_DEVICES'])\n"
    )
    accept(package)
    with pytest.raises(PodiumError, match="could not begin a step"):
        run(package, data, tmp_path / "out", "sockets")
    assert "kernel: set() 3,5" in capsys.readouterr().out


def test_a_base_is_mounted_as_a_dataset_of_its_own(
    package: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / "pretrained/net-nf4").mkdir(parents=True)
    (package / "pretrained/net-nf4/model.safetensors").write_bytes(b"weights")
    (package / "code/pipeline/kernel/run.py").write_text(
        "def run(package, data, *given):\n    base = package / 'pretrained/net-nf4'\n"
        "    print(base.is_symlink(), (base / 'model.safetensors').read_text(), sorted(\n"
        "        each.name[:12] for each in data.parents[1].glob('datasets/*/*')))\n"
    )
    manifest = manifest_of(package)
    name = "pretrained/net-nf4/model.safetensors"
    manifest["files"][name] = {"sha256": sha256_file(package / name), "bytes": 7}
    write_manifest(package, manifest | {"bases": find_bases(manifest["files"])})
    accept(package)
    with pytest.raises(PodiumError, match="could not begin a step"):
        run(package, data, tmp_path / "out", "sockets")
    assert "kernel: True weights ['podium-base-', 'some-package']" in capsys.readouterr().out


def test_the_keys_of_the_metrics_are_the_contracts() -> None:
    assert set(METRIC_KEYS) == {
        *("budget_seconds", "elapsed_seconds", "valid", "rungs", "rows", "rows_per_rung"),
        *("parity", "parity_max_abs_diff", "network", "plan", "timings", "hidden"),
    }


def test_a_kernel_that_stops_is_one_line_and_leaves_nothing(package: Path, data: Path, tmp_path: Path) -> None:
    (package / "parity.parquet").unlink()
    message = (
        "the kernel ended with exit code 2: error: .*parity.parquet: expected a file of the package, found No such"
    )
    with pytest.raises(PodiumError, match=message) as caught:
        run(package, data, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["work"]


def test_a_sample_that_the_submission_cannot_follow_is_refused(package: Path, data: Path, tmp_path: Path) -> None:
    lines = read_csv(data / "sample_submission.csv")
    write_csv(data / "sample_submission.csv", lines[:-1])
    (package / "code/pipeline/kernel/run.py").write_text(
        "def run(package, data, working, *others):\n    (working / 'rehearsal.json').write_text('{}')\n"
    )
    accept(package)
    with pytest.raises(PodiumError, match="expected 23 rows, found 24"):
        run(package, data, tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_missing_test_file_is_named(finished: Path, data: Path, tmp_path: Path) -> None:
    (data / "test.csv").unlink()
    with pytest.raises(PodiumError, match=r"test\.csv: expected a file of the competition, found none"):
        run(finished / "artifacts/package", data, tmp_path / "out")


def test_the_kernel_sees_little_of_our_environment(
    package: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    monkeypatch.setenv("KAGGLE_IS_COMPETITION_RERUN", "1")
    entry = package / "code/pipeline/kernel/run.py"
    entry.write_text(
        "import os\nfrom pipeline.errors import PodiumError\n\ndef run(*arguments):\n"
        "    names = ','.join(sorted(os.environ))\n"
        '    raise PodiumError(f\'{names} {os.getcwd()} {os.environ["HOME"]} {os.environ["PYTHONPATH"]}\')\n'
    )
    accept(package)
    with pytest.raises(PodiumError) as caught:
        run(package, data, tmp_path / "out", "sockets")
    names, here, home, guard = str(caught.value).split("error: ")[1].split(" ")
    assert {"KAGGLE_KEY", "KAGGLE_IS_COMPETITION_RERUN"}.isdisjoint(names.split(","))
    assert Path(here).name == "working"
    assert Path(guard) == Path(here).parent / "guard"  # the path to what cuts the network, in place of ours
    assert Path(home).parent == Path(here).parent


def test_a_budget_without_room_for_a_step_is_named(package: Path, data: Path, tmp_path: Path) -> None:
    write_manifest(package, manifest_of(package) | {"budget_seconds": 1})
    with pytest.raises(PodiumError, match=r"package\.budget_seconds: too short"):
        run(package, data, tmp_path / "out")
