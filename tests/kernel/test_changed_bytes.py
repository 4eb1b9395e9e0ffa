"""A package with one changed byte, wherever it is: the kernel's script tells, or it is the same package to it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from packaged import kernel_error, kernel_script, manifest_of, run_here

from pipeline.package.scene import replace_file


def verdict(mounted: Path, package: Path, name: str, draw: random.Random) -> str:
    """Changes a byte of a file, asks the script, and puts the byte back: `told`, `harmless`, or what is wrong."""
    main, file = kernel_script(), package / name
    before, manifest = file.read_bytes(), manifest_of(package)
    at = draw.randrange(len(before))
    # By one that the file has elsewhere: most JSON with any other byte is no JSON.
    others = sorted(set(before) - {before[at]}) or [before[at] ^ 1]
    replace_file(file, before[:at] + bytes([draw.choice(others)]) + before[at + 1 :])
    try:
        found, said = main.find_package(mounted, True)
        if found is None or not main.is_whole(said):
            return "told"
        broken = main.broken_files(found, said["files"])
        if "seal" in said and said != manifest:
            return f"{name}, byte {at}: another manifest is taken for the package's"
        expected = [] if name == "MANIFEST.json" else [name]
        return ("told" if broken else "harmless") if list(broken) == expected else f"{name}, byte {at}: {broken}"
    finally:
        replace_file(file, before)


@pytest.mark.parametrize("draws", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_changed_byte_is_told_or_harmless(mounted: Path, package: Path, draws: int) -> None:
    draw, found = random.Random(17), []
    names = [*manifest_of(package)["files"], "MANIFEST.json"]
    sizes = [(package / name).stat().st_size for name in names]
    filled = [name for name, size in zip(names, sizes, strict=True) if size]
    for number in range(draws):
        # A third by size, a third by file, a third in the manifest, which nothing else has the hash of.
        by_size = draw.choices(names, sizes)[0]
        name = (by_size, draw.choice(filled), "MANIFEST.json")[number % 3]
        found.append(verdict(mounted, package, name, draw))
    assert set(found) <= {"told", "harmless"}, set(found) - {"told", "harmless"}
    assert found.count("told") > 0.9 * draws
    print(f"{draws} packages: {found.count('told')} told, {found.count('harmless')} harmless")


def test_a_manifest_that_is_another_one_is_named(
    mounted: Path, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text column's name is one byte from the other's, and fold models would answer without a word."""
    text = (package / "MANIFEST.json").read_text()
    replace_file(package / "MANIFEST.json", text.replace('"a": "response_a"', '"a": "response_b"').encode())
    assert json.loads(text) != manifest_of(package)
    assert "MANIFEST.json: was changed after the package was built" in kernel_error(run_here(mounted, tmp_path / "a"))
    replace_file(package / "code/pipeline/kernel/run.py", b"def run(*given): pass")
    done = run_here(mounted, tmp_path / "b", rerun=True)
    assert done.returncode == 0
    assert "problem: " in done.stdout and "was changed after" in done.stdout
