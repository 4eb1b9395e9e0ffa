"""Result files and the list of benchmarks agree; what every result says; commands that fail."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from datetime import date
from pathlib import Path

import pytest

from benchmarks.process import run
from benchmarks.result import RESULTS, ROOT, machine, markdown, write


def listed() -> list[list[str]]:
    """The cells of the list in benchmarks/README.md, a row per benchmark."""
    lines = (ROOT / "benchmarks" / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in rows if len(row) == 6][1:]


def test_the_list_has_every_benchmark_with_its_result_and_date() -> None:
    modules, files = set(), set()
    for _, command, _, result, _, last in listed():
        modules.add(f"benchmarks.{command.strip('`').split()[0]}")
        names = re.findall(r"`([^`]+)`", result)
        file = RESULTS / names[0]
        files |= {file.name} | {file.with_suffix(each).name for each in names[1:]}
        assert (json.loads(file.read_text())["date"] if file.exists() else "never") == last, file.name
    commands = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for file in (ROOT / "benchmarks").rglob("*.py")
        if 'if __name__ == "__main__"' in file.read_text()
    }
    # Processes that benchmarks.speed.shapes and benchmarks.gpu start.
    assert commands - modules == {"benchmarks.speed.one_shape", "benchmarks.gpu.worker", "benchmarks.gpu.resume"}
    assert all(importlib.util.find_spec(name) for name in modules)
    assert {file.name for file in RESULTS.iterdir()} - files == set()


def test_make_bench_runs_or_names_every_benchmark() -> None:
    recipe = (ROOT / "Makefile").read_text().split("\nbench:")[1].split("\n\n")[0]
    for question, command, *_ in listed():
        name = re.escape(f"python -m benchmarks.{command.strip('`').split()[0]}")
        ways = re.findall(rf"^\t(\S+).*{name}(?![\w.])", recipe, flags=re.MULTILINE)
        assert ways == (["@echo"] if question.endswith("*") else ["$(RUN)"]), command


def test_a_result_says_when_and_where_before_what(tmp_path: Path) -> None:
    result = write("some", {"rows": [1.0]}, tmp_path, threads=2)
    assert result == json.loads((tmp_path / "some.json").read_text())
    assert list(result) == ["date", "machine", "threads", "rows"]
    assert result["date"] == date.today().isoformat() and result["machine"] == machine()


def test_a_table_in_markdown() -> None:
    assert markdown(["a", "b"], [["x", 1]]) == "| a | b |\n|---|---|\n| x | 1 |"


def test_a_command_is_measured_with_what_it_starts(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytearray(b\"1\" * 200_000_000)'])"
    used = run([sys.executable, "-c", f"{code}; print('done')"], tmp_path)
    assert used.output == "done\n"
    assert used.peak_mb > 200 and used.cpu_seconds > 0 and used.seconds > 0


def test_a_command_that_fails_ends_with_what_it_said() -> None:
    with pytest.raises(SystemExit, match=r"exit code 3\n(?s:.*)sorry"):
        run([sys.executable, "-c", "import sys; print('sorry', file=sys.stderr); sys.exit(3)"])
