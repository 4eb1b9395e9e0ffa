from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from support import ROOT, run_module

from pipeline import stage as stages
from pipeline.errors import PodiumError
from pipeline.files import atomic_file, atomic_folder


@pytest.fixture(autouse=True)
def _seconds_in_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "SECONDS", tmp_path / "seconds")


def test_seconds_are_kept_per_stage_and_summed_by_prefix(tmp_path: Path) -> None:
    for name in ("finetune@one-0", "finetune@one-1", "finetune@other-0"):
        with stages.stage(name):
            pass
    (tmp_path / "seconds" / "finetune@one-0.json").write_text("1.5")
    (tmp_path / "seconds" / "finetune@one-1.json").write_text("2.0")
    assert stages.seconds_of("finetune@one-") == 3.5
    assert stages.seconds_of("never") is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PodiumError("train.csv: wrong"), "error: train.csv: wrong"),
        (OSError(errno.ENOSPC, "No space left on device", "x.parquet"), "error: the disk is full"),
        (RuntimeError("io error: No space left on device (os error 28)"), "error: the disk is full"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(
    error: Exception, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PODIUM_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended, stages.stage("x"):
        raise error
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(expected)
    assert stages.seconds_of("x") is None


@pytest.mark.parametrize(
    ("pipeline", "line"), [(True, "run `make repro` again: it goes on"), (False, "run it again\n")]
)
def test_ctrl_c_is_one_line_and_exit_code_130(
    pipeline: bool, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PODIUM_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended, stages.stage("x", keep_seconds=pipeline):
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith(f"stopped; {line}")


@pytest.mark.parametrize("script", ["main", "error", "help"])
def test_what_a_console_cannot_encode_is_escaped(tmp_path: Path, script: str) -> None:
    texts = {
        "main": "with stage('x'): print('0.1 ± 0.2')",
        "error": "with stage('x'): raise PodiumError('café: ± wrong')",
        "help": "options('± of a stage')",
    }
    imports = "from pipeline.errors import PodiumError\nfrom pipeline.stage import options, stage\n"
    (tmp_path / "script.py").write_text(imports + texts[script], encoding="utf-8")
    done = run_module("script", "--help", cwd=tmp_path, PYTHONIOENCODING="ascii", PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert done.returncode == (2 if script == "error" else 0), done.stderr
    assert "\\xb1" in done.stdout + done.stderr


def test_a_defect_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), stages.stage("x"):
        raise ZeroDivisionError


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "x.json"
    with pytest.raises(RuntimeError), atomic_file(target) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert list((tmp_path / "deep").iterdir()) == []
    with atomic_file(target) as partial:
        partial.write_text(json.dumps(1))
    assert [file.name for file in target.parent.iterdir()] == ["x.json"]


def test_a_folder_is_whole_or_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_folder(target) as partial:
        (partial / "old").touch()
    with pytest.raises(RuntimeError), atomic_folder(target) as partial:
        (partial / "new").touch()
        raise RuntimeError
    assert [file.name for file in target.iterdir()] == ["old"]
    with atomic_folder(target) as partial:
        (partial / "new").touch()
    assert [file.name for file in target.iterdir()] == ["new"]
    assert [folder.name for folder in tmp_path.iterdir()] == ["out"]
