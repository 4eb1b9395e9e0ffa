from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support import ROOT

from pipeline.imports import closure, fingerprint, libraries

ALLOWED: dict[str, tuple[str, ...]] = {
    "settings": (),
    "competitions": (),
    "data": ("competitions",),
    "ingest": ("competitions", "data"),
    "models": ("settings", "competitions", "data"),
    "ensemble": ("competitions", "data"),
    "evaluation": ("competitions", "data", "ensemble"),
    "inference": ("settings", "competitions", "data", "models"),
    "planning": ("settings", "competitions", "data", "ensemble", "inference"),
    "kernel": ("settings", "competitions", "ingest", "data", "models", "ensemble", "inference", "planning"),
    "training": ("competitions", "data", "models", "inference", "settings"),
    "members": ("competitions", "ingest", "data", "models", "ensemble", "inference", "settings", "training"),
}
ALLOWED["generation"] = (*ALLOWED["members"], "members")
ALLOWED["experiments"] = (*ALLOWED["members"], "members", "evaluation", "report")
MODULES = 14
"""Of a folder at most, its `__init__.py` aside."""


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_go_one_way(folder: str) -> None:
    for file in (ROOT / "pipeline" / folder).rglob("*.py"):
        for imported in closure(".".join(file.relative_to(ROOT).with_suffix("").parts)):
            if len(imported.parts) > 2 and imported.parts[1] != folder and imported.name != "__init__.py":
                assert imported.parts[1] in ALLOWED[folder], f"{folder}/{file.name} reaches {imported}"


def test_a_room_can_be_seen_at_a_glance_and_a_class_has_its_name_alone() -> None:
    """Few modules to a folder below pipeline/, each folder with words on what it holds, no public class twice."""
    files = sorted((ROOT / "pipeline").rglob("*.py"))
    rooms = {file.parent for file in files} - {ROOT / "pipeline"}
    sizes = {str(room): len([*room.glob("*.py")]) - 1 for room in rooms}
    assert max(sizes.values()) <= MODULES, sizes
    assert all((room / "__init__.py").read_text().startswith('"""') for room in rooms)
    classes = Counter(name for file in files for name in re.findall(r"^class ([A-Z]\w*)", file.read_text(), re.M))
    assert [name for name, count in classes.items() if count > 1] == []


def test_the_closure_holds_what_python_really_loads() -> None:
    script = "import sys, pipeline.ensemble.ladder; print(*(m for m in sys.modules if m.startswith('pipeline')))"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    found = {
        str(file.with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for file in closure("pipeline.ensemble.ladder")
    }
    assert set(loaded.stdout.split()) <= found


def write(root: Path, name: str, text: str) -> None:
    path = root / "pipeline" / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_comments_and_docstrings_do_not_change_a_fingerprint(tmp_path: Path) -> None:
    write(
        tmp_path, "one", 'import numpy\nfrom pipeline import two\n\nX = 1\ndef f():\n    """Old."""\n    return two.Y\n'
    )
    write(tmp_path, "two", "Y = 1\n")
    write(tmp_path, "three", "Z = 1\n")
    first = fingerprint("pipeline.one", root=tmp_path)
    write(
        tmp_path,
        "one",
        '"""New."""\nimport numpy\nfrom pipeline import two\nX = 1  # why\n"""What."""\ndef f():\n    return two.Y\n',
    )
    write(tmp_path, "three", "Z = 2\n")
    assert fingerprint("pipeline.one", root=tmp_path) == first
    write(tmp_path, "two", "Y = 2\n")
    assert fingerprint("pipeline.one", root=tmp_path) != first
    assert libraries("pipeline.one", tmp_path) == ["numpy"]


def test_what_only_types_need_is_not_loaded(tmp_path: Path) -> None:
    types = "if TYPE_CHECKING:\n    from pipeline import two\n"
    write(tmp_path, "one", f"{types}def f():\n    from pipeline import three\n")
    for name in ("two", "three"):
        write(tmp_path, name, "Y = 1\n")
    assert [file.stem for file in closure("pipeline.one", root=tmp_path)] == ["one", "three"]


def test_a_file_named_alone_counts_without_its_imports(tmp_path: Path) -> None:
    write(tmp_path, "one", "X = 1\n")
    write(tmp_path, "shell", "from pipeline import other\nS = 1\n")
    write(tmp_path, "other", "O = 1\n")
    alone = ("pipeline/shell.py",)
    first = fingerprint("pipeline.one", alone, root=tmp_path)
    write(tmp_path, "other", "O = 2\n")
    assert fingerprint("pipeline.one", alone, root=tmp_path) == first
    write(tmp_path, "shell", "from pipeline import other\nS = 2\n")
    assert fingerprint("pipeline.one", alone, root=tmp_path) != first


def test_imports_for_types_alone_are_not_followed(tmp_path: Path) -> None:
    guarded = "if TYPE_CHECKING:\n    from pipeline import two\nelse:\n    import pipeline.three\n"
    write(tmp_path, "one", f"from typing import TYPE_CHECKING\n{guarded}")
    write(tmp_path, "two", "Y = 1\n")
    write(tmp_path, "three", "Z = 1\n")
    files = [Path("pipeline/one.py"), Path("pipeline/three.py")]
    assert closure("pipeline.one", root=tmp_path) == files
    write(tmp_path, "four", "X = 1\n")
    assert closure("pipeline.four", "pipeline.one", root=tmp_path) == [Path("pipeline/four.py"), *files]


@pytest.mark.parametrize("first", ["pipeline.files", "stages.stack", "benchmarks.result"])
def test_numpy_computes_on_one_thread_whatever_the_machine_has(first: str) -> None:
    """Its threads spin beside other work, and a sum's last bits would depend on the number of cores."""
    threads = "{e['num_threads'] for e in threadpool_info() if e['user_api'] == 'blas'}"
    code = f"import {first}, numpy, scipy.linalg; from threadpoolctl import threadpool_info; print({threads})"
    unset = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=unset, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "{1}"
